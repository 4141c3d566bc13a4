"""The projection `queues`: what waits and what runs, and since when."""

import sqlite3
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from ledger.task import State, Status
from projections.changes import Change

VERSION: Final = 1
"""See tasks.VERSION."""


class Place(IntEnum):
    """As ledger.placement tells it, without what it leads to."""

    READY = 0
    DELAYED = 1
    PROCESSING = 2


ReadyRow = tuple[int, int, int, bytes]
"""task_type, priority, since, id"""


def place(state: State) -> Place | None:
    """Where a task in this state waits or runs; None once it is finished."""
    match state.status:
        case Status.QUEUED | Status.RETRYING:
            return Place.READY if state.waiting_until is None else Place.DELAYED
        case Status.PROCESSING:
            return Place.PROCESSING
        case Status.COMPLETED | Status.FAILED | Status.CANCELED:
            return None


def write(db: sqlite3.Connection, changes: Sequence[Change]) -> None:
    deltas: dict[tuple[int, int], list[int]] = {}
    left: list[ReadyRow] = []
    entered: list[ReadyRow] = []
    for change in changes:
        for state, n, rows in ((change.before, -1, left), (change.after, 1, entered)):
            where = None if state is None else place(state)
            if state is None or where is None:
                continue
            delta = deltas.setdefault((change.task_type, change.priority), [0, 0, 0])
            delta[where] += n
            if where is Place.READY:
                # What is ready was last touched when it became so.
                rows.append((change.task_type, change.priority, state.updated_at, change.id))
    db.executemany(
        "DELETE FROM ready WHERE task_type = ? AND priority = ? AND since = ? AND id = ?", left
    )
    db.executemany(
        "INSERT INTO ready (task_type, priority, since, id) VALUES (?, ?, ?, ?)", entered
    )
    db.executemany(
        "INSERT INTO queues (task_type, priority, ready, delayed, processing)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (task_type, priority) DO UPDATE SET"
        " ready = ready + excluded.ready, delayed = delayed + excluded.delayed,"
        " processing = processing + excluded.processing",
        [(*key, *delta) for key, delta in deltas.items() if any(delta)],
    )
