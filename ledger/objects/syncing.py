"""Makes files, and the names in folders, survive a loss of power: many of them together.

Each fsync(2) waits for the disk, one after the other. Where there are many to wait for, Linux syncs
the whole file system with as long a wait as one of them takes (syncfs(2)). That has to write what
other programs have not written yet too, so it is not for a few.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable, Collection, Generator
from pathlib import Path
from typing import Final

MANY: Final = 8
"""From so many files on, they are synced together."""

_LINUX_THAT_TELLS: Final = (5, 8)
"""Since then, syncfs(2) tells whether anything could not be written."""

Sync = Callable[[Collection[Path]], None]


@contextlib.contextmanager
def syncing(folder: Path, count: int) -> Generator[Sync]:
    """What syncs files or folders that lie on the file system of `folder`, of which there will be
    about `count`. To be entered before they are written: it raises OSError for what could not be
    written since then."""
    syncfs = _syncfs
    if count < MANY or syncfs is None:
        yield _sync_each
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield lambda _: _sync_file_system(syncfs, descriptor)
    finally:
        os.close(descriptor)


def begin_sync(descriptor: int, start: int, length: int) -> None:
    """Begin to write out a part of a file: whoever syncs it, or all there is, waits less."""
    if hasattr(os, "posix_fadvise"):  # macOS has none
        os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)


def sync_path(path: Path) -> None:
    """A file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_each(paths: Collection[Path]) -> None:
    for path in paths:
        sync_path(path)


def _sync_file_system(syncfs: Callable[[int], int], descriptor: int) -> None:
    if syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _find_syncfs() -> Callable[[int], int] | None:
    """Python has no function for it."""
    if platform.system() != "Linux":
        return None
    major, minor, *_ = platform.release().split(".")
    if not (major.isdigit() and minor.isdigit()) or (int(major), int(minor)) < _LINUX_THAT_TELLS:
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


_syncfs: Final = _find_syncfs()
