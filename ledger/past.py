"""What left the ledger's server: the seam to wherever it is kept (the archive, a read model)."""

from typing import Protocol

import msgspec

from ledger.store import Position, Recorded
from ledger.task import Task


class Kept(msgspec.Struct, frozen=True):
    """An answer to the question after a task that the server has not got."""

    task: Task | None
    as_of: str
    """The answer takes account of every event up to this entry."""


class Past(Protocol):
    """Asked by a Store where its server has not got something. Every method may raise
    Rejection(SERVICE_UNAVAILABLE): what is kept cannot be asked now, or is asked by too many."""

    async def find(self, task_id: str, evicted: str) -> Kept:
        """A task that may have been evicted; the server has let go of tasks up to the entry
        `evicted`, and the answer takes account of that much at least."""
        ...

    async def last_entry(self, task: Task) -> str | None:
        """Where the event stands that made a task what it is; None when no such event was kept."""
        ...

    async def history_back(
        self, task_id: str, start: Position | None, count: int, evicted: str
    ) -> list[Recorded]:
        """At most `count` events of a task (or of SYSTEM), newest first, from the one at `start`
        on; or from its last one, of a task that may have been evicted, as `find` has it."""
        ...

    async def event_at(self, position: Position) -> Recorded | None:
        """The event that stood at a position."""
        ...
