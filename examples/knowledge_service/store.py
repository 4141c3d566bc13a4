"""Where documents and chunks are kept: one SQLite file that several worker processes share."""

import sqlite3
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from .chunks import Chunk
    from .documents import Document

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for the others before it gives up with "database is locked"."""

_SCHEMA = Path(__file__).with_name("schema.sql")
_SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Indexed:
    """What one step of the indexing did, in documents and in chunks."""

    documents: int
    added: int
    removed: int


@contextmanager
def open_store(path: str) -> "Generator[Store]":
    """The store in the file at `path`, made if it is not there; closed at the end.

    Raises `sqlite3.OperationalError` when it cannot be opened or stays locked.
    """
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        _prepare(connection)
        yield Store(connection)
    finally:
        connection.close()


class Store:
    """Statements over one connection. A store belongs to the thread that opened it.

    Every write is one transaction that takes the write lock at its beginning, so that what it
    reads first still holds when it writes.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def replace(
        self, kb_id: str, path: str, document: "Document", chunks: "Sequence[Chunk]"
    ) -> None:
        """Make `chunks` the chunks of the document, whatever they were before.

        A document that has exactly these chunks keeps them, so doing it again changes nothing.
        """
        with self._write() as connection:
            (document_id,) = connection.execute(
                """
                INSERT INTO document (kb_id, path, sha256, encoding, characters)
                VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (kb_id, path) DO UPDATE SET
                    sha256 = excluded.sha256,
                    encoding = excluded.encoding,
                    characters = excluded.characters
                RETURNING id
                """,
                (kb_id, path, document.sha256, document.encoding, len(document.text)),
            ).fetchone()
            rows = [(chunk.start, chunk.text) for chunk in chunks]
            if rows == _chunks(connection, document_id):
                return
            connection.execute(
                "DELETE FROM chunk WHERE document_id = ? AND state = 'new'", (document_id,)
            )
            connection.execute(
                "UPDATE chunk SET state = 'gone' WHERE document_id = ? AND state = 'indexed'",
                (document_id,),
            )
            connection.executemany(
                "INSERT INTO chunk (document_id, start, text) VALUES (?, ?, ?)",
                [(document_id, start, text) for start, text in rows],
            )

    def chunks(self, kb_id: str, path: str) -> list[tuple[int, str]]:
        """The document's chunks as (start, text), in order; none for an unknown document."""
        found = self._connection.execute(
            "SELECT id FROM document WHERE kb_id = ? AND path = ?", (kb_id, path)
        ).fetchone()
        return _chunks(self._connection, found[0]) if found else []

    def count(self, kb_id: str) -> tuple[int, int]:
        """How many documents the knowledge base has, and how many chunks."""
        return self._connection.execute(
            """
            SELECT count(DISTINCT document.id), count(chunk.id)
            FROM document LEFT JOIN chunk ON document_id = document.id AND state <> 'gone'
            WHERE kb_id = ?
            """,
            (kb_id,),
        ).fetchone()

    def count_to_index(self, kb_id: str) -> int:
        """How many documents were added or changed since they were indexed."""
        return self._connection.execute(
            """
            SELECT count(DISTINCT document_id)
            FROM chunk JOIN document ON document.id = document_id
            WHERE state <> 'indexed' AND kb_id = ?
            """,
            (kb_id,),
        ).fetchone()[0]

    def index_some(self, kb_id: str, documents_max: int) -> Indexed:
        """Bring the index up to date for some documents, each wholly; none when it is."""
        with self._write() as connection:
            documents = connection.execute(
                """
                SELECT DISTINCT document_id
                FROM chunk JOIN document ON document.id = document_id
                WHERE state <> 'indexed' AND kb_id = ?
                LIMIT ?
                """,
                (kb_id, documents_max),
            ).fetchall()
            added = removed = 0
            for row in documents:
                removed += _remove_gone(connection, row)
                added += _add_new(connection, row)
            return Indexed(len(documents), added, removed)

    def rebuild_index(self, kb_id: str) -> Indexed:
        """Make the whole index again from the chunks, with all that `kb_id` has.

        Other knowledge bases keep what they have indexed. Writers wait meanwhile, readers do not.
        """
        with self._write() as connection:
            removed = connection.execute(
                """
                DELETE FROM chunk WHERE state = 'gone'
                AND document_id IN (SELECT id FROM document WHERE kb_id = ?)
                """,
                (kb_id,),
            ).rowcount
            connection.execute(
                """
                UPDATE chunk SET state = 'indexed' WHERE state = 'new'
                AND document_id IN (SELECT id FROM document WHERE kb_id = ?)
                """,
                (kb_id,),
            )
            connection.execute("INSERT INTO chunk_index (chunk_index) VALUES ('rebuild')")
            documents, chunks = self.count(kb_id)
            return Indexed(documents, chunks, removed)

    @contextmanager
    def _write(self) -> "Generator[sqlite3.Connection]":
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            # Out of disk space, for one, SQLite has rolled back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _chunks(connection: sqlite3.Connection, document_id: int) -> list[tuple[int, str]]:
    return connection.execute(
        "SELECT start, text FROM chunk WHERE document_id = ? AND state <> 'gone' ORDER BY id",
        (document_id,),
    ).fetchall()


def _remove_gone(connection: sqlite3.Connection, document: tuple[int]) -> int:
    connection.execute(
        """
        INSERT INTO chunk_index (chunk_index, rowid, text)
        SELECT 'delete', id, text FROM chunk WHERE document_id = ? AND state = 'gone'
        """,
        document,
    )
    return connection.execute(
        "DELETE FROM chunk WHERE document_id = ? AND state = 'gone'", document
    ).rowcount


def _add_new(connection: sqlite3.Connection, document: tuple[int]) -> int:
    connection.execute(
        """
        INSERT INTO chunk_index (rowid, text)
        SELECT id, text FROM chunk WHERE document_id = ? AND state = 'new'
        """,
        document,
    )
    return connection.execute(
        "UPDATE chunk SET state = 'indexed' WHERE document_id = ? AND state = 'new'", document
    ).rowcount


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the schema in a file that has none, or an older one, which lacks tables of this one.
    Several processes may come here at once.

    A commit waits for the disk (`synchronous` stays at its default, FULL): a task that was
    reported as completed is not done again.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < _SCHEMA_VERSION:
        _use_write_ahead_log(connection)
        connection.executescript(_SCHEMA.read_text(encoding="utf-8"))
    elif version > _SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"schema version {version}, not {_SCHEMA_VERSION}")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # The one statement for which SQLite does not wait by itself.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
