"""Tasks that are over, as a moment left them: more of them than fit into memory."""

import sqlite3
from collections.abc import Generator
from typing import Final

from ledger.codec import decode_task, encode
from ledger.task import Task
from projections.lives import Life

WRITE_AT_ONCE: Final = 2_000


class EndedTasks:
    """Keeps tasks that are over in a file that is gone with this object, for `Lives`."""

    def __init__(self) -> None:
        # Without a name: SQLite makes a file once it is too large for memory, and removes it.
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE ended (id TEXT PRIMARY KEY, version INTEGER, submission BLOB,"
            " state BLOB) WITHOUT ROWID"
        )
        self._waiting: dict[str, tuple[int, bytes, bytes]] = {}

    def ended(self, task_id: str, life: Life) -> None:
        """See Lives."""
        self._waiting[task_id] = life.version, encode(life.submission), encode(life.state)
        if len(self._waiting) >= WRITE_AT_ONCE:
            self._write()

    def returned(self, task_id: str, _: Life) -> None:
        """See Lives."""
        if self._waiting.pop(task_id, None) is None:
            self._db.execute("DELETE FROM ended WHERE id = ?", (task_id,))

    def tasks(self, living: dict[str, Life]) -> Generator[Task]:
        """All, by id: those that are over, and these."""
        self._write()
        alive = iter(sorted(living))
        next_alive = next(alive, None)
        rows = self._db.execute("SELECT id, version, submission, state FROM ended ORDER BY id")
        for task_id, version, submission, state in rows:
            while next_alive is not None and next_alive < task_id:
                yield _task(next_alive, living[next_alive])
                next_alive = next(alive, None)
            yield decode_task(task_id, version, submission, state)
        while next_alive is not None:
            yield _task(next_alive, living[next_alive])
            next_alive = next(alive, None)

    def close(self) -> None:
        """Remove the file."""
        self._db.close()

    def _write(self) -> None:
        rows = [(task_id, *told) for task_id, told in self._waiting.items()]
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO ended VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")
        self._waiting = {}


def _task(task_id: str, life: Life) -> Task:
    return Task(task_id, life.version, life.submission, life.state)
