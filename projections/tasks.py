"""The projection `tasks`: a row for each task, and how many of them there are of each kind."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from ledger.codec import encode
from projections import counting
from projections.changes import STATUS_NO, Change

VERSION: Final = 1
"""To be raised when the same events are to make other rows: the read model then rebuilds itself."""

INSERT: Final = """
INSERT INTO tasks (version, status, worker, updated_at, started_at, completed_at, state,
                   id, kb, task_type, priority, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
UPDATE: Final = """
UPDATE tasks SET version = ?, status = ?, worker = ?, updated_at = ?, started_at = ?,
                 completed_at = ?, state = ?
WHERE id = ?
"""


def write(
    db: sqlite3.Connection,
    changes: Sequence[Change],
    number: Callable[[str], int],
    evicted_before: int,
) -> None:
    """`number` gives those of workers' names. What comes new, and was finished before
    `evicted_before` (ms) already, is not taken in."""
    if evicted_before:
        changes = [change for change in changes if not _expired(change, evicted_before)]
    new: list[tuple[object, ...]] = []
    moved: list[tuple[object, ...]] = []
    submissions: list[tuple[bytes, bytes]] = []
    for change in changes:
        state = change.after
        row = (
            change.version,
            STATUS_NO[state.status],
            0 if state.worker_id is None else number(state.worker_id),
            state.updated_at,
            state.started_at,
            state.completed_at,
            encode(state),
            change.id,
        )
        if change.stored:
            moved.append(row)
        else:
            new.append((*row, change.kb, change.task_type, change.priority, state.created_at))
        if change.submission is not None:
            submissions.append((change.id, change.submission))
    db.executemany(INSERT, new)
    db.executemany(UPDATE, moved)
    db.executemany("INSERT INTO submissions (id, submission) VALUES (?, ?)", submissions)
    _write_errors(db, changes, number)
    _count(db, changes)


def _write_errors(
    db: sqlite3.Connection, changes: Sequence[Change], number: Callable[[str], int]
) -> None:
    gone: list[tuple[bytes]] = []
    said: list[tuple[object, ...]] = []
    for change in changes:
        state = change.after
        if state.error_message:
            worker = 0 if state.worker_id is None else number(state.worker_id)
            fixed = (change.id, change.kb, change.task_type, change.priority)
            moving = (STATUS_NO[state.status], worker, state.created_at, state.updated_at)
            ends = (state.started_at, state.completed_at)
            said.append((*fixed, *moving, *ends, state.error_message.casefold()))
        elif change.stored and change.before is not None and change.before.error_message:
            gone.append((change.id,))
    db.executemany("DELETE FROM errors WHERE id = ?", gone)
    db.executemany(f"INSERT OR REPLACE INTO errors VALUES ({', '.join('?' * 11)})", said)  # noqa: S608 - question marks only


def _count(db: sqlite3.Connection, changes: Sequence[Change]) -> None:
    deltas: counting.Deltas = {}
    for change in changes:
        if change.before is not None and change.stored:
            counting.add_change(deltas, change, change.before, -1)
        counting.add_change(deltas, change, change.after, 1)
    counting.write_counts(db, deltas)


def _expired(change: Change, evicted_before: int) -> bool:
    completed_at = change.after.completed_at
    return not change.stored and completed_at is not None and completed_at < evicted_before
