"""What a folder is said to keep was synced: bytes before they take a place, names after."""

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from ledger.objects import syncing
from ledger.objects.local_folder import LocalFolder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see what is synced")

ALL: Final = Path("everything")
"""What syncfs syncs."""


class Disk:
    """What is asked of it, in order: `made`, `moved` and `synced` paths."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Path]] = []

    def made(self, path: Path) -> None:
        self.asked.append(("made", path))

    def moved(self, source: Path, path: Path) -> None:
        self.asked += [("left", source), ("moved", path)]

    def synced(self, path: Path) -> None:
        self.asked.append(("synced", path))

    def is_synced(self, path: Path, *, after: tuple[str, Path] | None = None) -> bool:
        """Whether a path was synced at all, or after something was done."""
        start = 0 if after is None else len(self.asked) - self.asked[::-1].index(after)
        return any(("synced", each) in self.asked[start:] for each in (path, ALL))

    def left(self) -> Iterator[tuple[Path, bool]]:
        """What was moved away, and whether it was synced before."""
        for at, (what, path) in enumerate(self.asked):
            if what == "left":
                before = self.asked[:at]
                yield path, ("synced", path) in before or ("synced", ALL) in before


def on_ext4(_: Path) -> str:
    return "ext4"


def on_overlay(_: Path) -> str:
    return "overlay"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk, fsync, mkdir, rename = Disk(), os.fsync, Path.mkdir, os.rename

    def seen_fsync(descriptor: int) -> None:
        fsync(descriptor)
        disk.synced(Path(f"/proc/self/fd/{descriptor}").readlink())

    def seen_syncfs(_: int) -> int:
        disk.synced(ALL)
        return 0

    def seen_mkdir(path: Path, *options: object, **more: object) -> None:
        mkdir(path, *options, **more)  # type: ignore[arg-type]
        disk.made(path)

    def seen_rename(source: str, path: str) -> None:
        disk.moved(Path(source), Path(path))
        rename(source, path)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(syncing, "_syncfs", seen_syncfs)
    monkeypatch.setattr(Path, "mkdir", seen_mkdir)
    monkeypatch.setattr(os, "rename", seen_rename)
    return disk


@pytest.fixture(params=["one by one", "side by side", "together"])
def count(request: pytest.FixtureRequest, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of objects that are stored at once: few, or many on a file system that can, or cannot, sync
    them together."""
    found = on_ext4 if request.param == "together" else on_overlay
    monkeypatch.setattr(syncing, "file_system", found)
    return 1 if request.param == "one by one" else syncing.MANY


async def test_what_is_written_is_synced_before_and_after_it_takes_its_place(
    tmp_path: Path, disk: Disk, count: int
):
    # given an empty store
    store = LocalFolder(tmp_path / "objects")
    keys = [f"archive/{'ab'[number % 2]}/{number}" for number in range(count)]
    # when objects are written
    await store.write_all([(key, b"data") for key in keys])
    # then the bytes of each were synced before they took their place, and its name after that
    assert all(was_synced for _, was_synced in disk.left())
    places = [store.path(key) for key in keys]
    assert all(disk.is_synced(path.parent, after=("moved", path)) for path in places)
    # and so was every folder's
    folders = {each for place in places for each in place.parents if ("made", each) in disk.asked}
    assert len(folders) >= 3
    assert all(disk.is_synced(each.parent, after=("made", each)) for each in folders)
    await store.close()


async def test_a_file_that_is_put_is_synced_once_it_is_in_its_place(tmp_path: Path, disk: Disk):
    # given a file
    store, source = LocalFolder(tmp_path / "objects"), tmp_path / "source"
    source.write_bytes(b"data")
    # when it is put into the store
    await store.put("uploads/a", source, "text/plain")
    # then its bytes are synced, and its name
    place = store.path("uploads/a")
    assert disk.is_synced(place, after=("moved", place))
    assert disk.is_synced(place.parent, after=("moved", place))
    await store.close()


def test_the_file_system_of_a_folder_is_known_or_not(tmp_path: Path):
    # given a folder of this machine, and one of the kernel's
    # when it is asked what they lie on, then that is known
    assert syncing.file_system(Path("/proc")) == "proc"
    assert syncing.file_system(tmp_path) != "proc"


async def test_a_sandbox_that_refuses_to_sync_all_has_each_synced(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    # given a system that answers EPERM
    def refuse(_: int) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(syncing, "_syncfs", refuse)
    monkeypatch.setattr(syncing, "file_system", on_ext4)
    store = LocalFolder(tmp_path / "objects")
    # when many objects are written
    await store.write_all([(f"a/{number}", b"data") for number in range(syncing.MANY)])
    # then each was synced
    assert len(list(disk.left())) == syncing.MANY
    assert all(was_synced for _, was_synced in disk.left())
    await store.close()
