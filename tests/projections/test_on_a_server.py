"""What only a real server can show: entries that somebody else wrote into the stream."""

from pathlib import Path

from ledger.commands import CancelTask
from ledger.keys import PartitionKeys
from ledger.redis_store import RedisStore
from projections.check import check
from tests.checks import read_all
from tests.contracts.store import send, submit
from tests.projections.tables import expected_tables
from tests.projections.watching import projecting, reasons


async def test_entries_that_are_no_events_are_stepped_over(store: RedisStore, tmp_path: Path):
    key = PartitionKeys(0).events
    names = ("type", "task", "version", "at", "data", "meta", "prev")
    strangers = (
        {"x": "y"},
        dict.fromkeys(names, "no number"),
        dict.fromkeys(names, b"\xff"),
        dict(zip(names, ("TaskCanceled", "no id", "2", "5", "{}", "{}", ""), strict=True)),
    )
    await store.client.xadd(key, {"a": "stranger at the beginning"})
    task = await submit(store)
    async with projecting(store, tmp_path) as watched:
        await watched.level()
        for stranger in strangers:
            await store.client.xadd(key, stranger)  # pyright: ignore[reportArgumentType] # bytes
        await send(store, task, CancelTask())
        await store.client.xadd(key, {"a": "stranger at the end"})
        await watched.level()
        await watched.projector.step()

        with watched.live() as db:
            assert not reasons(db)
        assert watched.tables() == expected_tables(await read_all(store, 0))
        assert (await check(watched.files, store)).equal
