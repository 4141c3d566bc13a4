"""Where the files of uploads lie while they arrive: on this machine's disk, not in its memory.

    <folder>/<process>/<n>

A file becomes an object once everything about its upload is known to be good, so what is broken,
too large or refused never comes near the object store. Each process's folder is locked for as long
as it lives: folders that no process holds are what a killed one left, and are cleared away.
"""

import contextlib
import fcntl
import hashlib
import itertools
import os
import shutil
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog

from api.errors import ApiError
from ledger.objects.hands import Hands, Outcome
from ledger.rejections import RejectionCode

log = structlog.get_logger("uploads")

THREADS_MAX: Final = 2
"""Writes at once: a slow disk must not take the threads that others wait for, and more threads than
processors fight over the interpreter."""

WRITE_BYTES: Final = 256 * 1024
"""Gathered before they are written: a thread's turn for each small piece would cost more."""

PIECES_MAX: Final = 512
"""Gathered at most, however small they are: each takes more memory than its bytes. A system call
takes 1,024 (IOV_MAX)."""

NAME_TRIES: Final = 8


class Staging:
    """The folder of all uploads, on the file system of the object store where that is local."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS_MAX, "staging")
        self._hands = Hands(self._threads, THREADS_MAX, _each)
        self._making = threading.Lock()
        self._own: tuple[Path, int] | None = None
        """This process's folder, made with the first file, and the descriptor of its lock."""
        self._numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncGenerator["Place"]:
        """Room for an upload, gone with all that is in it at the end."""
        place = Place(self)
        try:
            yield place
        finally:
            await place.leave()

    def new_file(self) -> tuple[Path, int]:
        """An empty file, and its descriptor. Called in a thread. Raises OSError."""
        name = str(next(self._numbers))
        folder = self._own_folder(None)
        try:
            return _create(folder / name)
        except FileNotFoundError:  # somebody took the folder away
            return _create(self._own_folder(folder) / name)

    async def work(self, work: Callable[[], None]) -> None:
        """Have something done in a thread; it is done when this returns, however it returns.
        Raises ApiError (503) where that raises OSError."""
        try:
            await self._hands.do(work)
        except OSError as error:
            log.error("upload_not_written", folder=str(self._folder), reason=str(error))
            raise ApiError(
                RejectionCode.SERVICE_UNAVAILABLE,
                f"files cannot be written down here: {error.strerror or error}; try again later",
            ) from error

    async def clear(self) -> None:
        """Remove what killed processes left."""
        try:
            await self._hands.do(self._clear)
        except OSError as error:
            log.warning("uploads_not_cleared", folder=str(self._folder), reason=str(error))

    async def close(self) -> None:
        """Remove the process's folder, and let go of the threads."""
        if self._own is not None:
            own, self._own = self._own, None
            await self._hands.do(lambda: _remove(*own))
        self._threads.shutdown(wait=False)

    def _own_folder(self, gone: Path | None) -> Path:
        """This process's folder; another one than that which is gone."""
        with self._making:
            if self._own is not None and self._own[0] == gone:
                os.close(self._own[1])
                self._own = None
            if self._own is None:
                self._own = _make_locked(self._folder)
            return self._own[0]

    def _clear(self) -> None:
        if not self._folder.is_dir():
            return
        cleared = 0
        for folder in self._folder.iterdir():
            lock = _locked(folder)
            if lock is not None:
                cleared += len(os.listdir(folder))
                _remove(folder, lock)
        if cleared:
            log.info("broken_uploads_cleared", files=cleared)


class Place:
    """The files of one upload."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._files: list[StagedFile] = []

    def file(self) -> "StagedFile":
        """A new file, empty."""
        made = StagedFile(self._staging)
        self._files.append(made)
        return made

    async def leave(self) -> None:
        """Remove the files, but for those that were taken."""
        left = [file for file in self._files if file.is_there]
        if left:

            def remove() -> None:
                for file in left:
                    file.remove()

            await self._staging.work(remove)


class StagedFile:
    """A file that arrives piece by piece; `size` and `sha256` are those of its bytes so far."""

    def __init__(self, staging: Staging) -> None:
        self.size = 0
        self._staging = staging
        self._digest = hashlib.sha256()
        self._path: Path | None = None
        self._descriptor: int | None = None
        self._pieces: list[bytes] = []
        self._gathered = 0

    @property
    def path(self) -> Path:
        """Where it lies, once it is ended."""
        assert self._path is not None  # noqa: S101 - as the docstring says
        return self._path

    @property
    def sha256(self) -> str:
        """In hexadecimal, once it is ended."""
        return self._digest.hexdigest()

    @property
    def is_there(self) -> bool:
        """Whether it lies at its path."""
        return self._path is not None

    async def write(self, piece: bytes) -> None:
        """Take the next bytes. Returns when they are written, or few: what comes faster than the
        disk can write has to wait.

        Raises ApiError (503) when the disk is full, or cannot be written to.
        """
        self.size += len(piece)
        self._pieces.append(piece)
        self._gathered += len(piece)
        if self._gathered >= WRITE_BYTES or len(self._pieces) >= PIECES_MAX:
            await self._flush(last=False)

    async def end(self) -> None:
        """All of it is written, though maybe not on the disk yet. Raises as `write`."""
        await self._flush(last=True)

    def taken(self) -> None:
        """Somebody has moved it away, or removed it."""
        self._path = None

    def remove(self) -> None:
        """Nobody wants it. Called in a thread."""
        self._close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def _flush(self, *, last: bool) -> None:
        pieces, self._pieces, self._gathered = self._pieces, [], 0
        await self._staging.work(lambda: self._append(pieces, last=last))

    def _append(self, pieces: Sequence[bytes], *, last: bool) -> None:
        if self._descriptor is None:
            self._path, self._descriptor = self._staging.new_file()
        for piece in pieces:
            self._digest.update(piece)
        _write(self._descriptor, pieces)
        if last:
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _each(works: Sequence[Callable[[], None]]) -> list[Outcome]:
    for work in works:
        work()
    return [None] * len(works)


def _create(path: Path) -> tuple[Path, int]:
    return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _write(descriptor: int, pieces: Sequence[bytes]) -> None:
    """All of them, in one system call where the disk has room. Raises OSError."""
    written = os.writev(descriptor, pieces) if pieces else 0
    if written < sum(map(len, pieces)):
        left = memoryview(b"".join(pieces))[written:]
        while left:
            left = left[os.write(descriptor, left) :]


def _make_locked(parent: Path) -> tuple[Path, int]:
    """A new folder, and the descriptor that holds its lock. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    for _ in range(NAME_TRIES):
        folder = parent / os.urandom(8).hex()
        folder.mkdir()
        lock = _locked(folder)
        if lock is not None:
            return folder, lock
    raise OSError(f"{parent}: somebody takes away every folder that is made there")


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the lock of a folder; None when another one does, or it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever cleared it away before we had the lock holds one that is worth nothing.
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
