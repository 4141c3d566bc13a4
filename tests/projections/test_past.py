"""Read models of moments that have passed: exactly what the ledger had by then."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.commands import ReportProgress
from ledger.evolve import fold
from ledger.memory_store import MemoryStore
from ledger.script_format import as_entry
from ledger.store import Entry, Position, Recorded
from ledger.task import Status, Task
from projections.list_query import Filters
from projections.past import build_past, open_past
from projections.queue_sizes import queue_sizes
from projections.task_stats import task_stats
from tests.checks import read_all
from tests.contracts.store import send, start, submit
from tests.projections import brute_force
from tests.projections.ledgers import Clock, Step, carry_out, histories, make_store


class InTime:
    """The events of a store in memory, under entry ids that tell when they were written."""

    def __init__(self, store: MemoryStore, written: list[Recorded]) -> None:
        self.partitions = store.partitions
        self.epoch = store.epoch
        self._events = [
            replace(event, position=Position(event.position.partition, f"{event.at + 3}-{n}"))
            for n, event in enumerate(written)
        ]

    async def events_after(self, position: Position, count: int, wait_ms: int) -> list[Recorded]:
        """As of `Events`."""
        found = [
            event
            for event in self._events
            if event.position.partition == position.partition
            and event.position.order > position.order
        ]
        return found[:count]

    async def entries_after(self, position: Position, count: int, wait_ms: int) -> list[Entry]:
        """As of `Events`."""
        return [as_entry(event) for event in await self.events_after(position, count, wait_ms)]

    async def history(self, task_id: str) -> list[Recorded]:
        """As of `Events`."""
        return [event for event in self._events if event.task_id == task_id]

    async def last_position(self, partition: int) -> Position:
        """As of `Events`."""
        raise NotImplementedError

    async def event_at(self, position: Position) -> Recorded | None:
        """As of `Events`."""
        raise NotImplementedError

    async def is_erased(self, position: Position) -> bool:
        """As of `Events`."""
        raise NotImplementedError


def tasks_of(events: list[Recorded]) -> list[Task]:
    """What these events made of each task."""
    found = [
        fold(task_id, [(e.event(), e.at) for e in events if e.task_id == task_id])
        for task_id in {event.task_id for event in events}
    ]
    return [task for task in found if task is not None]


@given(chosen=histories, cut=st.integers(0, 40))
@settings(max_examples=25, deadline=None)
def test_it_is_what_had_happened_by_then(chosen: list[Step], cut: int) -> None:
    clock = Clock()
    store = make_store(2, clock)

    async def check() -> None:
        await carry_out(store, clock, chosen)
        written = [event for p in range(2) for event in await read_all(store, p)]
        times = sorted(event.at for event in written) or [clock.ms]
        at_ms = times[cut % len(times)]
        by_then = tasks_of([event for event in written if event.at <= at_ms])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "past.sqlite3"

            await build_past(InTime(store, written), path, at_ms)

            with contextlib.closing(open_past(path)) as db:
                found = {size.queue: size for size in queue_sizes(db)}
                expected = brute_force.queues(by_then)
                assert {q: found[q] for q in expected} == expected
                for after in (None, at_ms - 50_000):
                    filters = Filters(created_after=after)
                    assert task_stats(db, filters) == brute_force.stats(by_then, filters)

    asyncio.run(check())


@pytest.mark.parametrize("at_ms", [-5, 0])
async def test_before_the_first_event_there_was_nothing(
    memory: MemoryStore, tmp_path: Path, at_ms: int
) -> None:
    await submit(memory)

    await build_past(memory, tmp_path / "past.sqlite3", at_ms)

    with contextlib.closing(open_past(tmp_path / "past.sqlite3")) as db:
        assert task_stats(db, Filters()).total == 0


async def test_what_is_open_is_read_when_its_file_is_gone(
    memory: MemoryStore, clock: Clock, tmp_path: Path
) -> None:
    await submit(memory)
    path = tmp_path / "past.sqlite3"
    await build_past(memory, path, clock.ms)

    with contextlib.closing(open_past(path)) as db:
        path.unlink()
        assert task_stats(db, Filters()).total == 1


async def test_what_had_not_happened_by_then_is_left_out_with_all_that_rests_on_it(
    memory: MemoryStore, clock: Clock, tmp_path: Path
) -> None:
    """Clocks of processes differ: what was written later may have an earlier time."""
    one, other = await submit(memory), await submit(memory)
    clock.ms += 500
    started = await start(memory, one)
    clock.ms -= 400
    await send(memory, started, ReportProgress(50))
    await start(memory, other)
    written = await read_all(memory, 0)

    await build_past(InTime(memory, written), tmp_path / "past.sqlite3", clock.ms)

    with contextlib.closing(open_past(tmp_path / "past.sqlite3")) as db:
        assert task_stats(db, Filters()).by_status[Status.QUEUED] == 1
        assert task_stats(db, Filters()).by_status[Status.PROCESSING] == 1
