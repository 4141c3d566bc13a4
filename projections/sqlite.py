"""SQLite as the read models use it: opening, making, and what kinds of trouble there are."""

import contextlib
import os
import re
import sqlite3
import zlib
from pathlib import Path
from typing import Final

BUSY_TIMEOUT_MS: Final = 5_000
"""How long a writer waits for another one: a rebuild holds the file for the moment of its swap."""

CACHE_KIB: Final = 16 * 1024
JOURNAL_BYTES_MAX: Final = 64 * 1024 * 1024
"""What the write-ahead log is cut back to after it has grown in a burst."""

_SCHEMA: Final = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
_STATEMENTS: Final = [
    " ".join(statement.split())
    for statement in re.sub(r"--[^\n]*", "", _SCHEMA).split(";")
    if statement.strip()
]
TABLES: Final = [statement for statement in _STATEMENTS if statement.startswith("CREATE TABLE")]
INDEXES: Final = [statement for statement in _STATEMENTS if statement.startswith("CREATE INDEX")]

SCHEMA_VERSION: Final = zlib.crc32("\n".join(_STATEMENTS).encode()) & 0x7FFFFFFF
"""Kept in a whole file as `user_version`. It follows from the statements, so that nobody has to
think of it when one of them changes."""


class Damaged(Exception):
    """The file is not what SQLite wrote, or no longer."""


def create(path: Path) -> sqlite3.Connection:
    """A new file with empty tables, open for loading: no secondary indexes, and no safety. A crash
    leaves rubbish, which nobody takes for a read model: `finish` makes it one."""
    # Indexes are made in a thread, while nothing else uses the connection.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = MEMORY")
    db.execute("PRAGMA synchronous = OFF")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    for statement in TABLES:
        db.execute(statement)
    return db


def finish(db: sqlite3.Connection) -> None:
    """Make the indexes of a file that was loaded, and make it safe from then on. Takes long where
    the tables are large."""
    # Sorting takes a second core where there is one.
    db.execute("PRAGMA threads = 2")
    for statement in INDEXES:
        db.execute(statement)
    db.execute("PRAGMA threads = 0")
    _make_safe(db)
    [(_, _, path)] = db.execute("PRAGMA database_list")
    sync(Path(path))
    # Last, and on the disk no sooner than the rest: it tells that the file is whole.
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def is_whole(path: Path) -> bool:
    """Whether a read model was made there to its end, by this version or by another, and can be
    opened."""
    try:
        with contextlib.closing(open_reader(path)) as db:
            [[version]] = db.execute("PRAGMA user_version")
    except sqlite3.Error:
        return False
    return version != 0


class _Reader(sqlite3.Connection):
    """Closed by whoever lets go of it last, which may be a thread that ends: from Python 3.13 on,
    one that is left to be collected is warned of."""

    def __del__(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # of one that could not be opened
            self.close()


def open_reader(path: Path, *, timeout_s: float = BUSY_TIMEOUT_MS / 1000) -> sqlite3.Connection:
    """A connection that only reads, for one thread after the other."""
    return sqlite3.connect(
        f"{_uri(path)}?mode=ro",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
        factory=_Reader,
    )


def open_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes. Raises Damaged for what is no SQLite file."""
    db = sqlite3.connect(f"{_uri(path)}?mode=rw", uri=True, isolation_level=None)
    try:
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        _make_safe(db)
    except sqlite3.DatabaseError as error:
        db.close()
        if is_damage(error):
            raise Damaged(f"{path}: {error}") from error
        raise
    return db


def sync(path: Path) -> None:
    """Have a file, or what a folder says of its files, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is broken, rather than in use, out of room or refused."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_passing(error: sqlite3.Error) -> bool:
    """Whether the same statement may do well later: a lock, a full disk, a failing one."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL),
        *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY),
    )


def _uri(path: Path) -> str:
    """Quoted: a folder may have any character in its name."""
    return path.absolute().as_uri()


def _make_safe(db: sqlite3.Connection) -> None:
    # NORMAL: a power loss may take the last commits back, which the ledger still has; the file
    # stays whole.
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    db.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES_MAX}")
