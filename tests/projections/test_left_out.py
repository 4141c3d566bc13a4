"""Events that cannot be folded: where they stop everything, and that leaving them out helps."""

from pathlib import Path

import pytest

from ledger.commands import CancelTask, ReportProgress, RetryTask
from ledger.memory_store import MemoryStore
from ledger.moments import LAST_MS
from ledger.store import Recorded
from tests.contracts.store import send, start, submit
from tests.projections.ledgers import Clock
from tests.projections.test_projector import DAY_MS, count, ids, poison
from tests.projections.watching import projecting, reasons

BEYOND = 10**20
"""More than 64 bits hold."""


def position(event: Recorded) -> tuple[str]:
    return (str(event.position),)


async def test_a_task_whose_submission_is_left_out_is_left_out(memory: MemoryStore, tmp_path: Path):
    task = await submit(memory)
    poisoned = poison(memory, 0, type="TaskMoved")
    task = await send(memory, task, CancelTask())
    other = await submit(memory)
    skipping = {"skip_events": position(poisoned)}
    async with projecting(memory, tmp_path, **skipping) as watched:
        await watched.level()
        await send(memory, task, RetryTask())
        await watched.level()
    async with projecting(memory, tmp_path, **skipping) as watched:
        await start(memory, other)
        await watched.level()

        with watched.live() as db:
            assert not reasons(db)
        assert {row[0] for row in watched.tables()["tasks"]} == ids(other.id)


async def test_what_was_left_out_stays_so_when_its_task_comes_back(
    memory: MemoryStore, clock: Clock, tmp_path: Path
):
    task = await start(memory, await submit(memory))
    task = await send(memory, task, ReportProgress(10, "x", 1))
    task = await send(memory, task, CancelTask())
    poisoned = poison(memory, 2, type="TaskMoved")
    options = {"skip_events": position(poisoned), "retention_ms": DAY_MS}
    async with projecting(memory, tmp_path, **options) as watched:
        await watched.level()
        clock.ms += 2 * DAY_MS
        watched.let_time_pass()
        await watched.until(lambda db: count(db, "tasks") == 0)

        await send(memory, task, RetryTask())
        await watched.level()

        with watched.live() as db:
            assert not reasons(db)
        [(id, version, *_)] = watched.tables()["tasks"]
    assert ({id}, version) == (ids(task.id), 5)


async def test_an_event_that_could_be_read_is_left_out_too(memory: MemoryStore, tmp_path: Path):
    await submit(memory)
    await submit(memory)
    [first, _] = memory.contents[0].events
    async with projecting(memory, tmp_path, skip_events=position(first)) as watched:
        await watched.level()

        assert len(watched.tables()["tasks"]) == 1


@pytest.mark.parametrize(
    "fields",
    [
        *({"at": at} for at in (LAST_MS + 1, BEYOND, 10**30, -1)),
        *({"version": version} for version in (0, 1 << 53, 10**30)),
        {"version": 10**30, "task_id": "0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11"},
    ],
)
async def test_what_is_of_a_time_or_version_that_none_has_is_no_event(
    memory: MemoryStore, tmp_path: Path, fields: dict[str, object]
):
    task = await start(memory, await submit(memory))
    await send(memory, task, ReportProgress(10, "x", 1))
    await start(memory, await submit(memory))
    poison(memory, 2, **fields)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()

        with watched.live() as db:
            assert not reasons(db)
        assert len(watched.tables()["tasks"]) == 2


@pytest.mark.parametrize(
    ("index", "fields"),
    [
        (4, {"data": b'{"attempt":1,"worker_id":"w","lease_ms":%d}' % BEYOND}),
        (4, {"data": b'{"attempt":%d,"worker_id":"w","lease_ms":1}' % BEYOND}),
        (2, {"data": b'{"attempt":1,"progress":%d}' % BEYOND}),
        (2, {"type": "RetryScheduled", "data": b'{"retry_at":%d,"retry_count":1}' % BEYOND}),
        (
            2,
            {
                "type": "RetryScheduled",
                "data": b'{"retry_at":1,"retry_count":1,"postponements":%d}' % BEYOND,
            },
        ),
        (3, {"data": b'{"task_type":"t","kb_id":"k","payload":{},"schedule_for":%d}' % BEYOND}),
    ],
)
async def test_what_could_not_be_written_stops_where_it_stands_and_can_be_left_out(
    memory: MemoryStore, tmp_path: Path, index: int, fields: dict[str, object]
):
    task = await start(memory, await submit(memory))
    await send(memory, task, ReportProgress(10, "x", 1))
    await start(memory, await submit(memory))
    poisoned = poison(memory, index, **fields)
    async with projecting(memory, tmp_path) as watched:
        found = await watched.stopped()

        assert f" at {poisoned.position}: " in found["tasks"]
        with watched.live() as db:
            assert db.execute("SELECT total(events) FROM checkpoints").fetchone() == (index,)

    async with projecting(memory, tmp_path, skip_events=position(poisoned)) as watched:
        await watched.level()

        with watched.live() as db:
            assert not reasons(db)
