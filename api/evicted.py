"""What left the ledger's server, as an API process finds it: in the read model of its node, and in
the archive where that has not got it, or is behind."""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Final

from ledger.batching import Coalescer
from ledger.identity import partition_of
from ledger.past import Kept, Past
from ledger.store import Position, Recorded
from ledger.subscriptions import order_of
from ledger.task import Task
from projections.readers import Unavailable
from projections.single_task import Seen, look_up

Found = list[Seen | None]
Look = Callable[[Callable[[sqlite3.Connection], Found]], Awaitable[Found]]

LOOKED_UP_TOGETHER: Final = 32
"""Tasks, with payloads of up to 1 MiB each."""

WAITING_MAX: Final = 10_000
"""Look-ups that wait for their turn; more are refused."""


class ReadModelFirst:
    """A Past that asks the archive, `behind`, as seldom as it can."""

    def __init__(self, look: Look, behind: Past, partitions: int, *, complete: bool) -> None:
        """`look` asks the read model, which is `complete` unless it leaves out events."""
        self._look = look
        self._looks = Coalescer[str, Seen | None](
            self._look_up, items_max=LOOKED_UP_TOGETHER, bytes_max=1, queue_items_max=WAITING_MAX
        )
        self._behind = behind
        self._partitions = partitions
        self._complete = complete

    async def find(self, task_id: str, evicted: str) -> Kept:
        """As `Past`."""
        seen = await self._seen(task_id)
        if seen is not None and order_of(seen.as_of) >= order_of(evicted):
            if seen.task is not None:
                return Kept(seen.task, seen.as_of)
            if self._never(seen):
                return Kept(None, seen.as_of)
        return await self._behind.find(task_id, evicted)

    async def last_entry(self, task: Task) -> str | None:
        """As `Past`."""
        return await self._behind.last_entry(task)

    async def history_back(
        self, task_id: str, start: Position | None, count: int, evicted: str
    ) -> list[Recorded]:
        """As `Past`."""
        if start is None:
            seen = await self._seen(task_id)
            up_to_date = seen is not None and order_of(seen.as_of) >= order_of(evicted)
            if seen is not None and up_to_date and self._never(seen):
                return []
        return await self._behind.history_back(task_id, start, count, evicted)

    async def event_at(self, position: Position) -> Recorded | None:
        """As `Past`."""
        return await self._behind.event_at(position)

    async def drain(self) -> None:
        """Return when the read model has answered all."""
        await self._looks.drain()

    def _never(self, seen: Seen) -> bool:
        return self._complete and seen.never

    async def _seen(self, task_id: str) -> Seen | None:
        """None while the read model cannot be asked."""
        return await self._looks.submit(task_id, 0)

    async def _look_up(self, ids: list[str]) -> list[Seen | None]:
        """What many ask at once is one question: of those there is a bound."""
        named = [(task_id, partition_of(task_id, self._partitions)) for task_id in ids]
        try:
            return await self._look(lambda db: look_up(db, named))
        except Unavailable:
            return [None] * len(ids)
