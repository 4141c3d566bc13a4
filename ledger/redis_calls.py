"""One process's calls of a ledger's server: what the parts of `redis_store` are made of."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ledger.batching import Coalescer
from ledger.identity import partition_of
from ledger.keys import PartitionKeys
from ledger.placement import STAGED_MAX
from ledger.redis_connection import Caller, Script
from ledger.script_format import Argument


class StoreOptions(msgspec.Struct, frozen=True):
    """Bounds of one process's use of the ledger. Times in ms, sizes in bytes."""

    partitions: int = 1
    """Of a new ledger; one that exists already must have as many."""
    timeout_ms: int = 5_000
    """A call that is not answered in this time fails with SERVICE_UNAVAILABLE."""
    batch_items_max: int = 128
    batch_bytes_max: int = 1 << 20
    queue_items_max: int = 10_000
    in_flight_max: int = 2
    staged_max: int = STAGED_MAX
    """Tasks of a queue that wait in its ready stream; the others are in its backlog."""

    @property
    def connections_max(self) -> int:
        """Each partition keeps one in a blocking read, and may have its batches in flight."""
        return 64 + 4 * self.partitions


class ForeignKey(Exception):
    """A key of the ledger holds something that ledgerq did not write; nothing was changed."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"one of the keys {', '.join(names)} holds something that is not ledgerq's: "
            "look at it (TYPE, OBJECT HELP), and rename or delete it"
        )


async def of_ours(names: Sequence[str], call: Awaitable[Any]) -> Any:
    """What a call answers that is about these keys. Raises ForeignKey."""
    try:
        return await call
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise ForeignKey(names) from error
        raise


class LedgerCalls:
    """Calls of scripts and commands, within the options' bounds."""

    def __init__(self, client: Redis, options: StoreOptions) -> None:
        self._caller = Caller(client, options.timeout_ms)
        self._options = options
        self._keys = [PartitionKeys(p) for p in range(options.partitions)]

    @property
    def partitions(self) -> int:
        return self._options.partitions

    def partition_of(self, task_id: str) -> int:
        partitions = self._options.partitions
        return 0 if partitions == 1 else partition_of(task_id, partitions)

    def _partition(self, task_id: str) -> PartitionKeys:
        return self._keys[self.partition_of(task_id)]

    def _coalescer_of(
        self,
        partition: PartitionKeys,
        send: Callable[[PartitionKeys, list[Any]], Awaitable[list[Any]]],
    ) -> Coalescer[Any, Any]:
        return self._coalescer(lambda batch: send(partition, batch))

    def _coalescer(self, send: Callable[[list[Any]], Awaitable[list[Any]]]) -> Coalescer[Any, Any]:
        return Coalescer(
            send,
            items_max=self._options.batch_items_max,
            bytes_max=self._options.batch_bytes_max,
            queue_items_max=self._options.queue_items_max,
            in_flight_max=self._options.in_flight_max,
        )

    def _block_ms(self, wait_ms: int) -> int:
        """A wait that ends before its call would count as unanswered; 0 would mean for ever."""
        return max(1, min(wait_ms, self._options.timeout_ms // 2))

    async def _call(
        self, script: Script, script_keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:
        reply, _ = await self._caller.script(script, script_keys, arguments)
        return reply

    async def _call_queues(
        self,
        script: Script,
        partition: PartitionKeys,
        arguments: Iterable[Argument],
        more_keys: Iterable[str] = (),
    ) -> Any:
        """Call a script that builds on queues.lua."""
        script_keys = (*partition.queues, *more_keys)
        return await self._call(script, script_keys, (self._options.staged_max, *arguments))
