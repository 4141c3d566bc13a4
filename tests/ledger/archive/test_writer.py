"""A log is what was sealed, wherever its writers were killed, whoever went on, and on any store."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from ledger.archive import tiles
from ledger.archive.growth import Growth, Tail
from ledger.archive.index import segment_name, segment_ranges
from ledger.archive.key_list import unpack_keys
from ledger.archive.keys import KeyFile
from ledger.archive.last_leaves import LastLeaves
from ledger.archive.leaf import unpack_leaf
from ledger.archive.notes import signers_of, unpack_notes
from ledger.archive.reader import Archive, log_prefix
from ledger.archive.salts import Salts
from ledger.archive.writer import LogWriter, LostFence, NotSigned
from ledger.objects import ObjectStore, ObjectStoreError, open_objects
from ledger.objects.local_folder import LocalFolder
from ledger.settings import Settings
from ledger.store import Recorded
from tests.ledger.archive.sealed import (
    EPOCH,
    key_file,
    lives,
    may_sign,
    opened,
    read_back,
    seal,
    system_event,
)
from tests.object_stores import run_s3

PREFIX = log_prefix(EPOCH, 0)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return key_file(tmp_path)


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[LocalFolder]:
    store = LocalFolder(tmp_path / "objects")
    yield store
    await store.close()


@pytest.fixture
def s3_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "s3").mkdir()
    with run_s3(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server.url


@pytest.fixture(params=["folder", "s3"])
async def objects(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    url = request.getfixturevalue("s3_url") if request.param == "s3" else None
    store = open_objects(Settings(data_dir=str(tmp_path), object_store_url=url))
    yield store
    await store.close()


async def names(objects: ObjectStore) -> list[str]:
    found = [each.key async for page in objects.listed(PREFIX.rstrip("/")) for each in page]
    return sorted(name.removeprefix(PREFIX) for name in found)


def unneeded(found: Sequence[str], size: int, old: int) -> list[str]:
    """What a log of that size has no use for; `old`: that of the checkpoint before, whose segments
    are left for whoever reads them at this moment."""
    needed = {"checkpoint", "keys", "checkpoints/000"}
    needed |= {segment_name(each) for each in (*segment_ranges(size), *segment_ranges(old))}
    for kind, level in (("tile/entries", 0), ("data", 0), ("tile/0", 0), ("tile/1", 1)):
        whole, width = divmod(size >> (8 * level), 256)
        needed |= {f"{kind}/{tiles.number_path(n)}" for n in range(whole)}
        # As long as there is no whole one, all partial ones are kept: it takes the place of each.
        needed |= {f"{kind}/{tiles.number_path(whole)}.p/{n}" for n in range(1, width + 1)}
    return [name for name in found if name not in needed]


def root_of(events: Sequence[Recorded], keys: KeyFile) -> bytes:
    """The root of the tree over their leaves, grown in one go."""
    growth = Growth(Tail(), Salts(keys.keys().salts, 0))
    assert growth.add(events, LastLeaves(0, len(events))) == []
    return growth.root


async def test_what_was_sealed_is_read_back_in_order(objects: ObjectStore, keys: KeyFile):
    # given events that were sealed in several checkpoints, of no special size
    events = lives(1_000)
    await seal(await opened(objects, keys), events, cut=170)
    # when they are read, then they are as they were
    assert await read_back(objects) == events
    # and so is each task's history
    log = await Archive(objects, EPOCH, 1).log(0)
    assert log is not None
    task = events[500].task_id
    assert await log.history(task) == [event for event in events if event.task_id == task]
    # and the tree is that over their leaves
    assert log.checkpoint.root == root_of(events, keys)


async def test_another_writer_goes_on_where_one_ended(objects: ObjectStore, keys: KeyFile):
    # given a log that has partial tiles of two levels
    events = lives(1_500)
    await seal(await opened(objects, keys), events[:700], cut=700)
    # when another writer opens it
    writer = await opened(objects, keys)
    # then it knows the last event
    assert writer.size == 700
    assert writer.last is not None
    assert writer.last.is_of(events[699])
    assert not writer.last.is_of(events[698])
    # and goes on from there, whatever it has to look up of tasks that it never saw
    await seal(writer, events[700:], cut=300)
    assert await read_back(objects) == events
    log = await Archive(objects, EPOCH, 1).log(0)
    assert log is not None
    assert log.checkpoint.root == root_of(events, keys)


async def test_a_writer_remembers_few_tasks_and_looks_up_the_others(
    folder: LocalFolder, keys: KeyFile
):
    # given a writer that remembers hardly anything, and many tasks side by side
    writer = LogWriter(Archive(folder, EPOCH, 1), 0, keys, leaves_kept=3)
    events = lives(1_200, at_once=200)
    # when it seals them
    await seal(writer, events, cut=100)
    # then every leaf has the hash of its task's last one all the same
    log = await Archive(folder, EPOCH, 1).log(0)
    assert log is not None
    assert log.checkpoint.root == root_of(events, keys)


async def test_large_data_lies_apart(folder: LocalFolder, keys: KeyFile):
    # given an event with large data among others
    first, second, *_ = lives(2, at_once=2)
    large = Recorded(
        first.position,
        first.type,
        first.task_id,
        first.version,
        first.at,
        b'"%s"' % (b"x" * 20_000),
        first.meta,
        first.prev,
    )
    # when they are sealed
    await seal(await opened(folder, keys), [large, second], cut=2)
    # then it has an object of its own, and is read from there
    assert "data/apart/000" in await names(folder)
    assert await read_back(folder) == [large, second]


async def test_what_cannot_be_a_leaf_is_left_out(folder: LocalFolder, keys: KeyFile):
    # given an event with more meta than a leaf may have, and one whose time is out of range
    good, long, late = lives(3, at_once=3)
    long = Recorded(
        long.position, long.type, long.task_id, 1, long.at, b"{}", b'"%s"' % (b"m" * 70_000), ""
    )
    late = Recorded(late.position, late.type, late.task_id, 1, 1 << 60, b"{}", b"{}", "no entry")
    # when all are added
    writer = await opened(folder, keys)
    left_out = await writer.add([good, long, late])
    await writer.seal(may_sign)
    # then they are told, and the others are sealed
    assert len(left_out) == 2
    assert await read_back(folder) == [good]


async def test_a_log_whose_salts_were_made_otherwise_goes_on(
    folder: LocalFolder, keys: KeyFile, monkeypatch: pytest.MonkeyPatch
):
    # given a log, in the middle of a bundle, of a version that made other salts
    events = lives(301)
    made = Salts(b"o" * 32, 0).of_bundle("")

    def made_otherwise(salts: Salts, first: str) -> list[bytes]:
        return made

    with monkeypatch.context() as older:
        older.setattr(Salts, "of_bundle", made_otherwise)
        await seal(await opened(folder, keys), events[:300], cut=300)
    writer = await opened(folder, keys)
    # when what comes next cannot be a leaf
    late = replace(events[300], at=1 << 60)
    assert len(await writer.add([late])) == 1
    # then the last leaf is still known for what it is of
    assert writer.last is not None
    assert writer.last.is_of(events[299])
    # and more is sealed behind it
    await seal(writer, events[300:], cut=1)
    assert await read_back(folder) == events


async def test_events_of_the_service_are_a_chain_too(folder: LocalFolder, keys: KeyFile):
    # given events of the service as a whole
    first = system_event(1)
    events = [first, system_event(2, prev=first.position.entry)]
    # when they are sealed
    await seal(await opened(folder, keys), events, cut=1)
    # then the second has the hash of the first
    log = await Archive(folder, EPOCH, 1).log(0)
    assert log is not None
    entries = await log.entries(0)
    assert unpack_leaf(0, entries[1]).prev == await log.leaf_hash(0)


async def test_nothing_is_left_of_what_larger_objects_replaced(objects: ObjectStore, keys: KeyFile):
    # given a log that grew in many small steps
    await seal(await opened(objects, keys), lives(1_090), cut=60)
    # when it is looked through, then there is nothing but what its size needs
    assert unneeded(await names(objects), 1_090, old=1_080) == []


@pytest.fixture
def kills(tmp_path: Path, keys: KeyFile) -> int:
    """At so many steps a writer was killed, and another one went on."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.ledger.archive.killed_writer", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


@pytest.mark.timeout(120)  # kills, and reads back, a writer for each of its steps
async def test_a_writer_that_was_killed_anywhere_is_followed_by_one_that_goes_on(
    kills: int, tmp_path: Path, keys: KeyFile
):
    # given writers that were killed for good at every step of sealing, and were followed by others
    assert kills > 20
    events = lives(700)
    root = root_of(events, keys)
    verifiers = keys.keys().verifiers(f"ledgerq/{EPOCH}/0")
    for step in range(kills):
        objects = LocalFolder(tmp_path / str(step))
        # then each log has all events, once
        log = await Archive(objects, EPOCH, 1).log(0)
        assert log is not None
        assert log.checkpoint.root == root
        assert await read_back(objects) == events
        # and every checkpoint that was ever signed is in the list, which only grows
        notes = unpack_notes(await objects.read(f"{PREFIX}checkpoints/000"))
        sizes = [int(note.text.split("\n")[1]) for note in notes]
        assert sizes == sorted(set(sizes))
        assert all(signers_of(note, verifiers) for note in notes)
        # and with the next checkpoint nothing is left of what was in vain
        writer = await opened(objects, keys)
        assert writer.size == 700
        await seal(writer, lives(900)[700:], cut=100)
        assert unneeded(await names(objects), 900, old=800) == []
        await objects.close()


class BrokenFolder(LocalFolder):
    """Gives other bytes back than were written, of some object."""

    broken = ""

    async def read_all(self, keys: Sequence[str]) -> list[bytes]:
        found = await super().read_all(keys)
        is_broken = [bool(self.broken) and self.broken in key for key in keys]
        return [each + b"!" * broken for each, broken in zip(found, is_broken, strict=True)]


@pytest.mark.parametrize("broken", ["tile/0/", "tile/entries", "/data/", "index/"])
async def test_nothing_is_signed_that_cannot_be_read_back(
    tmp_path: Path, keys: KeyFile, broken: str
):
    # given a store that does not keep what it was given
    objects = BrokenFolder(tmp_path / "objects")
    writer = await opened(objects, keys)
    await writer.add(lives(10))
    objects.broken = broken
    # when it is sealed, then that is noticed
    with pytest.raises(ObjectStoreError, match="what was written is not what is read back"):
        await writer.seal(may_sign)
    # and there is no checkpoint
    assert await Archive(objects, EPOCH, 1).log(0) is None
    assert "checkpoints/000" not in await names(objects)
    await objects.close()


async def test_nothing_is_signed_once_the_fence_is_lost(folder: LocalFolder, keys: KeyFile):
    # given a writer that lost its partition to another one
    async def lost() -> None:
        raise LostFence("by another")

    writer = await opened(folder, keys)
    await writer.add(lives(10))
    # when it seals
    with pytest.raises(LostFence):
        await writer.seal(lost)
    # then there is no checkpoint, and the other one is not in its way
    await seal(await opened(folder, keys), lives(20), cut=20)
    assert await read_back(folder) == lives(20)


class SlowFolder(LocalFolder):
    """A store in which one object is written only after something else happened."""

    name = ""

    async def meanwhile(self) -> None: ...

    async def write_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        if self.name and any(key.endswith(self.name) for key, _ in objects):
            self.name = ""
            await self.meanwhile()
        await super().write_all(objects)


@pytest.mark.parametrize("name", ["keys", "checkpoints/000"])
async def test_a_writer_that_is_overtaken_while_it_writes_publishes_nothing_old(
    tmp_path: Path, folder: LocalFolder, keys: KeyFile, name: str
):
    # given a writer that loses its partition while it writes an object, to one that seals more
    slow, is_lost = SlowFolder(tmp_path / "objects"), False

    async def fence() -> None:
        if is_lost:
            raise LostFence

    async def overtake() -> None:
        nonlocal is_lost
        is_lost = True
        await seal(await opened(folder, keys), lives(20), cut=20)

    slow.name, slow.meanwhile = name, overtake
    writer = await opened(slow, keys)
    await writer.add(lives(10))
    # when it goes on, then it notices
    with pytest.raises(LostFence):
        await writer.seal(fence)
    # and what the other one published is still there
    assert await read_back(folder) == lives(20)
    await slow.close()


async def test_no_newer_checkpoint_is_replaced(tmp_path: Path, folder: LocalFolder, keys: KeyFile):
    # given a writer that is overtaken, and does not hear of it
    slow = SlowFolder(tmp_path / "objects")

    async def overtake() -> None:
        await seal(await opened(folder, keys), lives(20), cut=20)

    slow.name, slow.meanwhile = "checkpoints/000", overtake
    writer = await opened(slow, keys)
    await writer.add(lives(10))
    # when it publishes, then it leaves the newer one alone
    with pytest.raises(LostFence):
        await writer.seal(may_sign)
    assert await read_back(folder) == lives(20)
    await slow.close()


async def test_what_takes_too_long_to_write_is_given_up(tmp_path: Path, keys: KeyFile):
    # given a store that does not come to an end with the list of checkpoints
    slow = SlowFolder(tmp_path / "objects")
    slow.name, slow.meanwhile = "checkpoints/000", asyncio.Event().wait  # type: ignore[assignment]
    writer = LogWriter(Archive(slow, EPOCH, 1), 0, keys, write_s=0.05)
    await writer.open()
    await writer.add(lives(10))
    # when it seals, then it gives up while it still has the partition
    async with asyncio.timeout(5):
        with pytest.raises(ObjectStoreError, match="could not be written within"):
            await writer.seal(may_sign)
    assert await Archive(slow, EPOCH, 1).log(0) is None
    await slow.close()


async def test_a_writer_that_is_closed_writes_nothing_more(folder: LocalFolder, keys: KeyFile):
    # given a writer that is about to make a checkpoint
    writer = await opened(folder, keys)
    await writer.add(lives(300))
    await writer.begin(may_sign)
    # when it is closed
    await writer.close()
    # then nothing is at work any more
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await names(folder) == []


async def test_an_old_checkpoint_that_came_late_is_replaced(folder: LocalFolder, keys: KeyFile):
    # given a log whose published checkpoint is not its last one
    writer = await opened(folder, keys)
    await seal(writer, lives(10), cut=10)
    old = await folder.read(PREFIX + tiles.CHECKPOINT)
    await seal(writer, lives(20)[10:], cut=10)
    await folder.write(PREFIX + tiles.CHECKPOINT, old)
    # when its writer looks, then the last one is published
    await writer.publish_again(may_sign)
    assert await read_back(folder) == lives(20)


async def test_a_new_key_is_introduced_by_the_one_before(folder: LocalFolder, keys: KeyFile):
    # given a log
    events = lives(30)
    writer = await opened(folder, keys)
    await seal(writer, events[:10], cut=10)
    # when its key is changed, while the writer is at work
    keys.rotate()
    await seal(writer, events[10:], cut=10)
    # then the first checkpoint after that is signed by both, the next by the new one
    old, new = keys.keys().verifiers(f"ledgerq/{EPOCH}/0")
    notes = unpack_notes(await folder.read(f"{PREFIX}checkpoints/000"))
    assert [signers_of(note, [old, new]) for note in notes] == [[old], [old, new], [new]]
    # and the list of keys says so
    listed = unpack_keys(await folder.read(f"{PREFIX}keys"))
    assert [(each.verifier, each.after) for each in listed] == [(old, None), (new, old)]
    # and other writers take the log for theirs
    assert (await opened(folder, keys)).size == 30


async def test_a_log_that_others_signed_is_left_alone(
    folder: LocalFolder, keys: KeyFile, tmp_path: Path
):
    # given a log, and a key file that has another key
    await seal(await opened(folder, keys), lives(10), cut=10)
    others = key_file(tmp_path / "elsewhere")
    # when it is opened with that, then that is said
    with pytest.raises(NotSigned, match="put back the file that has the key"):
        await opened(folder, others)
