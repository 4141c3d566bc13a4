"""What belongs to no task, on a server: the system's state, and the limits that follow from it."""

import asyncio
from collections.abc import Mapping, Sequence

from ledger.identity import SYSTEM
from ledger.keys import PartitionKeys
from ledger.redis_calls import LedgerCalls, of_ours
from ledger.redis_connection import Script
from ledger.script_format import (
    PRIORITIES,
    changed_limit_fields,
    limit_fields,
    read_limits,
    read_number,
    read_system,
    read_system_version,
)
from ledger.system.events import LimitScope
from ledger.system.state import System

LIMITS = Script("limits", after=("queues",))


class RedisSystem(LedgerCalls):
    """The Store's part in pauses and limits."""

    async def load_system(self) -> System:
        key = self._keys[0].task(SYSTEM)
        asking = self._caller.command("HMGET", key, "version", "state")
        version, state = await of_ours((key,), asking)
        return read_system(version, state)

    async def system_version(self) -> int:
        key = self._keys[0].task(SYSTEM)
        version = await of_ours((key,), self._caller.command("HGET", key, "version"))
        return read_system_version(version)

    async def spread_limits(self, system: System, before: System | None = None) -> None:
        # One field, mostly, where all of them may be ten thousand.
        step = None
        if before is not None:
            changes = changed_limit_fields(before, system, self.partitions)
            step = (before.state.limits_version, changes)
        await asyncio.gather(*(self._spread_limits(p, system, step) for p in self._keys))

    async def _spread_limits(
        self,
        names: PartitionKeys,
        system: System,
        step: tuple[int, Mapping[str, int | str]] | None,
    ) -> None:
        asking = self._caller.command("HGET", names.limits, "version")
        held = read_number(await of_ours((names.limits,), asking))
        if held >= system.state.limits_version:
            return
        if step is not None and step[0] == held:
            if await self._send_limits(names, system, str(held), step[1]) >= 0:
                return
        await self._send_limits(names, system, "", limit_fields(system, self.partitions))

    async def _send_limits(
        self, names: PartitionKeys, system: System, changes: str, fields: Mapping[str, int | str]
    ) -> int:
        flat = (part for pair in fields.items() for part in pair)
        arguments = (PRIORITIES, system.state.limits_version, changes, *flat)
        return await of_ours(names.queues, self._call_queues(LIMITS, names, arguments))

    async def limits_held(self, partition: int) -> dict[tuple[LimitScope, str], int]:
        return read_limits(await self._caller.command("HGETALL", self._keys[partition].limits))

    async def admitted(
        self, scope: LimitScope, names: Sequence[str], partition: int | None = None
    ) -> list[int]:
        if not names:
            return []
        asked = self._keys if partition is None else (self._keys[partition],)
        fields = [f"{scope.value}:{name}" for name in names]
        counts = await asyncio.gather(
            *(self._caller.command("HMGET", p.admitted, *fields) for p in asked)
        )
        return [sum(map(read_number, counted)) for counted in zip(*counts, strict=True)]
