"""Read models from archive and stream, when the stream has not got everything any more."""

from pathlib import Path
from typing import Any

from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.commands import CancelTask, RetryTask
from ledger.keys import PartitionKeys
from ledger.objects.local_folder import LocalFolder
from ledger.redis_store import RedisStore
from ledger.store import Events
from projections.check import check
from projections.rebuild import Rebuild
from tests.archives import archive_of
from tests.checks import read_all
from tests.contracts.store import send, start, submit
from tests.projections.tables import expected_tables
from tests.projections.watching import Watched, projecting, reasons


async def trim_all_but_last(store: RedisStore) -> None:
    raw: Any = store.client
    end = (await store.last_position(0)).entry
    await raw.xtrim(PartitionKeys(0).events, minid=end, approximate=False)


async def rebuild(watched: Watched, events: Events) -> None:
    making = Rebuild(watched.files, events)
    await making.build()
    await making.swap()


async def test_a_thrown_away_read_model_is_made_again(store: RedisStore, tmp_path: Path):
    task = await submit(store)
    for _ in range(300):
        await submit(store)
    written = await read_all(store, 0)
    archive = await archive_of(store, tmp_path / "objects")
    await trim_all_but_last(store)
    events = Joined(store, archive)
    await start(store, task)
    written += (await read_all(store, 0))[1:]

    async with projecting(store, tmp_path, events) as watched:
        await watched.level()
        assert watched.tables() == expected_tables(written)

        await rebuild(watched, events)
        await watched.level()
        assert watched.tables() == expected_tables(written)
        assert (await check(watched.files, events)).equal


async def test_a_projector_that_was_away_goes_on_in_the_archive(store: RedisStore, tmp_path: Path):
    archive = Archive(LocalFolder(tmp_path / "objects"), "", 1)
    await submit(store)
    async with projecting(store, tmp_path, Joined(store, archive)) as watched:
        await watched.level()

    for _ in range(5):
        await submit(store)
    written = await read_all(store, 0)
    await archive_of(store, tmp_path / "objects")
    await trim_all_but_last(store)

    async with projecting(store, tmp_path, Joined(store, archive)) as watched:
        await watched.level()
        assert watched.tables() == expected_tables(written)


async def test_a_task_that_left_both_is_remembered_by_its_archived_history(
    store: RedisStore, tmp_path: Path
):
    task = await send(store, await submit(store), CancelTask())
    events = Joined(store, Archive(LocalFolder(tmp_path / "objects"), "", 1))
    async with projecting(store, tmp_path, events, retention_ms=1) as watched:
        await watched.level()
        watched.let_time_pass()
        await watched.until(lambda db: not db.execute("SELECT 1 FROM tasks").fetchall())
        await submit(store)
        await archive_of(store, tmp_path / "objects")
        await trim_all_but_last(store)

        await send(store, task, RetryTask())
        await watched.level()

        with watched.live() as db:
            assert not reasons(db)
            versions = [version for [version] in db.execute("SELECT version FROM tasks")]
        assert sorted(versions) == [1, 3]


async def test_what_neither_has_stops_the_projections(store: RedisStore, tmp_path: Path):
    archive = Archive(LocalFolder(tmp_path / "objects"), "", 1)
    await submit(store)
    async with projecting(store, tmp_path, Joined(store, archive)) as watched:
        await watched.level()
        for _ in range(3):
            await submit(store)
        await trim_all_but_last(store)

        told = await watched.stopped()

    assert "neither in the stream nor in the archive" in told["tasks"]
    assert "ledgerq verify" in told["tasks"]
