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
from pathlib import Path
from typing import Final, TypeVar

import structlog

from api.errors import ApiError
from ledger.rejections import RejectionCode

log = structlog.get_logger("uploads")

Result = TypeVar("Result")

THREADS_MAX: Final = 8
"""Writes at once: a slow disk must not take the threads that others wait for."""

WRITE_BYTES: Final = 128 * 1024
"""Gathered before they are written; meanwhile as many can be on their way to the disk."""

NAME_TRIES: Final = 8


class StagedFile:
    """A file that arrives piece by piece; `size` and `sha256` are those of its bytes so far."""

    def __init__(self, path: Path, threads: ThreadPoolExecutor) -> None:
        self.path = path
        self.size = 0
        self._threads = threads
        self._digest = hashlib.sha256()
        self._file = path.open("xb")
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._writing: asyncio.Future[None] | None = None

    @property
    def sha256(self) -> str:
        """In hexadecimal, once it is ended."""
        return self._digest.hexdigest()

    async def write(self, piece: bytes) -> None:
        """Take the next bytes. Returns when there is room for more: what comes faster than the disk
        can write has to wait."""
        self.size += len(piece)
        self._pieces.append(piece)
        self._gathered += len(piece)
        if self._gathered >= WRITE_BYTES:
            await self._hand_over()

    async def end(self) -> None:
        """All of it is written, though maybe not on the disk yet."""
        await self._hand_over()
        await self._written()
        self._file.close()

    async def abandon(self) -> None:
        """Nobody wants it; after this nothing writes to it any more."""
        with contextlib.suppress(OSError):
            await self._written()
        with contextlib.suppress(OSError):
            self._file.close()

    async def _hand_over(self) -> None:
        await self._written()
        pieces, self._pieces, self._gathered = self._pieces, [], 0
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._threads, self._append, pieces)

    async def _written(self) -> None:
        if self._writing is not None:
            # A thread goes on, whoever stops waiting for it.
            await asyncio.shield(self._writing)
            self._writing = None

    def _append(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._digest.update(piece)
            self._file.write(piece)


class Place:
    """The folder of one upload."""

    def __init__(self, folder: Path, threads: ThreadPoolExecutor) -> None:
        self._folder = folder
        self._threads = threads
        self.files: list[StagedFile] = []

    def file(self) -> StagedFile:
        """A new file, empty. Raises OSError."""
        made = StagedFile(self._folder / str(len(self.files)), self._threads)
        self.files.append(made)
        return made


class Staging:
    """The folder of all uploads, on the file system of the object store where that is local."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS_MAX, "staging")

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncGenerator[Place]:
        """Room for an upload, gone with all that is in it at the end.

        Raises ApiError (503) when the disk is full, or cannot be written to.
        """
        try:
            folder, lock = await self._in_thread(self._make_place)
        except OSError as error:
            raise self._unavailable(error) from error
        place = Place(folder, self._threads)
        try:
            yield place
        except OSError as error:
            raise self._unavailable(error) from error
        finally:
            for file in place.files:
                await file.abandon()
            await self._in_thread(lambda: _remove(folder, lock))

    async def clear(self) -> None:
        """Remove what killed processes left."""
        try:
            cleared = await self._in_thread(self._clear)
        except OSError as error:
            log.warning("uploads_not_cleared", folder=str(self._folder), reason=str(error))
        else:
            if cleared:
                log.info("broken_uploads_cleared", count=cleared)

    async def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _make_place(self) -> tuple[Path, int]:
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(NAME_TRIES):
            folder = self._folder / os.urandom(8).hex()
            folder.mkdir()
            lock = _locked(folder)
            if lock is not None:
                return folder, lock
        raise OSError(f"{self._folder}: somebody takes away every folder that is made there")

    def _unavailable(self, error: OSError) -> ApiError:
        log.error("upload_not_written", folder=str(self._folder), reason=str(error))
        return ApiError(
            RejectionCode.SERVICE_UNAVAILABLE,
            f"the files cannot be written down here: {error.strerror or error}; try again later",
        )

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
