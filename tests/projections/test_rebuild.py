"""Rebuilds and checks: what they make, what they find, and that nobody is held up meanwhile."""

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from ledger.commands import CancelTask, FailAttempt
from ledger.events import ErrorKind
from ledger.memory_store import MemoryStore
from projections.check import CannotCheck, Checked, check
from projections.compare import QUERIES
from projections.fold import Poison
from projections.model_files import ModelFiles
from projections.rebuild import Rebuild
from tests.contracts.store import send, start, submit
from tests.projections.ledgers import Clock
from tests.projections.test_projector import assert_equals_the_fold, poison, remove_read_models
from tests.projections.watching import Watched, projecting

DAY_MS = 86_400_000


async def rebuilt(watched: Watched, store: MemoryStore) -> Path:
    rebuild = Rebuild(watched.files, store)
    await rebuild.build()
    return await rebuild.swap()


async def test_a_running_projector_goes_on_with_what_was_rebuilt(
    memory: MemoryStore, tmp_path: Path
):
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        await watched.level()
        old = watched.files.current()

        new = await rebuilt(watched, memory)
        await submit(memory)
        await watched.level()

        assert old != new == watched.files.current()
        assert old is not None
        assert not await asyncio.to_thread(old.exists)
        await assert_equals_the_fold(watched, memory)


async def test_a_ledger_that_went_backwards_is_over_with_a_rebuild(
    memory: MemoryStore, tmp_path: Path
):
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        last = await submit(memory)
        await watched.level()
        memory.contents[0].events.pop()
        del memory.contents[0].tasks[last.id]
        await watched.stopped()

        await rebuilt(watched, memory)
        await submit(memory)
        await watched.level()

        await assert_equals_the_fold(watched, memory)


async def test_readers_never_see_a_read_model_go_back(memory: MemoryStore, tmp_path: Path):
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        await watched.level()
        rebuild = Rebuild(watched.files, memory)
        await rebuild.build()
        await submit(memory)
        await watched.level()
        before = watched.tables()

        await rebuild.swap()

        assert watched.tables() == before


async def test_a_poisonous_event_leaves_what_serves_alone(memory: MemoryStore, tmp_path: Path):
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        await watched.level()
        before = watched.files.current()
        poison(memory, 0, type="TaskMoved")
        rebuild = Rebuild(watched.files, memory)

        with pytest.raises(Poison, match="TaskMoved at 0:1-0"):
            await rebuild.build()
        rebuild.discard()

        assert watched.files.current() == before
        assert len(watched.tables()["tasks"]) == 1


async def test_what_left_the_live_one_meanwhile_does_not_come_back(
    memory: MemoryStore, clock: Clock, tmp_path: Path
):
    async with projecting(memory, tmp_path, retention_ms=DAY_MS) as watched:
        for _ in range(3):
            await send(memory, await submit(memory), CancelTask())
        await watched.level()
        rebuild = Rebuild(watched.files, memory)
        await rebuild.build()
        clock.ms += 2 * DAY_MS
        watched.let_time_pass()
        await watched.until(lambda db: not db.execute("SELECT 1 FROM tasks").fetchall())
        before = watched.tables()

        await rebuild.swap()

        assert watched.tables() == before


async def test_a_name_that_is_live_is_not_given_again(memory: MemoryStore, tmp_path: Path):
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
    live = watched.files.current()
    assert live is not None
    remove_read_models(tmp_path)

    rebuild = Rebuild(watched.files, memory)
    await rebuild.build()
    assert not await asyncio.to_thread(live.exists)
    rebuild.discard()

    assert await rebuilt(watched, memory) != live


async def test_what_was_taken_away_is_not_installed(memory: MemoryStore, tmp_path: Path):
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
        live = watched.files.current()

        with pytest.raises(FileNotFoundError):
            watched.files.install(tmp_path / "read-model-7.sqlite3")

        assert watched.files.current() == live
        assert live is not None
        assert await asyncio.to_thread(live.exists)


async def test_a_rebuild_removes_nothing_but_its_own_file(memory: MemoryStore, tmp_path: Path):
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
        rebuild = Rebuild(watched.files, memory)
        await rebuild.build()
        others = tmp_path / "read-model-7.sqlite3"
        await asyncio.to_thread(others.touch)

        rebuild.discard()

        live = watched.files.current()
        left = {tmp_path / name for name in os.listdir(tmp_path) if name.endswith(".sqlite3")}
        assert left == {live, others}

        installed = Rebuild(watched.files, memory)
        await installed.build()
        path = await installed.swap()
        installed.discard()
        assert await asyncio.to_thread(path.exists)


# -- checks ----------------------------------------------------------------------------------------


async def checked(watched: Watched, store: MemoryStore) -> Checked:
    return await check(watched.files, store)


async def test_a_check_finds_nothing_where_nothing_is_wrong(
    memory: MemoryStore, clock: Clock, tmp_path: Path
):
    async with projecting(memory, tmp_path, retention_ms=DAY_MS) as watched:
        for _ in range(5):
            await send(memory, await submit(memory), CancelTask())
        await watched.level()
        clock.ms += 2 * DAY_MS
        await submit(memory)
        await watched.level()
        watched.let_time_pass()
        await watched.until(lambda db: len(db.execute("SELECT 1 FROM tasks").fetchall()) == 1)
        await submit(memory)  # which the one that serves has not read yet

        found = await checked(watched, memory)

        assert found.equal
        assert {each.projection for each in found.projections} == set(QUERIES)
        assert all(each.live_sha256 == each.rebuilt_sha256 for each in found.projections)
        assert len(list(await asyncio.to_thread(tmp_path.glob, "*.sqlite3"))) == 1


@pytest.mark.parametrize(
    ("wrong", "projection", "table"),
    [
        ("UPDATE tasks SET status = 4", "tasks", "tasks"),
        ("UPDATE counts SET n = n + 1 WHERE hour = -1 AND kb = 0", "tasks", "counts"),
        ("UPDATE errors SET created_at = created_at + 1", "tasks", "errors"),
        ("UPDATE errors SET fingerprint = x'00'", "tasks", "errors"),
        ("DELETE FROM failure_groups WHERE kb > 0", "tasks", "failure_groups"),
        ("UPDATE stats SET process_ms = 1", "stats", "stats"),
        ("DELETE FROM ready", "queues", "ready"),
    ],
)
async def test_a_check_finds_the_first_difference(
    memory: MemoryStore, tmp_path: Path, wrong: str, projection: str, table: str
):
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        task = await start(memory, await submit(memory))
        await send(memory, task, FailAttempt(1, "no", ErrorKind.PERMANENT))
        await watched.level()
    path = watched.files.current()
    assert path is not None
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(wrong)

    found = await checked(watched, memory)

    assert not found.equal
    [different] = [each for each in found.projections if each.difference is not None]
    assert different.projection == projection
    assert different.difference is not None
    assert different.difference.table == table
    assert different.difference.live != different.difference.rebuilt
    assert different.live_sha256 != different.rebuilt_sha256


async def test_nothing_is_compared_that_cannot_be(memory: MemoryStore, tmp_path: Path):
    with pytest.raises(CannotCheck, match="`ledgerq rebuild` makes one"):
        await check(ModelFiles(tmp_path), memory)
    async with projecting(memory, tmp_path) as watched:
        await submit(memory)
        await watched.level()
    memory.contents[0].events.clear()

    with pytest.raises(CannotCheck, match="this ledger does not have"):
        await check(ModelFiles(tmp_path), memory)
