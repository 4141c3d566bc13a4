"""Stores that break one promise each, to see that its checker says so. Everything else is real."""

from collections.abc import Sequence
from typing import Any

import msgspec

from ledger.codec import encode
from ledger.events import TaskCanceled, TaskCompleted, TaskStarted, TaskSubmitted
from ledger.keys import PartitionKeys
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.store import Append, Entry, Outcome, Overdue, Position, Written
from ledger.system.state import INITIAL, System

KEYS = PartitionKeys(0)


class Sound(RedisStore):
    """Breaks nothing: whatever a checker says of it, it says of everybody."""


class Forgetful(RedisStore):
    """Acknowledges a submission that it does not write."""

    async def append(self, step: Append) -> Outcome:
        if step.before is None:
            return Written(Position(0, "1-0"))
        return await super().append(step)


class Altering(RedisStore):
    """Keeps another payload than was submitted, in the event and in the snapshot."""

    async def append(self, step: Append) -> Outcome:
        first = step.events[0]
        if isinstance(first, TaskSubmitted):
            altered = msgspec.structs.replace(first, payload=msgspec.Raw(b'{"altered":true}'))
            after = msgspec.structs.replace(step.after, submission=altered)
            step = msgspec.structs.replace(step, events=(altered, *step.events[1:]), after=after)
        return await super().append(step)


class _Meddling(RedisStore):
    """Does something of its own after each completion."""

    async def append(self, step: Append) -> Outcome:
        outcome = await super().append(step)
        if isinstance(outcome, Written) and isinstance(step.events[-1], TaskCompleted):
            await self.meddle(step, outcome.position.entry)
        return outcome

    async def meddle(self, step: Append, last: str) -> None:
        raise NotImplementedError

    async def write(self, step: Append, event: Any, version: int, prev: str) -> None:
        """An event past the script."""
        fields = {
            "type": type(event).__name__,
            "task": step.after.id,
            "version": version,
            "at": step.after.state.updated_at,
            "data": encode(event),
            "meta": encode(step.meta),
            "prev": prev,
        }
        flat = [part for pair in fields.items() for part in pair]
        await send(self.client, ("XADD", KEYS.events, "*", *flat))


class EndsTwice(_Meddling):
    """Cancels what is completed."""

    async def meddle(self, step: Append, last: str) -> None:
        await self.write(step, TaskCanceled(), step.after.version + 1, last)


class Skipping(_Meddling):
    """Leaves a version out."""

    async def meddle(self, step: Append, last: str) -> None:
        await self.write(step, TaskCanceled(), step.after.version + 2, last)


class Lawless(_Meddling):
    """Starts what is completed."""

    async def meddle(self, step: Append, last: str) -> None:
        event = TaskStarted(step.after.state.attempt + 1, "nobody", 1_000)
        await self.write(step, event, step.after.version + 1, last)


class Drifting(_Meddling):
    """Keeps another snapshot than the events make."""

    async def meddle(self, step: Append, last: str) -> None:
        state = msgspec.structs.replace(step.after.state, progress=1)
        await send(self.client, ("HSET", KEYS.task(step.after.id), "state", encode(state)))


class Forging(RedisStore):
    """Stores another result than the handler's."""

    async def append(self, step: Append) -> Outcome:
        last = step.events[-1]
        if isinstance(last, TaskCompleted):
            forged = msgspec.structs.replace(last, result=msgspec.Raw(b'"forged"'))
            step = msgspec.structs.replace(step, events=(*step.events[:-1], forged))
        return await super().append(step)


class Deaf(RedisStore):
    """Renews no lease, and says that all went well: its worker never hears of a later attempt."""

    async def renew(
        self, partition: int, leases: Sequence[tuple[str, int]], lease_ms: int
    ) -> list[tuple[str, int]]:
        return []


class Unlimited(RedisStore):
    """Lets no partition know of a limit."""

    async def spread_limits(self, system: System, before: System | None = None) -> None:
        return


class Restless(RedisStore):
    """Lets no worker know of a pause."""

    async def system_version(self) -> int:
        return 0

    async def load_system(self) -> System:
        return INITIAL


class Squinting(RedisStore):
    """Shows its projector another kb_id than was submitted."""

    async def entries_after(self, position: Position, count: int, wait_ms: int) -> list[Entry]:
        entries = await super().entries_after(position, count, wait_ms)
        return [
            (entry, [part.replace(b'"kb_id":"kb"', b'"kb_id":"kc"') for part in fields])
            for entry, fields in entries
        ]


class Crashing(RedisStore):
    """Ends its scheduler."""

    async def overdue(self, partition: int, count: int) -> Overdue:
        raise RuntimeError("this store is broken")
