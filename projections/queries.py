"""Questions to the read model, answered no sooner than it has seen what the caller has.

A caller who submits and then lists sees its own task: a question waits, within bounds, until the
read model has got to where the ledger was when it was asked.
"""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from ledger.store import Position
from projections.dead_letters import (
    FailedTasks,
    FailureFilters,
    FailureGroups,
    failed_tasks,
    list_groups,
)
from projections.level import Level, reached
from projections.list_query import Filters, Listed, ListQuery
from projections.queue_sizes import QueueSize, queue_sizes
from projections.read_model import BEGINNING, Stopped, read_seen, read_stopped
from projections.readers import Readers, Unavailable
from projections.system import SystemFacts, system_facts
from projections.task_list import list_tasks
from projections.task_stats import Stats, task_stats

Found = TypeVar("Found")


class Wanted(msgspec.Struct, frozen=True):
    """Where the read model has to be, by partition. `insists`: an older answer is of no use."""

    positions: Mapping[int, Position]
    insists: bool = False


class Answer(msgspec.Struct, Generic[Found], frozen=True):
    """What was found, and in which state of the ledger. `level`: all was seen that
    was wanted."""

    found: Found
    seen: tuple[Position, ...]
    level: bool


class ReadModels:
    """The live read model of a folder, as the processes that only read use it."""

    def __init__(self, folder: Path, wait_ms: int) -> None:
        self._readers = Readers(folder)
        self._level = Level(self._readers)
        self._wait_s = wait_ms / 1000

    def expect(self, epoch: str) -> None:
        """Say which ledger the read model must have been made from."""
        self._readers.epoch = epoch

    async def tasks(self, query: ListQuery, wanted: Wanted) -> Answer[Listed]:
        """A page of tasks. Raises Unavailable, as the others do."""
        return await self._ask("tasks", lambda db: list_tasks(db, query), wanted)

    async def failure_groups(
        self, filters: FailureFilters, skip: int, size: int, wanted: Wanted
    ) -> Answer[FailureGroups]:
        """Failed tasks as groups."""
        return await self._ask("tasks", lambda db: list_groups(db, filters, skip, size), wanted)

    async def failed_tasks(
        self, filters: FailureFilters, limit: int, wanted: Wanted
    ) -> Answer[FailedTasks]:
        """Failed tasks, those first that failed first."""
        return await self._ask("tasks", lambda db: failed_tasks(db, filters, limit), wanted)

    async def stats(self, filters: Filters, wanted: Wanted) -> Answer[Stats]:
        """Counts of tasks."""
        return await self._ask("stats", lambda db: task_stats(db, filters), wanted)

    async def queues(self, wanted: Wanted) -> Answer[list[QueueSize]]:
        """What waits and runs."""
        return await self._ask("queues", queue_sizes, wanted)

    async def system(self, since_ms: int, wanted: Wanted) -> Answer[SystemFacts]:
        """The system as a whole, with what finished at `since_ms` or later."""
        return await self._ask("stats", lambda db: system_facts(db, since_ms), wanted)

    async def look(self, question: Callable[[sqlite3.Connection], Found]) -> Found:
        """What another question finds in the read model as it is now."""
        return await self._readers.ask(question)

    async def close(self) -> None:
        """Let go whoever waits, and end the threads."""
        await self._level.close()
        self._readers.close()

    async def stop_waiting(self) -> None:
        """Answer whoever waits with what there is."""
        await self._level.close()

    async def _ask(
        self, projection: str, question: Callable[[sqlite3.Connection], Found], wanted: Wanted
    ) -> Answer[Found]:
        def attempt(db: sqlite3.Connection, last: bool) -> Answer[Found] | None:
            seen, stopped = read_seen(db, projection), read_stopped(db).get(projection)
            there = stopped is None and reached(seen, wanted.positions)
            if not there and wanted.insists and (last or stopped is not None):
                raise Unavailable(_not_there(stopped, self._wait_s))
            if not there and not last and stopped is None:
                return None
            every = (seen.get(p) or Position(p, BEGINNING) for p in sorted(wanted.positions))
            return Answer(question(db), tuple(every), there)

        answer = await self._readers.ask(lambda db: attempt(db, last=False))
        if answer is None:
            await self._level.wait(wanted.positions, self._wait_s)
            answer = await self._readers.ask(lambda db: attempt(db, last=True))
        assert answer is not None  # noqa: S101 - the last attempt answers or raises
        return answer


def _not_there(stopped: Stopped | None, wait_s: float) -> str:
    if stopped is not None:
        return (
            f"the read model stopped at the event {stopped.at} ({stopped.reason}), and has not seen"
            " that Ledger-Position; /health says how to go on. Single tasks still answer"
        )
    return (
        f"the read model has not got to that Ledger-Position within {wait_s:g} s; try again."
        " Single tasks still answer"
    )
