"""Objects in a folder of this machine, each a file at the path that its key is."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from ledger.objects.hands import Hands, Outcome
from ledger.objects.store import Listed, ObjectStoreError
from ledger.objects.syncing import sync_path, syncing

if TYPE_CHECKING:
    from ledger.objects.wrapped import Wrapped

Result = TypeVar("Result")

THREADS_MAX: Final = 16
"""Those that wait for the disk together share its work."""

WRITING: Final = ".writing"
LEFT_AFTER_S: Final = 3_600.0
"""Nobody writes an object for longer."""

PLACERS_MAX: Final = 4
"""Of the threads, so many place files that were uploaded."""

PLACED_AT_ONCE_MAX: Final = 16
"""Files that one thread places together: their folder is synced once for all of them."""


class LocalFolder:
    """The store in a folder, which is made with the first object.

    obstore streams and lists it. It would copy a file that is on this disk already, and syncs
    nothing; so objects are moved into place and synced here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._threads = ThreadPoolExecutor(THREADS_MAX, "objects")
        self._placers = Hands(self._threads, PLACERS_MAX, self._place_all, PLACED_AT_ONCE_MAX)
        self._known: set[str] = set()
        """Folders that are there for good."""
        self._has_cleared = False

    async def put(self, key: str, source: Path, content_type: str) -> None:
        try:
            await self._placers.do(Move(str(source), self._place(key)))
        except OSError as error:
            raise self._error(error) from error

    async def write(self, key: str, data: bytes) -> None:
        await self.write_all([(key, data)])

    async def write_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        await self._in_thread(lambda: self._write_all(objects))

    async def read(self, key: str) -> bytes:
        (found,) = await self.read_all([key])
        return found

    async def read_range(self, key: str, start: int, length: int) -> bytes:
        found = await self._in_thread(lambda: _range_of(self._place(key), start, length))
        if found is None:
            raise FileNotFoundError(f"there is no object {key}")
        return found

    async def read_all(self, keys: Sequence[str]) -> list[bytes]:
        found = await self._in_thread(lambda: [_bytes_of(self._place(key)) for key in keys])
        there = [each for each in found if each is not None]
        if len(there) < len(found):
            raise FileNotFoundError(f"there is no object {keys[found.index(None)]}")
        return there

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

    async def folders(self, prefix: str) -> list[str]:
        if not await self._in_thread((self._folder / prefix).is_dir):
            return []
        return await self._wrapped().folders(prefix)

    def path(self, key: str) -> Path:
        return self._folder / key

    def _place(self, key: str) -> str:
        """As `path`, for what is done for every object: a Path would cost more than a write."""
        return f"{self._folder}/{key}"

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
            raise self._error(error) from error

    def _error(self, error: OSError) -> ObjectStoreError:
        return ObjectStoreError(f"{self._folder}: {error.strerror or error}")

    def _write_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        moves: list[Move] = []
        folder, name = self._writing_folder(), os.urandom(8).hex()
        try:
            with syncing(folder, len(objects)) as sync:
                for number, (key, data) in enumerate(objects):
                    moves.append(Move(f"{folder}/{name}-{number}", self._place(key)))
                    _make_file(moves[-1].source, data)
                # Before they take others' places: those must not be lost to empty files.
                sync([move.source for move in moves])
                for move in moves:
                    self._move(move)
                sync({move.folder for move in moves})
        except BaseException:
            for move in moves:
                with contextlib.suppress(OSError):
                    os.unlink(move.source)
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

    def _place_all(self, moves: Sequence["Move"]) -> list[Outcome]:
        """Files that came at the same time. Called in a thread."""
        faults: dict[Move, OSError] = {}
        moved = _done(self._move, moves, faults)
        # In place first: the journal takes the names along with the bytes.
        synced = _done(lambda move: sync_path(move.path), moved, faults)
        for folder in {move.folder for move in synced}:
            try:
                sync_path(folder)
            except OSError as error:
                faults |= {move: error for move in synced if move.folder == folder}
        for move in moved:
            if move in faults:
                with contextlib.suppress(OSError):
                    os.unlink(move.path)
        return [faults.get(move) for move in moves]

    def _move(self, move: "Move") -> None:
        self._make_folder(move.folder)
        try:
            os.rename(move.source, move.path)
        except FileNotFoundError:
            self._known.clear()  # somebody took the folder away
            self._make_folder(move.folder)
            os.rename(move.source, move.path)

    def _make_folder(self, name: str) -> None:
        if name in self._known:
            return
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for each in (folder, *folder.parents):
            sync_path(each.parent)
            if each == self._folder:
                break
        self._known.add(name)


class Move(msgspec.Struct, frozen=True):
    """A file, and where it is to lie."""

    source: str
    path: str

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)


def _done(
    work: Callable[[Move], None], moves: Sequence[Move], faults: dict[Move, OSError]
) -> list[Move]:
    """The moves that it was done for; why not for the others is added to `faults`."""
    done: list[Move] = []
    for move in moves:
        try:
            work(move)
        except OSError as error:
            faults[move] = error.with_traceback(None)  # it has this frame, which has the faults
        else:
            done.append(move)
    return done


def _make_file(path: str, data: bytes) -> None:
    with open(path, "xb", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]


def _bytes_of(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _range_of(path: str, start: int, length: int) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            left = os.fstat(file.fileno()).st_size - start
            return os.pread(file.fileno(), max(min(length, left), 0), start)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
