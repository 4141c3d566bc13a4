"""The projector: what it makes, what stops it, and how it goes on."""

import os
import sqlite3
from pathlib import Path

import msgspec
import pytest

from ledger.commands import CancelTask, CompleteTask, RetryTask
from ledger.memory_store import MemoryStore
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Entry, Recorded
from projections import stats
from projections.catch_up import bring_level
from projections.model_files import REBUILD_LOCK, ModelFiles
from projections.projector import PAUSE_S
from projections.read_model import VERSIONS, ReadModel
from projections.rebuild import Rebuild
from projections.sqlite import INDEXES, create
from tests.checks import read_all
from tests.contracts.store import RESULT, send, start, submit
from tests.projections.ledgers import Clock, make_store
from tests.projections.tables import expected_tables
from tests.projections.watching import Watched, projecting, reasons

DAY_MS = 86_400_000


async def assert_equals_the_fold(watched: Watched, store: MemoryStore) -> None:
    events = [event for p in range(store.partitions) for event in await read_all(store, p)]
    assert watched.tables() == expected_tables(events)


async def test_what_is_there_and_what_comes_is_read(memory: MemoryStore, tmp_path: Path):
    await submit(memory)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
        before = watched.files.current()
        await submit(memory)
        await watched.level()

        assert watched.files.current() == before
        await assert_equals_the_fold(watched, memory)


async def test_all_partitions_are_followed(clock: Clock, tmp_path: Path):
    store = make_store(5, clock)
    async with projecting(store, tmp_path) as watched:
        await watched.level()
        for _ in range(20):
            await send(store, await submit(store), CancelTask())
        await watched.level()

        await assert_equals_the_fold(watched, store)


async def test_a_second_projector_stands_by_until_the_first_ends(
    memory: MemoryStore, tmp_path: Path
):
    async with projecting(memory, tmp_path) as first, projecting(memory, tmp_path) as second:
        await first.level()
        await submit(memory)

        assert await second.projector.step() > 0
        assert not first.tables()["tasks"]

        await first.projector.close()
        await second.level()
        assert len(second.tables()["tasks"]) == 1


async def test_one_that_was_killed_is_followed_by_another_that_counts_nothing_twice(
    memory: MemoryStore, tmp_path: Path
):
    async with projecting(memory, tmp_path) as watched:
        for _ in range(3):
            await submit(memory)
            await watched.level()
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        await watched.level()

        await assert_equals_the_fold(watched, memory)


# -- a ledger that went backwards ---------------------------------------------------------------


async def test_a_ledger_that_lost_its_tail_stops_everything(memory: MemoryStore, tmp_path: Path):
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        last = await submit(memory)
        await watched.level()
        lost = memory.contents[0].events.pop()
        del memory.contents[0].tasks[last.id]

        found = await watched.stopped()

        assert set(found) == {"tasks", "stats", "queues"}
        assert f"the event at {lost.position} is gone, or is another one now" in found["tasks"]
        assert "ledgerq rebuild" in found["tasks"]
        await submit(memory)
        await watched.projector.step()
        assert len(watched.tables()["tasks"]) == 2, "it goes on in spite of that"


async def test_an_event_that_became_another_one_stops_everything(
    memory: MemoryStore, tmp_path: Path
):
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        await watched.level()
        events = memory.contents[0].events
        events[0] = msgspec.structs.replace(events[0], at=events[0].at + 1)
        await submit(memory)

        assert "went backwards" in (await watched.stopped())["stats"]
        assert len(watched.tables()["tasks"]) == 1


async def test_another_ledger_stops_everything(memory: MemoryStore, clock: Clock, tmp_path: Path):
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        await watched.level()
    other = MemoryStore(clock.now_ms, lambda _: no_wait(), epoch="another")
    async with projecting(other, tmp_path) as watched:
        assert "made from another ledger" in (await watched.stopped())["tasks"]


async def no_wait() -> None:
    return


# -- events that cannot be read ------------------------------------------------------------------


def poison(store: MemoryStore, index: int, **fields: object) -> Recorded:
    """Make an event of the ledger another one, before it is read."""
    events = store.contents[0].events
    events[index] = msgspec.structs.replace(events[index], **fields)
    return events[index]


async def test_an_unknown_event_stops_everything_where_it_stands(
    memory: MemoryStore, tmp_path: Path
):
    await submit(memory)
    await send(memory, await submit(memory), CancelTask())
    await submit(memory)
    poisoned = poison(memory, 2, type="TaskPaused")

    async with projecting(memory, tmp_path) as watched:
        found = await watched.stopped()

        assert f"TaskPaused at {poisoned.position}" in found["queues"]
        assert "--skip-events" in found["queues"]
        assert len(watched.tables()["tasks"]) == 2


async def test_it_is_tried_again_at_the_next_start(memory: MemoryStore, tmp_path: Path):
    await submit(memory)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
        data = memory.contents[0].events[0].data
        await submit(memory)
        poison(memory, 1, data=b"{")
        await watched.stopped()
    poison(memory, 1, data=data)

    async with projecting(memory, tmp_path) as watched:
        await watched.level()

        assert len(watched.tables()["tasks"]) == 2


async def test_it_can_be_left_out(memory: MemoryStore, tmp_path: Path):
    task = await start(memory, await submit(memory))
    task = await send(memory, task, CompleteTask(1, RESULT))
    poisoned = poison(memory, 1, type="TaskMoved")
    poison(memory, 2, type="TaskCanceled", data=b"{}")
    async with projecting(memory, tmp_path) as watched:
        await watched.stopped()

    async with projecting(memory, tmp_path, skip_events=(str(poisoned.position),)) as watched:
        await watched.level()

        [(_, version, *_)] = watched.tables()["tasks"]
        with watched.live() as db:
            assert not reasons(db)
    assert version == 3


async def test_a_projection_that_fails_stops_alone(
    memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        await watched.level()
        with monkeypatch.context() as patch:
            patch.setattr(stats, "write", broken)
            await submit(memory)
            await watched.level()
        await submit(memory)
        await watched.level()

        with watched.live() as db:
            assert set(reasons(db)) == {"stats"}
        tables = watched.tables()
    assert len(tables["tasks"]) == 3
    assert sum(row[-2] for row in tables["stats"] if row[:2] == ("", -1)) == 1


def broken(*_: object) -> None:
    raise ZeroDivisionError


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"no database at all" * 1_000, b""], ids=["rubbish", "empty"])
async def test_a_damaged_file_is_set_aside_and_made_anew(
    memory: MemoryStore, tmp_path: Path, damage: bytes
):
    await submit(memory)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
    damaged = watched.files.current()
    assert damaged is not None
    damaged.write_bytes(damage)

    async with projecting(memory, tmp_path) as watched:
        await watched.until(lambda _: watched.files.current() != damaged)
        await watched.level()

        await assert_equals_the_fold(watched, memory)


async def test_a_page_that_breaks_is_found_by_the_look_at_the_start(
    memory: MemoryStore, tmp_path: Path
):
    for _ in range(50):
        await submit(memory)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
    damaged = watched.files.current()
    assert damaged is not None
    with damaged.open("r+b") as file:
        file.seek(-3 * 4096, 2)
        file.write(b"\xff" * 4096)

    async with projecting(memory, tmp_path) as watched:
        await watched.until(lambda _: watched.files.current() != damaged)
        await watched.level()

        await assert_equals_the_fold(watched, memory)
    assert damaged.name + ".damaged" in os.listdir(tmp_path)


async def test_a_file_that_is_taken_away_is_made_anew(memory: MemoryStore, tmp_path: Path):
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        await watched.level()
        path = watched.files.current()
        assert path is not None
        for name in os.listdir(tmp_path):
            if name.startswith(path.name):
                (tmp_path / name).unlink()

        for _ in range(10):
            await watched.projector.step()
        await watched.level()

        await assert_equals_the_fold(watched, memory)


async def test_a_locked_file_is_waited_for(
    memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("projections.sqlite.BUSY_TIMEOUT_MS", 1)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
        await submit(memory)
        path = watched.files.current()
        assert path is not None
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        pauses = [await watched.projector.step() for _ in range(5)]
        blocker.execute("ROLLBACK")
        blocker.close()

        assert max(pauses) > 0
        await watched.level()
        await assert_equals_the_fold(watched, memory)


async def test_a_read_model_of_another_version_is_made_anew_while_the_old_one_serves(
    memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await submit(memory)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
    old = watched.files.current()

    monkeypatch.setitem(VERSIONS, "stats", stats.VERSION + 1)
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        await watched.until(lambda _: watched.files.current() != old)
        await watched.level()

        with watched.live() as db:
            assert dict(db.execute("SELECT name, version FROM projections")) == VERSIONS
        await assert_equals_the_fold(watched, memory)
    assert old is not None
    assert old.name not in os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%41b"])
async def test_a_folder_may_have_any_name(memory: MemoryStore, tmp_path: Path, name: str):
    await submit(memory)
    for _ in range(2):  # made, then opened again
        async with projecting(memory, tmp_path / name) as watched:
            await watched.level()
            await assert_equals_the_fold(watched, memory)
    assert os.listdir(tmp_path) == [name]


async def test_a_file_that_is_no_good_right_away_is_made_again_after_a_pause(
    memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("projections.projector.is_current", never)
    async with projecting(memory, tmp_path) as watched:
        pauses = [await watched.projector.step() for _ in range(4)]

    assert pauses == [0.0, PAUSE_S, PAUSE_S, PAUSE_S]


def never(_: object) -> bool:
    return False


async def test_a_file_that_was_half_made_never_serves(memory: MemoryStore, tmp_path: Path):
    for _ in range(3):
        await submit(memory)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
    remove_read_models(tmp_path)
    path = ModelFiles(tmp_path).current()
    assert path is not None
    interrupted = ReadModel(create(path), partitions=1, epoch=await memory.epoch())
    await bring_level(interrupted, memory)
    interrupted.db.close()

    async with projecting(memory, tmp_path) as watched:
        await watched.until(lambda db: len(indexes(db)) == len(INDEXES))
        await watched.level()

        await assert_equals_the_fold(watched, memory)


async def test_an_outage_does_not_give_away_the_file_in_the_making(
    memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await submit(memory)
    reads = memory.entries_after
    monkeypatch.setattr(memory, "entries_after", out_of_reach)
    async with projecting(memory, tmp_path) as watched:
        with pytest.raises(Rejection):
            await watched.projector.step()
        with watched.files.lock(REBUILD_LOCK) as alone:
            assert not alone, "somebody else would remove it"
        [begun] = tmp_path.glob("*.sqlite3")  # noqa: ASYNC240 - a test's own folder

        monkeypatch.setattr(memory, "entries_after", reads)
        await watched.level()

        assert watched.files.current() == begun
        with watched.files.lock(REBUILD_LOCK) as alone:
            assert alone


async def test_a_projector_that_ends_leaves_the_files_of_others_alone(
    memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await submit(memory)
    async with projecting(memory, tmp_path) as watched:
        with monkeypatch.context() as patch:
            patch.setattr(memory, "entries_after", out_of_reach)
            with pytest.raises(Rejection):
                await watched.projector.step()
        others = tmp_path / "read-model-7.sqlite3"
        others.touch()

    assert [name for name in os.listdir(tmp_path) if name.startswith("read")] == [others.name]


async def out_of_reach(*_: object) -> list[Entry]:
    raise Rejection(RejectionCode.SERVICE_UNAVAILABLE, "out of reach")


@pytest.mark.parametrize("damage", [b"no database at all" * 1_000, b""], ids=["rubbish", "empty"])
async def test_a_damaged_file_is_made_anew_up_to_a_poisonous_event(
    memory: MemoryStore, tmp_path: Path, damage: bytes
):
    await submit(memory)
    await submit(memory)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
        poison(memory, 1, type="TaskMoved")
    damaged = watched.files.current()
    assert damaged is not None
    damaged.write_bytes(damage)

    async with projecting(memory, tmp_path) as watched:
        await watched.stopped()

        assert len(watched.tables()["tasks"]) == 1


async def test_what_could_not_be_built_is_tried_again_over_another_file(
    memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await submit(memory)
    await submit(memory)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
    poison(memory, 1, type="TaskMoved")
    monkeypatch.setitem(VERSIONS, "stats", stats.VERSION + 1)
    async with projecting(memory, tmp_path) as watched:
        old = watched.files.current()
        assert [await watched.projector.step() for _ in range(3)] == [PAUSE_S] * 3
        assert watched.files.current() == old, "the old one serves more than could be built"
        remove_read_models(tmp_path)

        await watched.stopped()

        assert len(watched.tables()["tasks"]) == 1


async def test_a_failure_to_build_is_forgotten_once_a_file_is_open(
    memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await submit(memory)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
    await submit(memory)
    left_out = str(poison(memory, 1, type="TaskMoved").position)
    monkeypatch.setitem(VERSIONS, "stats", stats.VERSION + 1)
    async with projecting(memory, tmp_path) as watched:
        for _ in range(3):
            await watched.projector.step()
        rebuild = Rebuild(watched.files, memory, skipped=(left_out,))
        await rebuild.build()
        await rebuild.swap()
        await submit(memory)
        await watched.level()
        remove_read_models(tmp_path)

        await watched.stopped()

        assert len(watched.tables()["tasks"]) == 1


def remove_read_models(folder: Path) -> None:
    """All of them; `current` goes on naming one."""
    for path in folder.glob("read-model-*"):
        path.unlink()


def indexes(db: sqlite3.Connection) -> list[str]:
    made = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql != ''"
    return [name for (name,) in db.execute(made)]


# -- retention -------------------------------------------------------------------------------------


async def test_old_finished_tasks_leave_and_still_count(
    memory: MemoryStore, clock: Clock, tmp_path: Path
):
    async with projecting(memory, tmp_path, retention_ms=DAY_MS) as watched:
        old = await send(memory, await submit(memory), CancelTask())
        waiting = await submit(memory)
        await watched.level()
        clock.ms += 2 * DAY_MS
        young = await send(memory, await submit(memory), CancelTask())
        await watched.level()
        watched.let_time_pass()
        await watched.until(lambda db: count(db, "tasks") == 2)

        assert {row[0] for row in watched.tables()["tasks"]} == ids(waiting.id, young.id)
        assert {row[0] for row in watched.tables()["submissions"]} == ids(waiting.id, young.id)
        with watched.live() as db:
            assert ever(db, "counts") == 2
            assert ever(db, "stats") == 3
        assert old.finished


async def test_one_that_left_comes_back_whole_when_it_is_retried(
    memory: MemoryStore, clock: Clock, tmp_path: Path
):
    async with projecting(memory, tmp_path, retention_ms=DAY_MS) as watched:
        task = await send(memory, await submit(memory, payload=b'{"a": 1}'), CancelTask("no"))
        await watched.level()
        clock.ms += 2 * DAY_MS
        watched.let_time_pass()
        await watched.until(lambda db: count(db, "tasks") == 0)

        await start(memory, await send(memory, task, RetryTask()))
        await watched.level()

        await assert_equals_the_fold(watched, memory)


def count(db: sqlite3.Connection, table: str) -> int:
    return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608


def ever(db: sqlite3.Connection, table: str) -> int:
    """How many tasks there are of all knowledge bases, at any time."""
    query = f"SELECT sum(n) FROM {table} WHERE kb = 0 AND hour = -1"  # noqa: S608
    return db.execute(query).fetchone()[0]


def ids(*task_ids: str) -> set[bytes]:
    return {bytes.fromhex(task_id.replace("-", "")) for task_id in task_ids}
