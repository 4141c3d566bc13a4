"""Archivers on a real ledger and a real folder: what is sealed, by whom, and when nobody may."""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

import pytest

from consumers.archive_status import PartitionSealed, archive_status
from consumers.archiver import Archiver, ArchiverOptions, archiver_options
from consumers.meters import Meter
from consumers.same_ledger import AnotherLedger, LedgerWentBack
from consumers.sealed_partition import SealingHalted, SealingOptions
from ledger.archive.checkpoint import Checkpoint
from ledger.archive.eraser import erasures_in
from ledger.archive.notes import unpack_notes
from ledger.archive.reader import Archive, Damaged, SealedLog, log_prefix
from ledger.identity import SYSTEM
from ledger.keys import LEDGER, PartitionKeys
from ledger.objects import open_objects
from ledger.objects.local_folder import LocalFolder, Move
from ledger.redis_archive import Hold, RedisArchive, Sealed
from ledger.redis_connection import send
from ledger.redis_store import RedisStore, StoreOptions
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Durability, Settings
from ledger.store import Position, Recorded
from ledger.subscriptions import BEGINNING, Taken
from ledger.system.events import ArchiveHalted
from tests.consumers.role_process import role_process
from tests.consumers.working import PATIENCE_S, Logged
from tests.contracts.store import submit
from tests.ledger.archive.sealed import key_file
from tests.object_stores import run_s3
from tests.servers import make_server, valkey_binary

AT_ONCE: Final = SealingOptions(seal_events=256, seal_interval_ms=1, lease_ms=2_000)
EVENTS: Final = PartitionKeys(0).events


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.sealed_partition.READ_WAIT_MS", 50)
    monkeypatch.setattr("consumers.sealed_partition.LOOK_S", 0.01)
    monkeypatch.setattr("consumers.sealed_partition.STAND_BY_S", 0.05)
    monkeypatch.setattr("consumers.service.BACKOFF_CAP_S", 0.1)


def archiver(
    store: RedisStore,
    folder: Path,
    options: SealingOptions = AT_ONCE,
    *,
    objects: LocalFolder | None = None,
    meter: Meter | None = None,
    timeout_ms: int = 5_000,
) -> Archiver:
    """One whose key lies beside the folder."""
    objects = objects or LocalFolder(folder)
    key_file = folder.parent / "archive.key"
    named = ArchiverOptions(key_file, options, timeout_ms=timeout_ms)
    return Archiver(store, objects, named, meter=meter)


@contextlib.asynccontextmanager
async def archiving(archiver: Archiver) -> AsyncGenerator[None]:
    """It runs."""
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(archiver.run())
        yield
        archiver.stop()


async def status_of(store: RedisStore, partition: int = 0) -> PartitionSealed:
    fence = RedisArchive(store.client, store.partitions, 5_000)
    subscriptions = RedisSubscriptions(store.client, store.partitions, 5_000)
    return (await archive_status(fence, subscriptions))[partition]


async def sealed(store: RedisStore, size: int, partition: int = 0) -> PartitionSealed:
    """As soon as so many events are."""
    while True:
        status = await status_of(store, partition)
        if status.sealed.size >= size:
            return status
        await asyncio.sleep(0)


async def archived(store: RedisStore, folder: Path, partition: int = 0) -> list[Recorded]:
    objects = LocalFolder(folder)
    log = await Archive(objects, await store.epoch(), store.partitions).log(partition)
    found = [] if log is None else [event async for some in log.events() for event in some]
    await objects.close()
    return found


async def events_of(store: RedisStore, partition: int = 0) -> list[Recorded]:
    return await store.events_after(Position(partition, "0-0"), 10_000, 1)


# -- what is sealed --------------------------------------------------------------------------------


async def test_what_happens_is_sealed(store: RedisStore, folder: Path):
    # given an archiver that runs
    meter = Meter()
    async with archiving(archiver(store, folder, meter=meter)):
        # when events come
        for _ in range(5):
            await submit(store)
        status = await sealed(store, 5)
    # then they are in the archive as they are in the ledger
    assert await archived(store, folder) == await events_of(store)
    # and the ledger knows
    assert (status.lag_events, status.unsealed_s, status.halted) == (0, 0.0, "")
    assert status.sealed.entry == (await store.last_position(0)).entry
    assert meter.meters.events_sealed == 5


async def test_a_key_that_others_may_read_is_warned_of(
    store: RedisStore, folder: Path, logged: Logged
):
    key = key_file(folder.parent).path
    key.chmod(0o644)
    async with archiving(archiver(store, folder)):
        await logged.comes("archive_key_exposed")
    assert key.exists()


async def test_many_events_are_sealed_at_round_numbers(store: RedisStore, folder: Path):
    # given more events than a checkpoint is to have, after some that were sealed
    for _ in range(10):
        await submit(store)
    assert await archiver(store, folder).seal_once() == 10
    await asyncio.gather(*(submit(store) for _ in range(700)))
    # when they are sealed
    assert await archiver(store, folder).seal_once() == 710
    # then the checkpoints between are of whole bundles
    objects = LocalFolder(folder)
    name = f"{log_prefix(await store.epoch(), 0)}checkpoints/000"
    notes = unpack_notes(await objects.read(name))
    sizes = [Checkpoint.parse(note.text).size for note in notes]
    assert sizes == [10, 256, 512, 710]
    await objects.close()
    assert await archived(store, folder) == await events_of(store)


async def test_every_partition_has_a_log_of_its_own(ledger_url: str, folder: Path):
    # given a ledger of three partitions
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=3))
    for _ in range(20):
        await submit(store)
    # when it is sealed
    assert await archiver(store, folder).seal_once() == 20
    # then each is as it is in the ledger
    for partition in range(3):
        assert await archived(store, folder, partition) == await events_of(store, partition)
    await store.close()


async def test_what_others_wrote_is_stepped_over(store: RedisStore, folder: Path):
    # given entries of others between the events, and at the end
    await submit(store)
    await send(store.client, ("XADD", EVENTS, "*", "note", "not ours"))
    await submit(store)
    await send(store.client, ("XADD", EVENTS, "*", "note", "not ours"))
    # when it is sealed, then they are left out, and do not count as behind
    assert await archiver(store, folder).seal_once() == 2
    assert (await status_of(store)).lag_events == 0
    assert await archived(store, folder) == await events_of(store)
    # and the next one goes on behind them
    await submit(store)
    assert await archiver(store, folder).seal_once() == 3


def test_where_the_server_syncs_later_events_are_sealed_later():
    # given a server that syncs once a second
    settings = Settings(durability=Durability.EVERYSEC)
    # then nothing is sealed that is younger than what is safe
    assert archiver_options(settings).sealing.settle_ms >= 1_000


# -- who seals -------------------------------------------------------------------------------------


async def test_one_archiver_seals_and_another_stands_by(
    store: RedisStore, folder: Path, logged: Logged
):
    # given two that run
    first, second = archiver(store, folder), archiver(store, folder)
    fence = RedisArchive(store.client, 1, 5_000)
    held = await fence.take(0, "somebody", 60_000)
    assert isinstance(held, Hold)
    async with archiving(first), archiving(second):
        await logged.comes("archiver_stands_by", 1)
        await submit(store)
        # when whoever has the partition lets go of it
        await fence.keep(0, held.generation, 0)
        # then one of them takes it
        await sealed(store, 1)
        for _ in range(20):
            await submit(store)
        await sealed(store, 21)
    # and nothing is sealed twice
    assert await archived(store, folder) == await events_of(store)


async def test_a_partition_is_taken_by_force_and_given_back(store: RedisStore, folder: Path):
    # given an archiver that runs
    fence = RedisArchive(store.client, 1, 5_000)
    async with archiving(archiver(store, folder)):
        await submit(store)
        await sealed(store, 1)
        # when somebody has to change what is sealed
        hold = await fence.take(0, "eraser", 60_000, force=True)
        assert isinstance(hold, Hold)
        assert hold.sealed.size == 1
        # then nobody else may have it meanwhile
        assert await fence.take(0, "another", 60_000) == Taken("eraser")
        await submit(store)
        # and afterwards the archiver goes on
        assert await fence.keep(0, hold.generation, 0)
        await sealed(store, 2)
    assert await archived(store, folder) == await events_of(store)


async def test_a_clock_that_was_set_back_prolongs_no_lease(store: RedisStore, folder: Path):
    # given a partition that was held when the server's clock was a day ahead
    fence = RedisArchive(store.client, 1, 5_000)
    held = await fence.take(0, "killed", 1_000)
    assert isinstance(held, Hold)
    a_day_on = (await fence.view(0)).now_ms + 86_400_000
    await send(store.client, ("HSET", PartitionKeys(0).archive, "until", a_day_on))
    # when another one asks for it
    assert await fence.take(0, "another", 60_000) == Taken("killed")
    # then it is free as soon as the lease would have ended
    ends = await send(store.client, ("HGET", PartitionKeys(0).archive, "until"))
    assert int(ends) <= (await fence.view(0)).now_ms + 1_000
    await submit(store)
    async with archiving(archiver(store, folder)):
        await sealed(store, 1)


async def test_one_that_was_killed_is_followed_by_another(
    store: RedisStore, tmp_path: Path, ledger_url: str
):
    # given an archiver in a process of its own, which is killed while it has the partition
    settings = Settings(
        redis_url=ledger_url,
        data_dir=str(tmp_path),
        archive_seal_interval_ms=10,
        archive_lease_ms=1_000,
        archive_seal_events=256,
    )
    await asyncio.gather(*(submit(store) for _ in range(600)))
    arguments = ("-m", "consumers.roles", "archiver", "archiver")
    with role_process(*arguments, cwd=tmp_path, settings=settings) as first:
        await sealed(store, 256)
        first.signal(signal.SIGKILL)
        first.wait()
    await asyncio.gather(*(submit(store) for _ in range(100)))
    # when another one runs
    with role_process(*arguments, cwd=tmp_path, settings=settings) as second:
        await sealed(store, 700)
        second.signal(signal.SIGTERM)
        # then it has sealed everything, and comes to an orderly end
        assert second.wait() == 0
    assert await archived(store, tmp_path / "objects") == await events_of(store)


# -- when it cannot be done ------------------------------------------------------------------------


async def failed(meter: Meter, count: int) -> None:
    """As soon as sealing failed so often."""
    while meter.meters.seals_failed < count:  # noqa: ASYNC110 - it says so to nobody
        await asyncio.sleep(0.01)


class FullFolder(LocalFolder):
    """A disk that is full for some time."""

    full = True

    def _move(self, move: Move) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super()._move(move)


async def test_a_full_disk_is_waited_for(store: RedisStore, folder: Path, logged: Logged):
    # given a disk without room
    objects, meter = FullFolder(folder), Meter()
    async with archiving(archiver(store, folder, objects=objects, meter=meter)):
        await submit(store)
        # then that is said, once, and counted
        said = await logged.comes("archive_cannot_be_written")
        assert "No space left" in said["reason"]
        await failed(meter, 3)
        assert len(logged.of("archive_cannot_be_written")) == 1
        # and the ledger shows for how long events wait, and is not hindered
        await submit(store)
        assert (await status_of(store)).lag_events == 2
        # when there is room again, then everything is sealed
        objects.full = False
        await sealed(store, 2)
        await logged.comes("archive_can_be_written_again")
    assert await archived(store, folder) == await events_of(store)


async def test_an_object_store_that_is_away_is_waited_for(
    store: RedisStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Logged
):
    # given an archiver whose S3 server has died
    (tmp_path / "s3").mkdir()
    with run_s3(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        objects, meter = open_objects(Settings(object_store_url=server.url)), Meter()
        options = ArchiverOptions(tmp_path / "archive.key", AT_ONCE)
        server.stop()
        async with archiving(Archiver(store, objects, options, meter=meter)):
            await submit(store)
            await logged.comes("archive_cannot_be_written")
            await failed(meter, 2)
            # when it is back, then everything is sealed
            await asyncio.to_thread(server.start)
            await sealed(store, 1)
            await logged.comes("archive_can_be_written_again")
        reading = open_objects(Settings(object_store_url=server.url))
        log = await Archive(reading, await store.epoch(), 1).log(0)
        assert log is not None
        assert [await log.event(0)] == await events_of(store)
        await reading.close()


async def test_that_the_ledger_went_away_meanwhile_is_one_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    # given a server that is killed as soon as the first object is to be written
    write_all = LocalFolder.write_all
    with make_server(valkey_binary()) as server:
        store = await RedisStore.open(server.url, StoreOptions(timeout_ms=200))
        await submit(store)

        async def write_all_alone(self: LocalFolder, objects: Sequence[tuple[str, bytes]]) -> None:
            server.kill()
            await write_all(self, objects)

        monkeypatch.setattr(LocalFolder, "write_all", write_all_alone)
        # when all is to be sealed, then whoever asked for that is told so, by no group of errors
        with pytest.raises(Rejection) as refused:
            await archiver(store, folder, timeout_ms=200).seal_once()
        assert refused.value.code is RejectionCode.SERVICE_UNAVAILABLE
        await store.close()


async def test_a_ledger_that_is_away_before_all_is_sealed_is_not_waited_for(folder: Path):
    # given a server that is killed when the connection was made, and nothing else
    with make_server(valkey_binary()) as server:
        store = await RedisStore.open(server.url, StoreOptions(timeout_ms=200))
        server.kill()
        # when all is to be sealed, then whoever asked for that is told so
        with pytest.raises(Rejection) as refused:
            async with asyncio.timeout(10):
                await archiver(store, folder, timeout_ms=200).seal_once()
        assert refused.value.code is RejectionCode.SERVICE_UNAVAILABLE
        await store.close()


async def test_a_server_that_lost_its_ledger_is_not_waited_for_to_have_one(
    store: RedisStore, folder: Path
):
    # given a server whose ledger was taken away
    await send(store.client, ("FLUSHALL",))
    # when all is to be sealed, then there is nothing to wait for
    with pytest.raises(AnotherLedger, match="no ledger any more"):
        async with asyncio.timeout(10):
            await archiver(store, folder).seal_once()


async def test_one_that_cannot_sign_lets_another_have_the_partition(
    store: RedisStore, folder: Path, logged: Logged
):
    # given an archiver without the key that the archive was signed with
    await submit(store)
    await archiver(store, folder).seal_once()
    options, meter = ArchiverOptions(folder.parent / "other.key", AT_ONCE), Meter()
    async with archiving(Archiver(store, LocalFolder(folder), options, meter=meter)):
        await logged.comes("archive_cannot_be_written")
        # when it has failed, then another one gets the partition
        fence = RedisArchive(store.client, 1, 5_000)
        while isinstance(held := await fence.take(0, "another", 60_000), Taken):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert isinstance(held, Hold)
        # and keeps it
        await logged.comes("archiver_stands_by")
        assert await fence.keep(0, held.generation, 0)


async def test_an_archive_of_another_ledger_is_left_alone(store: RedisStore, folder: Path):
    # given an archive of a ledger whose epoch begins as this one's does
    await submit(store)
    await archiver(store, folder).seal_once()
    epoch = await store.epoch()
    other = epoch[:8] + "0" * (len(epoch) - 8)
    await send(store.client, ("HSET", LEDGER, "epoch", other))
    await send(store.client, ("DEL", PartitionKeys(0).archive))
    # when it is to be sealed, then that is said
    with pytest.raises(Damaged, match="it is of the log ledgerq/"):
        await archiver(store, folder).seal_once()


# -- a ledger that is not what it was --------------------------------------------------------------


async def test_a_ledger_that_lost_what_was_sealed_is_sealed_no_further(
    store: RedisStore, folder: Path, logged: Logged
):
    # given a ledger whose last events were sealed, and then lost
    await submit(store)
    await send(store.client, ("COPY", EVENTS, f"{EVENTS}-before"))
    await submit(store)
    await archiver(store, folder).seal_once()
    await send(store.client, ("RENAME", f"{EVENTS}-before", EVENTS))
    # when it goes on without them
    await submit(store)
    with pytest.raises(LedgerWentBack, match="is gone from the ledger, or is another one now"):
        await archiver(store, folder).seal_once()
    # then nothing more is sealed
    status = await status_of(store)
    assert status.sealed.size == 2
    assert "is gone from the ledger" in status.halted
    # and it is an event, of which everybody hears who follows the ledger
    [halted] = await store.history(SYSTEM)
    assert halted.system_event() == ArchiveHalted(0, status.halted)
    assert logged.of("archive_halted")[0]["partition"] == 0
    # and the next archiver is told so
    with pytest.raises(SealingHalted, match="is gone from the ledger"):
        await archiver(store, folder).seal_once()
    # when somebody decides that it goes on, then what follows is sealed
    fence = RedisArchive(store.client, 1, 5_000)
    await fence.go_on(0, status.sealed.entry)
    await submit(store)
    assert await archiver(store, folder).seal_once() == 5
    assert (await status_of(store)).halted == ""


async def test_a_ledger_that_is_replaced_has_an_archive_of_its_own(
    store: RedisStore, folder: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("consumers.archiver.LEDGER_LOOK_S", 0.01)
    # given an archiver that runs
    async with archiving(archiver(store, folder)):
        await submit(store)
        await sealed(store, 1)
        # when the server is emptied, and has another ledger then
        await send(store.client, ("FLUSHALL",))
        await store.prepare()
        await send(store.client, ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"))
        await submit(store)
        await submit(store)
        # then that is sealed for itself
        await logged.comes("ledger_replaced")
        await sealed(store, 2)
    assert await archived(store, folder) == await events_of(store)


async def test_what_is_trimmed_after_it_was_sealed_is_not_lost(store: RedisStore, folder: Path):
    # given events that were sealed, and then taken away, the last one too
    for _ in range(5):
        await submit(store)
    await archiver(store, folder).seal_once()
    await send(store.client, ("XTRIM", EVENTS, "MAXLEN", 0))
    # when more come, then they are sealed
    await submit(store)
    assert await archiver(store, folder).seal_once() == 6
    # and so it is where the last one alone was taken out
    last = (await store.last_position(0)).entry
    await send(store.client, ("XDEL", EVENTS, last))
    await submit(store)
    assert await archiver(store, folder).seal_once() == 7
    versions = [event.type for event in await archived(store, folder)]
    assert versions == ["TaskSubmitted"] * 7


async def test_an_archiver_that_begins_looks_for_erasures_only_in_what_is_new(
    store: RedisStore, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    # given an archive of several bundles, whose archiver has ended
    for _ in range(600):
        await submit(store)
    await archiver(store, folder).seal_once()
    looked: list[int] = []

    async def seen(sealed: SealedLog, start: int) -> list[int]:
        looked.append(start)
        return await erasures_in(sealed, start)

    monkeypatch.setattr("consumers.erasing.erasures_in", seen)
    # when another one begins
    await submit(store)
    assert await archiver(store, folder).seal_once() == 601
    # then it looks through nothing of what the first one has seen
    assert [start for start in looked if start < 600] == []


async def test_an_archive_that_lost_what_was_trimmed_is_not_gone_on_with(
    store: RedisStore, folder: Path
):
    # given events that were sealed and trimmed
    for _ in range(5):
        await submit(store)
    await archiver(store, folder).seal_once()
    await send(store.client, ("XTRIM", EVENTS, "MAXLEN", 0))
    # when the archive is another one, then that is noticed
    (folder / "archive").rename(folder / "gone")
    with pytest.raises(LedgerWentBack, match="put the archive back that has them"):
        await archiver(store, folder).seal_once()


@pytest.mark.parametrize("foreign", [0, 2], ids=["ours alone", "with others' entries"])
async def test_an_older_copy_of_an_archive_is_not_gone_on_with(
    store: RedisStore, folder: Path, foreign: int
):
    # given an archive of which a copy was made, before more was sealed
    await submit(store)
    await archiver(store, folder).seal_once()
    shutil.copytree(folder, folder.with_name("copy"))
    for _ in range(4):
        await submit(store)
    for _ in range(foreign):
        await send(store.client, ("XADD", EVENTS, "*", "note", "not ours"))
    await archiver(store, folder).seal_once()
    before = (await status_of(store)).sealed
    # and given that some of that, and what stands before it, was trimmed
    *_, kept, _ = await events_of(store)
    await send(store.client, ("XTRIM", EVENTS, "MINID", kept.position.entry))
    # when the copy is put back, then that is noticed
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("copy"), folder)
    with pytest.raises(LedgerWentBack, match=f"up to {before.entry}: put the archive back"):
        await archiver(store, folder).seal_once()
    # and what the ledger was told stands
    assert (await status_of(store)).sealed == before


async def test_another_archive_of_the_same_size_is_not_gone_on_with(
    store: RedisStore, folder: Path
):
    # given an archive of two events
    for _ in range(2):
        await submit(store)
    await archiver(store, folder).seal_once()
    shutil.move(folder, folder.with_name("first"))
    # and given another one, of the second and a third event
    await send(store.client, ("DEL", PartitionKeys(0).archive))
    _, second = await events_of(store)
    await send(store.client, ("XTRIM", EVENTS, "MINID", second.position.entry))
    await submit(store)
    assert await archiver(store, folder).seal_once() == 2
    # when the first is put in its place, then that is noticed
    shutil.rmtree(folder)
    shutil.move(folder.with_name("first"), folder)
    with pytest.raises(LedgerWentBack, match="but others: put the archive back"):
        await archiver(store, folder).seal_once()


async def test_an_older_copy_is_gone_on_with_where_the_ledger_has_the_rest(
    store: RedisStore, folder: Path
):
    # given an archive of which a copy was made, before more was sealed
    for _ in range(3):
        await submit(store)
    await archiver(store, folder).seal_once()
    shutil.copytree(folder, folder.with_name("copy"))
    await submit(store)
    await send(store.client, ("XADD", EVENTS, "*", "note", "not ours"))
    await submit(store)
    await archiver(store, folder).seal_once()
    # and given that no more was trimmed than the copy has
    *_, kept, _ = await events_of(store)
    await send(store.client, ("XTRIM", EVENTS, "MINID", kept.position.entry))
    # when the copy is put back, then the rest is sealed once more
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("copy"), folder)
    await submit(store)
    assert await archiver(store, folder).seal_once() == 6
    # and all entries are accounted for
    status = await status_of(store)
    assert (status.sealed.passed, status.lag_events) == (7, 0)


async def test_one_that_was_killed_before_it_said_what_it_sealed_did_seal_it(
    store: RedisStore, folder: Path
):
    # given an archive that goes further than the ledger was told
    for _ in range(3):
        await submit(store)
    await archiver(store, folder).seal_once()
    told = await send(store.client, ("HGETALL", PartitionKeys(0).archive))
    for _ in range(3):
        await submit(store)
    await archiver(store, folder).seal_once()
    await send(store.client, ("HSET", PartitionKeys(0).archive, *told))
    # when another one goes on
    await submit(store)
    assert await archiver(store, folder).seal_once() == 7
    # then it knows how many entries that are
    status = await status_of(store)
    assert (status.sealed.passed, status.lag_events) == (7, 0)


async def test_a_decision_does_not_outlive_what_was_sealed_behind_it(
    store: RedisStore, folder: Path
):
    # given an archive that was lost with what was trimmed, and somebody who lets it go on
    await submit(store)
    await archiver(store, folder).seal_once()
    await send(store.client, ("XTRIM", EVENTS, "MAXLEN", 0))
    shutil.rmtree(folder)
    with pytest.raises(LedgerWentBack):
        await archiver(store, folder).seal_once()
    await RedisArchive(store.client, 1, 5_000).go_on(0, BEGINNING)
    decided = await send(store.client, ("HGETALL", PartitionKeys(0).archive))
    # and given an archiver that sealed more, and was killed before it had told so
    await submit(store)
    await archiver(store, folder).seal_once()
    await send(store.client, ("HSET", PartitionKeys(0).archive, *decided))
    await send(store.client, ("HSET", PartitionKeys(0).archive, "size", 0, "entry", BEGINNING))
    # when the next one has told it, and all is lost once more, then somebody has to decide again
    await archiver(store, folder).seal_once()
    await send(store.client, ("XTRIM", EVENTS, "MAXLEN", 0))
    shutil.rmtree(folder)
    with pytest.raises(LedgerWentBack, match="put the archive back that has them"):
        await archiver(store, folder).seal_once()


async def test_how_far_is_sealed_is_told_again_where_that_was_not_heard(
    store: RedisStore, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    # given a ledger that cannot be reached at the moment when it is to hear what was sealed
    keep, unheard = RedisArchive.keep, list[Sealed]()

    async def deaf(
        self: RedisArchive,
        partition: int,
        generation: int,
        lease_ms: int,
        told: Sealed | None = None,
        *,
        went_on: bool = False,
    ) -> bool:
        if told is not None and not unheard:
            unheard.append(told)
            raise Rejection(RejectionCode.SERVICE_UNAVAILABLE, "it takes too long")
        return await keep(self, partition, generation, lease_ms, told, went_on=went_on)

    monkeypatch.setattr(RedisArchive, "keep", deaf)
    async with archiving(archiver(store, folder)):
        # when events are sealed, and no more come
        await submit(store)
        # then it hears so in the end
        await sealed(store, 1)
    assert [told.size for told in unheard] == [1]


async def test_an_old_checkpoint_that_was_published_late_does_not_stay(
    store: RedisStore, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("consumers.sealed_partition.PUBLISH_AGAIN_S", 0.05)
    objects = LocalFolder(folder)
    async with archiving(archiver(store, folder)):
        # given an archiver with nothing to do
        await submit(store)
        await sealed(store, 1)
        name = f"{log_prefix(await store.epoch(), 0)}checkpoint"
        old = await objects.read(name)
        await submit(store)
        await sealed(store, 2)
        newest = await objects.read(name)
        # when one that had the partition before publishes what it had
        await objects.write(name, old)
        # then the newest one is published again
        while await objects.read(name) != newest:  # noqa: ASYNC110 - it says so to nobody
            await asyncio.sleep(0.01)
    await objects.close()
