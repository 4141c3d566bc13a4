"""Objects in a folder of this machine, each a file at the path that its key is."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ledger.objects.store import Listed, ObjectStoreError

if TYPE_CHECKING:
    from ledger.objects.wrapped import Wrapped

Result = TypeVar("Result")

THREADS_MAX: Final = 16
"""Syncs at once: those that run together share the disk's work."""

WRITING: Final = ".writing"
LEFT_AFTER_S: Final = 3_600.0
"""Nobody writes an object for longer."""

READ_BYTES: Final = 256 * 1024


class LocalFolder:
    """The store in a folder, which is made with the first object.

    obstore reads and lists it. It would copy a file that is on this disk already, and syncs
    nothing; so objects are moved into place and synced here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._threads = ThreadPoolExecutor(THREADS_MAX, "objects")
        self._known: set[Path] = set()
        """Folders that are there for good."""
        self._has_cleared = False

    async def put(self, key: str, source: Path, content_type: str) -> None:
        await self._in_thread(lambda: self._place(source, self.path(key)))

    async def write(self, key: str, data: bytes) -> None:
        await self._in_thread(lambda: self._write(data, self.path(key)))

    async def read(self, key: str) -> bytes:
        found = await self._in_thread(lambda: _bytes_of(self.path(key)))
        if found is None:
            raise FileNotFoundError(f"there is no object {key}")
        return found

    async def delete(self, key: str) -> None:
        await self._in_thread(lambda: self.path(key).unlink(missing_ok=True))

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        async for piece in self._wrapped().stream(key):
            yield piece

    def pieces(self, key: str) -> Iterator[bytes]:
        return self._wrapped().pieces(key)

    async def listed(self, prefix: str) -> AsyncIterator[list[Listed]]:
        if await self._in_thread((self._folder / prefix).is_dir):
            async for page in self._wrapped().listed(prefix):
                yield page

    def path(self, key: str) -> Path:
        return self._folder / key

    async def close(self) -> None:
        self._threads.shutdown(wait=False)

    def _wrapped(self) -> "Wrapped":
        # Not before it is needed: an API process hardly ever does.
        from obstore.store import LocalStore

        from ledger.objects.wrapped import Wrapped

        return Wrapped(LocalStore(self._folder))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        working = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            # The thread goes on: what it does must be done before anything is said to be undone.
            await asyncio.wait([working])
            working.exception()  # nobody is told of it
            raise
        except OSError as error:
            raise ObjectStoreError(f"{self._folder}: {error.strerror}") from error

    def _write(self, data: bytes, path: Path) -> None:
        source = self._writing_folder() / os.urandom(8).hex()
        try:
            with source.open("xb") as file:
                file.write(data)
                file.flush()
                # Before it takes another object's place: that must not be lost to an empty file.
                os.fsync(file.fileno())
            self._place(source, path)
        except BaseException:
            with contextlib.suppress(OSError):
                source.unlink(missing_ok=True)
            raise

    def _writing_folder(self) -> Path:
        """For what is not whole yet, on the same file system. What killed processes left there is
        removed, once."""
        folder = self._folder / WRITING
        folder.mkdir(parents=True, exist_ok=True)
        if not self._has_cleared:
            for each in folder.iterdir():
                with contextlib.suppress(OSError):
                    if time.time() - each.stat().st_mtime > LEFT_AFTER_S:
                        each.unlink()
            self._has_cleared = True
        return folder

    def _place(self, source: Path, path: Path) -> None:
        self._make_folder(path.parent)
        try:
            source.rename(path)
        except FileNotFoundError:
            self._known.clear()  # somebody took the folder away
            self._make_folder(path.parent)
            source.rename(path)
        try:
            # In place first: the journal takes the name along with the bytes.
            _sync(path)
            _sync(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            raise

    def _make_folder(self, folder: Path) -> None:
        if folder in self._known:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for each in (folder, *folder.parents):
            _sync(each.parent)
            if each == self._folder:
                break
        self._known.add(folder)


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
