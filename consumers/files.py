"""Uploaded files, for handlers: opened by the `file_path` in a task's payload.

Which object store they lie in is in this process's settings, as a worker gets them from whoever
started it: `LEDGERQ_OBJECT_STORE_URL`, or `LEDGERQ_DATA_DIR` for the folder of this machine.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Generator
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Final

from consumers.classification import PermanentError

# What else is needed is imported with the first file: a process is started for many a handler, and
# few of them open one.
if TYPE_CHECKING:
    from ledger.objects import ObjectStore

VARIABLES: Final = ("LEDGERQ_OBJECT_STORE_URL", "LEDGERQ_DATA_DIR")


class NoSuchFile(PermanentError):
    """There is no uploaded file of that path: another attempt would not find it either."""


class OpenFile(contextlib.AbstractContextManager[IO[bytes]]):
    """What `open_file` gives: for `with`, and for `async with`."""

    def __init__(self, file_path: str) -> None:
        self._key = _checked(file_path)
        self._file: IO[bytes] | None = None

    def __enter__(self) -> IO[bytes]:
        self._file = self._on_this_machine() or self._fetched()
        return self._file

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    async def __aenter__(self) -> IO[bytes]:
        # Its own pieces, rather than `__enter__` in a thread: that could not be cancelled.
        self._file = self._on_this_machine()
        if self._file is None:
            self._file = self._empty()
            try:
                async for piece in stream_file(self._key):
                    await asyncio.to_thread(self._file.write, piece)
            except BaseException:
                self._file.close()
                raise
            self._file.seek(0)
        return self._file

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def _on_this_machine(self) -> IO[bytes] | None:
        path = _objects().path(self._key)
        if path is None:
            return None
        with _missing_told(self._key):
            return path.open("rb")

    def _fetched(self) -> IO[bytes]:
        file = self._empty()
        try:
            with _missing_told(self._key):
                for piece in _objects().pieces(self._key):
                    file.write(piece)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def _empty(self) -> IO[bytes]:
        # Programs go by the end of a file's name.
        name = self._key.rpartition("/")[2]
        return tempfile.NamedTemporaryFile(prefix="ledgerq-", suffix=f"-{name[-60:]}")


def open_file(file_path: str) -> OpenFile:
    """An uploaded file, to be read from the disk of this machine:

        async with open_file(payload["file_path"]) as file:    # in an `async def`
        with open_file(payload["file_path"]) as file:          # anywhere else

    `file` is a binary file that can seek; `file.name` is its path, for programs that want one. It
    is the object itself where objects are files here (do not write to it), and else a copy, gone
    afterwards. Raises NoSuchFile, ObjectStoreError.
    """
    return OpenFile(file_path)


async def stream_file(file_path: str) -> AsyncIterator[bytes]:
    """An uploaded file's bytes, piece by piece, without a copy on the disk.

    Raises NoSuchFile, ObjectStoreError.
    """
    key = _checked(file_path)
    with _missing_told(key):
        async for piece in _objects().stream(key):
            yield piece


def _checked(file_path: str) -> str:
    """A payload is its submitter's: what it says may lead to uploaded files and nowhere else."""
    from ledger.objects import is_upload_key

    if not is_upload_key(file_path):
        raise NoSuchFile(f"{file_path[:200]!r} is not the file_path of an upload")
    return file_path


@contextlib.contextmanager
def _missing_told(key: str) -> Generator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NoSuchFile(f"there is no uploaded file {key}") from None


def _objects() -> "ObjectStore":
    return _opened(*map(os.environ.get, VARIABLES))


@lru_cache(maxsize=4)
def _opened(*_: str | None) -> "ObjectStore":
    from ledger.objects import open_objects
    from ledger.settings_sources import load

    return open_objects(load({}, os.environ, None).settings)
