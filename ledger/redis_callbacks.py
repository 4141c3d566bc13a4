"""Callbacks on a server: the lines of the hosts that are to be told of tasks' ends."""

from collections.abc import Mapping
from typing import Final

from ledger.redis_calls import LedgerCalls, of_ours
from ledger.redis_connection import Script
from ledger.store import (
    CALLBACK_HOSTS_COUNTED,
    CallbacksWaiting,
    DueCallback,
    DueCallbacks,
)

TAKE: Final = Script("callbacks")
COUNT: Final = Script("callbacks_waiting")


class RedisCallbacks(LedgerCalls):
    """The Store's callbacks."""

    async def take_callbacks(
        self,
        partition: int,
        count: int,
        *,
        host_max: int,
        in_hand: Mapping[str, int],
        lease_ms: int,
        settle_ms: int = 0,
    ) -> DueCallbacks:
        names = self._keys[partition]
        script_keys = (names.callbacks, names.callback_bell)
        busy = (part for pair in in_hand.items() for part in pair)
        arguments = (lease_ms, settle_ms, count, host_max, *busy)
        _, wait_ms, *flat = await of_ours(script_keys, self._call(TAKE, script_keys, arguments))
        texts: list[str] = [part.decode(errors="replace") for part in flat]
        callbacks = map(DueCallback, texts[::2], texts[1::2])
        return DueCallbacks(tuple(callbacks), None if wait_ms < 0 else int(wait_ms))

    async def callbacks_due(self, partition: int, timeout_ms: int) -> bool:
        bell, timeout_s = self._keys[partition].callback_bell, self._block_ms(timeout_ms) / 1000
        return bool(await of_ours((bell,), self._caller.command("BLPOP", bell, str(timeout_s))))

    async def callbacks_waiting(self, partition: int) -> CallbacksWaiting:
        script_keys = (self._keys[partition].callbacks,)
        call = self._call(COUNT, script_keys, (CALLBACK_HOSTS_COUNTED,))
        return CallbacksWaiting(*map(int, await of_ours(script_keys, call)))
