"""Whoever erases and has lost the lease meanwhile takes nothing away that others have sealed."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from ledger.archive.compression import decompress
from ledger.archive.eraser import Eraser
from ledger.archive.keys import KeyFile
from ledger.archive.reader import Archive, SealedLog
from ledger.archive.writer import LostFence
from ledger.erasure import redactions
from ledger.objects.local_folder import LocalFolder
from ledger.store import Position, Recorded
from tests.ledger.archive.sealed import EPOCH, key_file, lives, may_sign, opened, seal, task_id_of

SECRET = b"Zoe's diagnosis"
PREFIX = f"archive/{EPOCH[:8]}/0/"


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return key_file(tmp_path)


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[LocalFolder]:
    store = LocalFolder(tmp_path / "objects")
    yield store
    await store.close()


def erased_task() -> list[Recorded]:
    """What it was about, and that it is erased: before all of `lives`."""
    task = task_id_of(1_000_000)
    data = b'{"task_type":"t","kb_id":"k","payload":{"text":"%s"}}' % SECRET
    first = Recorded(Position(0, "1000-0"), "TaskSubmitted", task, 1, 1000, data, b"{}", "")
    told = msgspec.json.encode({"reason": "x", "redacted": redactions([first])})
    last = Recorded(Position(0, "1001-0"), "TaskErased", task, 2, 1001, told, b"{}", "1000-0")
    return [first, last]


async def log_of(objects: LocalFolder) -> SealedLog:
    log = await Archive(objects, EPOCH, 1).log(0)
    assert log is not None
    return log


async def mentions(objects: LocalFolder) -> list[str]:
    """The objects below `data` that have the secret."""
    found = [each.key async for page in objects.listed(f"{PREFIX}data") for each in page]
    return [key for key in found if SECRET in decompress(await objects.read(key))]


async def test_a_bundle_that_another_writer_made_whole_stays(objects: LocalFolder, keys: KeyFile):
    # given one that erases, and stalls after it was told that it may
    await seal(await opened(objects, keys), erased_task(), cut=10)
    stalled = Eraser(objects, EPOCH, await log_of(objects), may_sign)
    # when another one seals on meanwhile, before the first one goes on
    events = lives(300)
    await seal(await opened(objects, keys), events, cut=1_000)
    await stalled.remove(1)
    # then all that was sealed is there, but for what is erased
    log = await log_of(objects)
    assert [each async for some in log.events(2) for each in some] == events
    assert (await log.stored(0))[0].erased
    assert await mentions(objects) == []


async def test_a_wider_bundle_that_another_writer_signed_stays(objects: LocalFolder, keys: KeyFile):
    await seal(await opened(objects, keys), erased_task(), cut=10)
    stalled = Eraser(objects, EPOCH, await log_of(objects), may_sign)
    events = lives(50)
    await seal(await opened(objects, keys), events, cut=1_000)

    await stalled.remove(1)

    log = await log_of(objects)
    assert [each async for some in log.events(2) for each in some] == events
    assert await mentions(objects) == []


@pytest.mark.parametrize("width", [50, 300])
async def test_what_was_written_and_never_signed_is_redacted_too(
    objects: LocalFolder, keys: KeyFile, width: int
):
    await seal(await opened(objects, keys), erased_task(), cut=10)
    killed = await opened(objects, keys)
    await killed.add(lives(width))

    async def may_not() -> None:
        raise LostFence

    with pytest.raises(LostFence):
        await killed.seal(may_not)
    await killed.close()

    await Eraser(objects, EPOCH, await log_of(objects), may_sign).remove(1)

    assert await mentions(objects) == []
    await seal(await opened(objects, keys), lives(width), cut=1_000)
    assert (await log_of(objects)).size == width + 2


@pytest.mark.parametrize("allowed", range(3))
async def test_without_the_lease_nothing_is_changed_any_more(
    objects: LocalFolder, keys: KeyFile, tmp_path: Path, allowed: int
):
    events = erased_task()
    writer = await opened(objects, keys)
    await seal(writer, events[:1], cut=10)
    await seal(writer, events[1:], cut=10)
    changes = 0

    class Counted(LocalFolder):
        async def write(self, key: str, data: bytes) -> None:
            nonlocal changes
            changes += 1
            await super().write(key, data)

        async def delete(self, key: str) -> None:
            nonlocal changes
            changes += 1
            await super().delete(key)

    async def may_change() -> None:
        if changes == allowed:
            raise LostFence

    counted = Counted(tmp_path / "objects")
    with pytest.raises(LostFence):
        await Eraser(counted, EPOCH, await log_of(objects), may_change).remove(1)
    await counted.close()

    assert changes == allowed
