"""Connections that only read the live read model: one for each of a few threads.

SQLite lets go of the interpreter while it searches, so a long search holds up neither the event
loop nor the other threads. Readers follow `current`: when another file takes its place, the next
question is put to that one.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from ledger.codec import Undecodable
from projections import sqlite
from projections.model_files import ModelFiles
from projections.read_model import read_fact

THREADS: Final = 3
READS_MAX: Final = 200
"""Questions in work or waiting for a thread; more are refused rather than kept."""

READ_TIMEOUT_S: Final = 10.0
"""A question that takes longer, its wait for a thread included, is given up."""

LOCK_TIMEOUT_S: Final = 0.25
"""Readers meet a lock only while the file is being recovered after a crash, or from others."""

CACHE_KIB: Final = 8 * 1024
"""For each thread. The file is not mapped into memory: a walk through an index of a million tasks
is a third quicker then, but leaves the process 100 MB larger for anybody who looks."""

_UNREADABLE: Final = (sqlite3.Error, msgspec.MsgspecError, UnicodeDecodeError, Undecodable)
"""What a question meets in a damaged file: pages of it may be sound, and what they hold not."""

Found = TypeVar("Found")


class Unavailable(Exception):
    """The read model cannot be asked now; says why, and what becomes of it."""


class Readers:
    """Runs questions on the live read model of a folder."""

    def __init__(self, folder: Path) -> None:
        self._files = ModelFiles(folder)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="read-model")
        self._own = threading.local()
        self._in_work = 0
        self.epoch: str | None = None
        """Of the ledger, once it is known: the file of another one is not asked."""

    async def ask(self, question: Callable[[sqlite3.Connection], Found]) -> Found:
        """What `question` finds in one state of the file. Raises Unavailable."""
        if self._in_work >= READS_MAX:
            raise Unavailable(f"{READS_MAX} questions to the read model are waiting; try again")
        self._in_work += 1
        asked = _Asked(question)
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(
                    self._pool, self._answer, asked
                )
        except TimeoutError:
            raise Unavailable(
                f"the read model did not answer within {READ_TIMEOUT_S:g} s; try again, or ask for"
                " less"
            ) from None
        finally:
            asked.give_up()
            self._in_work -= 1

    def close(self) -> None:
        """End the threads; their connections go with them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # -- in a thread --------------------------------------------------------------------------

    def _answer(self, asked: "_Asked[Found]") -> Found:
        path = self._files.current()
        while True:
            if path is None:
                raise Unavailable(
                    "there is no read model yet: the projector makes it (`ledgerq projector`, a"
                    " part of `ledgerq up`). Single tasks still answer"
                )
            try:
                db = self._connection(path)
                with asked.running(db), _one_state(db):
                    return asked.question(db)
            except (OSError, *_UNREADABLE) as error:
                self._disconnect()
                path, asked_path = self._files.current(), path
                if path == asked_path:
                    if isinstance(error, sqlite3.Error) and sqlite.is_damage(error):
                        self._files.report_damage(str(error))
                    raise _unavailable(error) from error
                # Another file took its place meanwhile, and it was removed.

    def _connection(self, path: Path) -> sqlite3.Connection:
        found = path.stat()
        # By its inode too: a folder that was emptied by hand begins with the same names again.
        identity = (path, found.st_dev, found.st_ino)
        if getattr(self._own, "identity", None) != identity:
            self._disconnect()
            self._own.db = _open(path)
            self._own.identity = identity
        db: sqlite3.Connection = self._own.db
        if self.epoch is not None and read_fact(db, "epoch") not in (self.epoch, None):
            raise Unavailable(
                "the read model belongs to another ledger; the projector makes one of this ledger."
                " Single tasks still answer"
            )
        return db

    def _disconnect(self) -> None:
        if getattr(self._own, "identity", None) is not None:
            self._own.identity = None
            self._own.db.close()


class _Asked(Generic[Found]):
    """A question, and the connection that it runs on meanwhile."""

    def __init__(self, question: Callable[[sqlite3.Connection], Found]) -> None:
        self.question = question
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._given_up = False

    @contextlib.contextmanager
    def running(self, db: sqlite3.Connection) -> Generator[None]:
        """Let `give_up` reach the connection for as long as the context lasts."""
        with self._lock:
            if self._given_up:
                raise Unavailable("nobody waits for the answer any more")
            self._db = db
        try:
            yield
        finally:
            with self._lock:
                self._db = None

    def give_up(self) -> None:
        """Nobody waits any more: stop a search that still runs, or do not begin."""
        with self._lock:
            self._given_up = True
            if self._db is not None:
                self._db.interrupt()


def _unavailable(error: Exception) -> Unavailable:
    if isinstance(error, OSError):
        return Unavailable(
            f"the read model is missing ({error.strerror}); the projector makes it again."
            " Single tasks still answer"
        )
    return Unavailable(
        f"the read model cannot be read ({error}); if it is damaged, the projector makes it again."
        " Single tasks still answer"
    )


@contextlib.contextmanager
def _one_state(db: sqlite3.Connection) -> Generator[None]:
    """All that is read within comes from one state of the file."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("ROLLBACK")


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite.open_reader(path, timeout_s=LOCK_TIMEOUT_S)
    try:
        db.execute("PRAGMA query_only = ON")
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    except sqlite3.Error:
        db.close()
        raise
    return db
