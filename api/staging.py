"""Where the files of uploads lie while they arrive: on this machine's disk, not in its memory.

    <folder>/<upload>/<n>

A file becomes an object once everything about its upload is known to be good, so what is broken,
too large or refused never comes near the object store. Each upload's folder is locked for as long
as it lasts: folders that no process holds are what a killed one left, and are cleared away.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from io import BufferedWriter
from pathlib import Path
from typing import Final

import structlog

from api.errors import ApiError
from ledger.rejections import RejectionCode

log = structlog.get_logger("uploads")

THREADS_MAX: Final = 8
"""Writes at once: a slow disk must not take the threads that others wait for."""

WRITE_BYTES: Final = 128 * 1024
"""Gathered before they are written: a system call, and a thread's turn, for each small piece would
cost more."""

NAME_TRIES: Final = 8


class StagedFile:
    """A file that arrives piece by piece; `size` and `sha256` are those of its bytes so far."""

    def __init__(self, place: "Place", name: str) -> None:
        self.size = 0
        self._place = place
        self._name = name
        self._digest = hashlib.sha256()
        self._file: BufferedWriter | None = None
        self._pieces: list[bytes] = []
        self._gathered = 0

    @property
    def path(self) -> Path:
        """Where it lies, once it is ended."""
        return self._place.folder / self._name

    @property
    def sha256(self) -> str:
        """In hexadecimal, once it is ended."""
        return self._digest.hexdigest()

    async def write(self, piece: bytes) -> None:
        """Take the next bytes. Returns when they are written, or few: what comes faster than the
        disk can write has to wait.

        Raises ApiError (503) when the disk is full, or cannot be written to.
        """
        self.size += len(piece)
        self._pieces.append(piece)
        self._gathered += len(piece)
        if self._gathered >= WRITE_BYTES:
            await self._flush(last=False)

    async def end(self) -> None:
        """All of it is written, though maybe not on the disk yet. Raises as `write`."""
        await self._flush(last=True)

    def close(self) -> None:
        """Nobody wants it. Called in a thread."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    async def _flush(self, *, last: bool) -> None:
        pieces, self._pieces, self._gathered = self._pieces, [], 0
        await self._place.work(lambda: self._append(pieces, last=last))

    def _append(self, pieces: list[bytes], *, last: bool) -> None:
        if self._file is None:
            self._file = self._place.open(self._name)
        for piece in pieces:
            self._digest.update(piece)
            self._file.write(piece)
        if last:
            self._file.close()


class Place:
    """The folder of one upload, made with its first file. Its work is done in threads, one piece
    after the other."""

    def __init__(self, parent: Path, threads: ThreadPoolExecutor) -> None:
        self._parent = parent
        self._threads = threads
        self._files: list[StagedFile] = []
        self._made: tuple[Path, int] | None = None
        self._working: asyncio.Future[None] | None = None

    @property
    def folder(self) -> Path:
        """Where it is, once it has a file."""
        assert self._made is not None  # noqa: S101 - a file was written to
        return self._made[0]

    def file(self) -> StagedFile:
        """A new file, empty."""
        made = StagedFile(self, str(len(self._files)))
        self._files.append(made)
        return made

    def open(self, name: str) -> BufferedWriter:
        """For a new file. Called in a thread. Raises OSError."""
        if self._made is None:
            self._made = _make_locked(self._parent)
        return (self._made[0] / name).open("xb")

    async def work(self, work: Callable[[], None]) -> None:
        """Have something done in a thread. Raises ApiError (503) where that raises OSError."""
        self._working = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            # The thread goes on, whoever stops waiting for it.
            await asyncio.shield(self._working)
        except OSError as error:
            log.error("upload_not_written", folder=str(self._parent), reason=str(error))
            raise ApiError(
                RejectionCode.SERVICE_UNAVAILABLE,
                f"files cannot be written down here: {error.strerror or error}; try again later",
            ) from error

    async def leave(self) -> None:
        """Remove it, with all that is in it."""
        if self._working is not None:
            await asyncio.wait([self._working])
            await asyncio.get_running_loop().run_in_executor(self._threads, self._remove)

    def _remove(self) -> None:
        for file in self._files:
            file.close()
        if self._made is not None:
            _remove(*self._made)


class Staging:
    """The folder of all uploads, on the file system of the object store where that is local."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS_MAX, "staging")

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncGenerator[Place]:
        """Room for an upload, gone with all that is in it at the end."""
        place = Place(self._folder, self._threads)
        try:
            yield place
        finally:
            await place.leave()

    async def clear(self) -> None:
        """Remove what killed processes left."""
        try:
            loop = asyncio.get_running_loop()
            cleared = await loop.run_in_executor(self._threads, self._clear)
        except OSError as error:
            log.warning("uploads_not_cleared", folder=str(self._folder), reason=str(error))
        else:
            if cleared:
                log.info("broken_uploads_cleared", count=cleared)

    async def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False)

    def _clear(self) -> int:
        cleared = 0
        if not self._folder.is_dir():
            return cleared
        for folder in self._folder.iterdir():
            lock = _locked(folder)
            if lock is not None:
                _remove(folder, lock)
                cleared += 1
        return cleared


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
