"""The service's own table of what it has asked ledgerq to do.

Written from two sides: by the request that handed the work over, and by the callback once it is
done. Either may come first, and the callback may come twice; what is written is the same.
"""

import json
import sqlite3
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from .store import open_store

LISTED_MAX = 200


@dataclass(frozen=True, slots=True)
class Job:
    """One task. `status` is `accepted` until its callback has come, then how it ended."""

    task_id: str
    kb_id: str
    kind: str
    name: str
    status: str
    result: Any
    error: str
    callbacks: int
    created_at: str
    finished_at: str | None

    @property
    def finished(self) -> bool:
        return self.finished_at is not None


class Jobs:
    """The table, in the database file at `path`. For any thread."""

    def __init__(self, path: str) -> None:
        with open_store(path):
            self._path = path

    def accepted(self, jobs: Iterable[tuple[str, str, str, str]]) -> None:
        """Remember tasks that were handed over: id, kb_id, kind and name of each."""
        with self._connected() as connection:
            connection.executemany(
                """
                INSERT INTO job (task_id, kb_id, kind, name) VALUES (?, ?, ?, ?)
                ON CONFLICT (task_id) DO UPDATE SET name = excluded.name
                """,
                jobs,
            )

    def ended(
        self,
        *,
        task_id: str,
        kb_id: str,
        kind: str,
        status: str,
        result: Any,
        error: str,
        finished_at: str,
    ) -> None:
        """Write down what a callback tells."""
        with self._connected() as connection:
            connection.execute(
                """
                INSERT INTO job
                    (task_id, kb_id, kind, status, result, error, finished_at, callbacks)
                VALUES (?, ?, ?, ?, ?, ?, ?, 1)
                ON CONFLICT (task_id) DO UPDATE SET
                    status = excluded.status,
                    result = excluded.result,
                    error = excluded.error,
                    finished_at = excluded.finished_at,
                    callbacks = callbacks + 1
                -- One of an earlier end, of a task that was retried, may come late.
                WHERE finished_at IS NULL OR excluded.finished_at >= finished_at
                """,
                (task_id, kb_id, kind, status, json.dumps(result), error, finished_at),
            )

    def find(self, task_id: str) -> Job | None:
        """One of them."""
        with self._connected() as connection:
            row = connection.execute("SELECT * FROM job WHERE task_id = ?", (task_id,)).fetchone()
        return None if row is None else _job(row)

    def latest(self, kb_id: str) -> list[Job]:
        """A knowledge base's newest ones, the newest first."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT * FROM job WHERE kb_id = ? ORDER BY created_at DESC, task_id DESC LIMIT ?",
                (kb_id, LISTED_MAX),
            ).fetchall()
        return [_job(row) for row in rows]

    def counts(self, kb_id: str) -> dict[str, int]:
        """How many jobs of a knowledge base there are in each status."""
        with self._connected() as connection:
            return dict(
                connection.execute(
                    "SELECT status, count(*) FROM job WHERE kb_id = ? GROUP BY status", (kb_id,)
                ).fetchall()
            )

    @contextmanager
    def _connected(self) -> Generator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
            yield connection


def _job(row: tuple[Any, ...]) -> Job:
    task_id, kb_id, kind, name, status, result, error, callbacks, created_at, finished_at = row
    return Job(
        task_id,
        kb_id,
        kind,
        name,
        status,
        json.loads(result),
        error,
        callbacks,
        created_at,
        finished_at,
    )
