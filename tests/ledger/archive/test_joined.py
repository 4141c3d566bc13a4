"""Archive and stream as one: each event once, wherever it lies, and no gap in silence."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.archive.joined import Gap, Joined
from ledger.archive.reader import Archive
from ledger.codec import decode_event
from ledger.events import TaskSubmitted
from ledger.identity import SYSTEM
from ledger.keys import PartitionKeys
from ledger.objects import ObjectStoreError
from ledger.objects.local_folder import LocalFolder
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection
from ledger.script_format import read_recorded
from ledger.store import Position, Recorded, Store
from ledger.system.commands import PauseQueue
from ledger.system.transact import transact_system
from tests.archives import archive_of, seal
from tests.contracts.store import META, start, submit
from tests.ledger.archive.kept import Kept
from tests.ledger.archive.sealed import EPOCH, key_file, lives, opened
from tests.ledger.archive.sealed import seal as seal_lives

BEGINNING = Position(0, "0-0")
STREAM = PartitionKeys(0).events


class FarAway(Kept):
    """Objects that take their time; `most`: so many were on their way at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._under_way = 0

    async def read(self, key: str) -> bytes:
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        for _ in range(10):
            await asyncio.sleep(0)
        self._under_way -= 1
        return await super().read(key)


async def everything(joined: Joined, count: int = 100) -> list[Recorded]:
    found: list[Recorded] = []
    position = BEGINNING
    while entries := await joined.entries_after(position, count, 0):
        found += [read_recorded(0, entry) for entry in entries]
        position = found[-1].position
    return found


async def events_of(store: Store) -> list[Recorded]:
    return await store.events_after(BEGINNING, 10_000, 0)


async def trim(store: RedisStore, up_to: Recorded) -> None:
    """Take away what lies before an event."""
    await raw(store).xtrim(STREAM, minid=up_to.position.entry, approximate=False)


def raw(store: RedisStore) -> Any:
    return store.client


@pytest.mark.parametrize("count", [1, 7, 1_000])
async def test_every_event_is_read_once_wherever_it_lies(
    store: RedisStore, tmp_path: Path, count: int
):
    for _ in range(300):
        await submit(store)
    before = await events_of(store)
    archive = await archive_of(store, tmp_path)
    await submit(store)
    written = await events_of(store)

    await trim(store, before[-20])

    assert await everything(Joined(store, archive), count) == written


async def test_without_a_stream_it_ends_where_it_was_sealed(store: RedisStore, tmp_path: Path):
    for _ in range(3):
        await submit(store)
    archive = await archive_of(store, tmp_path)
    sealed = await events_of(store)
    await submit(store)

    joined = Joined(None, archive)

    assert await everything(joined) == sealed
    assert await joined.last_position(0) == sealed[-1].position
    assert await joined.epoch() == await store.epoch()


async def test_bundles_are_read_side_by_side(tmp_path: Path):
    written, objects = lives(4_000), FarAway()
    await seal_lives(await opened(objects, key_file(tmp_path)), written, 4_000)
    joined = Joined(None, Archive(objects, EPOCH, 1))
    objects.most = 0

    read = [each async for some in joined.scan(BEGINNING, written[-1].position) for each in some]

    assert read == written
    assert objects.most == 8  # leaves and data of four bundles


async def test_a_read_of_large_data_ends_sooner(tmp_path: Path):
    large = b'{"text":"%b"}' % (b"large " * 4_000)
    written = [msgspec.structs.replace(event, data=large) for event in lives(600)]
    objects = Kept()
    await seal_lives(await opened(objects, key_file(tmp_path)), written, 600)

    joined = Joined(None, Archive(objects, EPOCH, 1))

    assert len(await joined.entries_after(BEGINNING, 600, 0)) == 256
    assert await everything(joined, 600) == written


async def test_what_is_sealed_and_trimmed_meanwhile_is_not_missed(
    store: RedisStore, tmp_path: Path
):
    for _ in range(10):
        await submit(store)
    written = await events_of(store)
    archive = await archive_of(store, tmp_path)
    joined, found, position = Joined(store, archive), list[Recorded](), BEGINNING

    while entries := await joined.entries_after(position, 2, 0):
        found += [read_recorded(0, entry) for entry in entries]
        position = found[-1].position
        if len(written) < 30:
            # Ahead of the reader, all but the last event leave the stream.
            await submit(store)
            written.append((await events_of(store))[-1])
            await seal(archive.objects, written, epoch=archive.epoch)
            await trim(store, written[-1])

    assert len(written) == 30
    assert found == written


async def test_a_gap_is_an_error_that_says_where(store: RedisStore, tmp_path: Path):
    for _ in range(3):
        await submit(store)
    archive = await archive_of(store, tmp_path)
    for _ in range(3):
        await submit(store)
    written = await events_of(store)
    await trim(store, written[5])

    joined = Joined(store, archive)

    expected = f"what came after {written[2].position.entry} and before {written[5].position.entry}"
    with pytest.raises(Gap, match=expected):
        await everything(joined)


async def test_a_trimmed_stream_without_an_archive_is_a_gap(store: RedisStore, tmp_path: Path):
    task = await start(store, await submit(store))
    written = await events_of(store)
    await trim(store, written[-1])

    joined = Joined(store, Archive(LocalFolder(tmp_path), await store.epoch(), 1))

    with pytest.raises(Gap, match="neither in the stream nor in the archive"):
        await everything(joined)
    with pytest.raises(Gap, match=task.id):
        await joined.history(task.id)


async def test_what_was_taken_out_of_the_middle_comes_from_the_archive(
    store: RedisStore, tmp_path: Path
):
    tasks = [await submit(store) for _ in range(6)]
    written = await events_of(store)
    archive = await archive_of(store, tmp_path)

    await raw(store).xdel(STREAM, written[2].position.entry)

    joined = Joined(store, archive)
    assert await everything(joined) == written
    assert await joined.history(tasks[2].id) == [written[2]]
    assert await joined.event_at(written[2].position) == written[2]


async def test_an_entry_taken_out_by_hand_is_no_gap_where_nothing_was_sealed(
    store: RedisStore, tmp_path: Path
):
    await submit(store)
    stranger = await raw(store).xadd(STREAM, {"not": "ours"})
    await submit(store)
    written = await events_of(store)
    await raw(store).xdel(STREAM, stranger)

    joined = Joined(store, Archive(LocalFolder(tmp_path), await store.epoch(), 1))

    assert await everything(joined) == written


async def test_a_history_goes_on_in_the_archive(store: RedisStore, tmp_path: Path):
    task = await submit(store)
    await submit(store)
    archive = await archive_of(store, tmp_path)
    await start(store, task)
    written = [event for event in await events_of(store) if event.task_id == task.id]
    await trim(store, written[-1])

    joined = Joined(store, archive)

    assert await joined.history(task.id) == written
    assert await joined.history_back(task.id, None, 1) == written[:0:-1]
    assert await joined.history_back(task.id, written[0].position, 5) == written[:1]
    assert await store.history(task.id) == written[1:]


async def test_a_task_that_left_the_ledger_has_its_history(store: RedisStore, tmp_path: Path):
    task = await submit(store)
    last = await submit(store)
    archive = await archive_of(store, tmp_path)
    [event, kept] = await events_of(store)
    await trim(store, kept)
    await raw(store).delete(PartitionKeys(0).task(task.id))

    joined = Joined(store, archive)

    assert await joined.history(task.id) == [event]
    assert await joined.history(last.id) == [kept]
    assert await joined.history("0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11") == []
    assert await joined.history("no id") == []


async def test_the_service_has_its_history_too(store: RedisStore, tmp_path: Path):
    await transact_system(store, PauseQueue("health_check", "a test"), META)
    archive = await archive_of(store, tmp_path)
    [event] = await store.history(SYSTEM)
    await submit(store)
    await trim(store, (await events_of(store))[-1])

    assert await Joined(store, archive).history(SYSTEM) == [event]


async def test_large_data_comes_from_where_it_lies(store: RedisStore, tmp_path: Path):
    payload = msgspec.json.encode({"text": "x" * 100_000})
    await submit(store, payload=payload)
    archive = await archive_of(store, tmp_path)

    [event] = await everything(Joined(None, archive))

    submitted = decode_event(event.type, event.data)
    assert isinstance(submitted, TaskSubmitted)
    assert bytes(submitted.payload) == payload


async def test_an_archive_out_of_reach_is_an_outage(
    store: RedisStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await submit(store)
    archive = await archive_of(store, tmp_path)

    async def refuse(_: str) -> bytes:
        raise ObjectStoreError("no route to host")

    monkeypatch.setattr(archive.objects, "read", refuse)

    with pytest.raises(Rejection, match="no route to host"):
        await everything(Joined(None, archive))


async def test_many_who_read_at_once_do_not_disturb_one_another(store: RedisStore, tmp_path: Path):
    for _ in range(20):
        await submit(store)
    written = await events_of(store)
    joined = Joined(None, await archive_of(store, tmp_path))

    found = await asyncio.gather(*(everything(joined, count) for count in (1, 2, 3, 20)))

    assert found == [written] * 4


async def test_entries_that_are_no_events_are_stepped_over_and_counted(
    store: RedisStore, tmp_path: Path
):
    await raw(store).xadd(STREAM, {"not": "ours"})
    task = await submit(store)
    joined = Joined(store, Archive(LocalFolder(tmp_path), await store.epoch(), 1))

    [event] = await joined.events_after(BEGINNING, 1, 0)

    assert event.task_id == task.id
    assert store.foreign.count == 1
