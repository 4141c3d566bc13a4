"""What is kept of failures: the kind of each, and how many tasks failed in each way.

A part of the projection `tasks`: a task that leaves the read model leaves its group too.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from ledger.events import ErrorKind
from ledger.task import State, Status
from projections.changes import STATUS_NO, Change
from projections.counting import ALL_KBS
from projections.fingerprint import fingerprint
from projections.names import Names

ERROR_KINDS: Final = tuple(ErrorKind)
"""In the tables, a kind is its place among them."""


class Failure(msgspec.Struct, frozen=True):
    """In which way a task failed; `task_type` and `error_kind` are numbers, as in the tables."""

    fingerprint: bytes
    task_type: int
    error_kind: int


Deltas = dict[tuple[int, Failure], int]
"""How many tasks of a knowledge base failed in a way, to be added."""


def write(db: sqlite3.Connection, changes: Sequence[Change], names: Names) -> None:
    """The rows of `errors`, and the groups of what failed."""
    gone: list[tuple[bytes]] = []
    said: list[tuple[object, ...]] = []
    failed: Deltas = {}
    for change in changes:
        state = change.after
        before = change.before if change.stored else None
        if before is not None and _has_error(before):
            _count_failure(failed, change, before, names, -1)
        if _has_error(state):
            failure = _count_failure(failed, change, state, names, 1)
            said.append(_error_row(change, failure, names))
        elif before is not None and _has_error(before):
            gone.append((change.id,))
    db.executemany("DELETE FROM errors WHERE id = ?", gone)
    db.executemany(f"INSERT OR REPLACE INTO errors VALUES ({', '.join('?' * 13)})", said)  # noqa: S608 - question marks only
    write_groups(db, failed)


def add(deltas: Deltas, kb: int, failure: Failure, n: int) -> None:
    """Count a task that failed in this way once more (n = 1) or no longer (n = -1)."""
    for group in ((kb, failure), (ALL_KBS, failure)):
        deltas[group] = deltas.get(group, 0) + n


def write_groups(db: sqlite3.Connection, deltas: Deltas) -> None:
    """Into the table `failure_groups`; a group that has lost its last task is not there."""
    changed = [
        (kb, failure.fingerprint, failure.task_type, failure.error_kind, n)
        for (kb, failure), n in deltas.items()
        if n
    ]
    db.executemany(
        "INSERT INTO failure_groups (kb, fingerprint, task_type, error_kind, n)"
        " VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (kb, fingerprint) DO UPDATE SET n = n + excluded.n",
        changed,
    )
    db.executemany(
        "DELETE FROM failure_groups WHERE kb = ? AND fingerprint = ? AND n = 0",
        [row[:2] for row in changed if row[-1] < 0],
    )


def _has_error(state: State) -> bool:
    return state.error_kind is not None


def _error_row(change: Change, failure: Failure | None, names: Names) -> tuple[object, ...]:
    state = change.after
    assert state.error_kind is not None  # noqa: S101 - it has an error
    fixed = (change.id, change.kb, change.task_type, change.priority)
    moving = (STATUS_NO[state.status], names.of_worker(state.worker_id))
    times = (state.created_at, state.updated_at, state.started_at, state.completed_at)
    kind = ERROR_KINDS.index(state.error_kind)
    named = None if failure is None else failure.fingerprint
    return (*fixed, *moving, *times, kind, named, state.error_message.casefold())


def _count_failure(
    deltas: Deltas, change: Change, state: State, names: Names, n: int
) -> Failure | None:
    """Count the task if it has failed in this state; in which way it has."""
    if state.status is not Status.FAILED or state.error_kind is None:
        return None
    found = fingerprint(names.name(change.task_type), state.error_kind, state.error_message)
    failure = Failure(found, change.task_type, ERROR_KINDS.index(state.error_kind))
    add(deltas, change.kb, failure, n)
    return failure
