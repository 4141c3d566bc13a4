"""The projection `tasks`: a row for each task, and how many of them there are of each kind."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from ledger.codec import encode
from ledger.erasure import redacted_data
from ledger.events import TaskSubmitted
from projections import counting, failures, retention
from projections.changes import STATUS_NO, Change
from projections.names import Names

VERSION: Final = 2
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
    names: Names,
    evicted_before: int,
) -> None:
    """`names` gives workers' names their numbers. What comes new, and was finished before
    `evicted_before` (ms) already, is not taken in."""
    if evicted_before:
        expired = [change for change in changes if _expired(change, evicted_before)]
        retention.note_departed(db, [change.id for change in expired])
        changes = [change for change in changes if not _expired(change, evicted_before)]
    new: list[tuple[object, ...]] = []
    moved: list[tuple[object, ...]] = []
    submissions: list[tuple[bytes, bytes]] = []
    erased: list[bytes] = []
    for change in changes:
        state = change.after
        row = (
            change.version,
            STATUS_NO[state.status],
            names.of_worker(state.worker_id),
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
            submission = change.submission
            submissions.append((change.id, _redacted(submission) if state.erased else submission))
        elif state.erased and not (change.before is not None and change.before.erased):
            erased.append(change.id)
    if any(change.after.erased for change in changes):
        # What was there before must not be left in the file.
        db.execute("PRAGMA secure_delete = ON")
    db.executemany(INSERT, new)
    db.executemany(UPDATE, moved)
    db.executemany("INSERT INTO submissions (id, submission) VALUES (?, ?)", submissions)
    _redact_submissions(db, erased)
    failures.write(db, changes, names)
    _count(db, changes)


def _redact_submissions(db: sqlite3.Connection, ids: Sequence[bytes]) -> None:
    for id in ids:
        found = db.execute("SELECT submission FROM submissions WHERE id = ?", (id,)).fetchone()
        if found is not None:
            db.execute(
                "UPDATE submissions SET submission = ? WHERE id = ?", (_redacted(found[0]), id)
            )


def _redacted(submission: bytes) -> bytes:
    return redacted_data(TaskSubmitted.__name__, submission)


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
