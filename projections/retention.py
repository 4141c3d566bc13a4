"""Finished tasks leave the read model when they are old: in small steps, so that nobody waits.

The statistics keep counting them, and the ledger keeps their history. One that is retried later
comes back whole.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

from projections import counting, failures

DERIVED: Final = 8
"""The version of an id that is made of a key (`ledger.identity.derived_id`)."""

STEP_TASKS: Final = 500
"""Tasks that leave in one transaction: about 20 ms."""

_OLDEST: Final = """
SELECT id, kb, created_at, task_type, priority, status, completed_at
FROM tasks INDEXED BY tasks_completed WHERE completed_at < ? ORDER BY completed_at LIMIT ?
"""

_FAILED: Final = """
SELECT kb, fingerprint, task_type, error_kind FROM errors WHERE id = ? AND fingerprint IS NOT NULL
"""


def evict(db: sqlite3.Connection, before_ms: int, tasks_max: int = STEP_TASKS) -> int:
    """Let the oldest of the tasks go that were finished before `before_ms`, about `tasks_max` of
    them, in the transaction that is open; returns how many went.

    Afterwards none is left that was finished before the fact `evicted_before`.
    """
    rows = db.execute(_OLDEST, (before_ms, tasks_max)).fetchall()
    reached = before_ms
    if len(rows) == tasks_max:
        # Others may have been finished in the same ms as the last one: leave those for the next
        # step, unless there is nothing else.
        reached = rows[-1][-1]
        rows = [row for row in rows if row[-1] < reached]
        if not rows:
            reached += 1
            rows = db.execute(_OLDEST, (reached, -1)).fetchall()
    _delete(db, rows)
    set_evicted_before(db, reached)
    return len(rows)


def evicted_before(db: sqlite3.Connection) -> int:
    """No task is in the read model that was finished before this time (ms)."""
    row = db.execute("SELECT value FROM facts WHERE name = 'evicted_before'").fetchone()
    return 0 if row is None else int(row[0])


def set_evicted_before(db: sqlite3.Connection, at_ms: int) -> None:
    """It never moves back."""
    db.execute(
        "INSERT INTO facts (name, value) VALUES ('evicted_before', ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        " WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)",
        (str(at_ms),),
    )


def note_departed(db: sqlite3.Connection, ids: Iterable[bytes]) -> None:
    """Remember those of these tasks whose ids may be met again."""
    db.executemany(
        "INSERT INTO departed (id) VALUES (?) ON CONFLICT (id) DO NOTHING",
        [(id,) for id in ids if id[6] >> 4 == DERIVED],
    )


def _delete(db: sqlite3.Connection, rows: list[tuple[bytes, int, int, int, int, int, int]]) -> None:
    ids = [(row[0],) for row in rows]
    note_departed(db, [row[0] for row in rows])
    _leave_groups(db, ids)
    for table in ("tasks", "submissions", "errors"):
        db.executemany(f"DELETE FROM {table} WHERE id = ?", ids)  # noqa: S608 - a name of ours
    deltas: counting.Deltas = {}
    for _, kb, created_at, task_type, priority, status, _ in rows:
        hour = created_at // counting.HOUR_MS
        counting.add(deltas, (kb, hour, task_type, priority, status), -1)
    counting.write_counts(db, deltas)


def _leave_groups(db: sqlite3.Connection, ids: list[tuple[bytes]]) -> None:
    deltas: failures.Deltas = {}
    for id in ids:
        found = db.execute(_FAILED, id).fetchone()
        if found is not None:
            kb, *failure = found
            failures.add(deltas, kb, failures.Failure(*failure), -1)
    failures.write_groups(db, deltas)
