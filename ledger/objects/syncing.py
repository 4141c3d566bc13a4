"""Makes files, and the names in folders, survive a loss of power: many of them together.

Each fsync(2) waits for the disk. Where there are many to wait for, Linux syncs a whole file system
with one wait (syncfs(2)), whatever else there is to write out; others wait side by side.
"""

import contextlib
import ctypes
import errno
import os
import platform
import re
from collections.abc import Callable, Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

MANY: Final = 8
"""From so many files on, they are synced together."""

SIDE_BY_SIDE: Final = 16
"""Waits for the disk, where each file needs one: they share its work."""

RELIABLE: Final = frozenset({"ext4", "xfs", "f2fs"})
"""File systems that syncfs(2) syncs, and of which it tells what could not be written. Of others it
may do nothing (FUSE), or tell nothing (overlayfs)."""

RELIABLE_SINCE: Final = (5, 17)
"""Older versions of Linux do not tell when the journal could not be written."""

_REFUSED: Final = frozenset({errno.ENOSYS, errno.EPERM})
"""As sandboxes do."""

Sync = Callable[[Collection[str]], None]


@contextlib.contextmanager
def syncing(folder: Path, count: int) -> Generator[Sync]:
    """What syncs files or folders that lie on the file system of `folder`, of which there will be
    about `count`. To be entered before they are written: it raises OSError for what could not be
    written since then."""
    if count < MANY:
        yield _sync_each
        return
    syncfs = _syncfs if file_system(folder) in RELIABLE else None
    if syncfs is None:
        yield _sync_side_by_side
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield lambda paths: _sync_together(syncfs, descriptor, paths)
    finally:
        os.close(descriptor)


def sync_path(path: str | Path) -> None:
    """A file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_system(path: Path) -> str:
    """The kind that a path lies on, as Linux calls it (proc_pid_mountinfo(5)); empty where that is
    not known."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            mount, _, kind = line.partition(" - ")
            if mount.split(" ")[2] == wanted:
                return kind.partition(" ")[0]
    return ""


def _sync_each(paths: Collection[str]) -> None:
    for path in paths:
        sync_path(path)


def _sync_side_by_side(paths: Collection[str]) -> None:
    with ThreadPoolExecutor(SIDE_BY_SIDE, "sync") as threads:
        list(threads.map(sync_path, paths))


def _sync_together(syncfs: Callable[[int], int], descriptor: int, paths: Collection[str]) -> None:
    if syncfs(descriptor) == 0:
        return
    code = ctypes.get_errno()
    if code not in _REFUSED:
        raise OSError(code, os.strerror(code))
    _sync_side_by_side(paths)


def _find_syncfs() -> Callable[[int], int] | None:
    """Python has no function for it."""
    version = re.match(r"(\d+)\.(\d+)", platform.release())
    if platform.system() != "Linux" or version is None:
        return None
    if (int(version[1]), int(version[2])) < RELIABLE_SINCE:
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


_syncfs: Final = _find_syncfs()
