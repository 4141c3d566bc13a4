"""Counters over tasks by kb, hour, type, priority and status: one scheme for `counts` and `stats`.

Each task counts in four rows: its own knowledge base's and that of all (kb 0), each with its own
hour and with ever (hour -1), so that whatever is asked for is a sum of few rows.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Final

from ledger.task import State, Status
from projections.changes import STATUS_NO, Change

HOUR_MS: Final = 3_600_000

ALL_KBS: Final = 0
"""Stands for every knowledge base."""
EVER: Final = -1
"""Stands for every hour, as the `hour` of a row."""

Key = tuple[int, int, int, int, int]
"""kb, hour, task_type, priority, status"""
Deltas = dict[Key, list[int]]
"""What is to be added: [n, process_ms]."""


def add(deltas: Deltas, key: Key, n: int, ms: int = 0) -> None:
    """Count n tasks more, or fewer where n is negative."""
    delta = deltas.get(key)
    if delta is None:
        deltas[key] = [n, ms]
    else:
        delta[0] += n
        delta[1] += ms


def add_change(deltas: Deltas, change: Change, state: State, n: int) -> None:
    """Count a task in `state` once more (n = 1) or no longer (n = -1)."""
    hour = change.after.created_at // HOUR_MS
    key = (change.kb, hour, change.task_type, change.priority, STATUS_NO[state.status])
    add(deltas, key, n, n * process_ms(state))


def process_ms(state: State) -> int:
    """From start to completion; 0 for what did not complete."""
    if state.status is Status.COMPLETED:
        started_at, completed_at = state.started_at, state.completed_at
        assert started_at is not None and completed_at is not None  # noqa: S101 - a completed one's
        return completed_at - started_at
    return 0


def write_counts(db: sqlite3.Connection, deltas: Deltas) -> None:
    """Into the table `counts`."""
    rows = [(*key, n) for key, (n, _) in _rolled_up(deltas).items() if n]
    db.executemany(
        "INSERT INTO counts (kb, hour, task_type, priority, status, n) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (kb, hour, task_type, priority, status) DO UPDATE SET n = n + excluded.n",
        rows,
    )
    _drop_zeros(db, "counts", rows)


def write_stats(db: sqlite3.Connection, deltas: Deltas) -> None:
    """Into the table `stats`."""
    rows = [(*key, n, ms) for key, (n, ms) in _rolled_up(deltas).items() if n or ms]
    db.executemany(
        "INSERT INTO stats (kb, hour, task_type, priority, status, n, process_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (kb, hour, task_type, priority, status)"
        " DO UPDATE SET n = n + excluded.n, process_ms = process_ms + excluded.process_ms",
        rows,
    )
    _drop_zeros(db, "stats", rows)


def _rolled_up(deltas: Deltas) -> Mapping[Key, list[int]]:
    total: Deltas = {}
    for key, (n, ms) in deltas.items():
        for row in _rows_of(key):
            delta = total.get(row)
            if delta is None:
                total[row] = [n, ms]
            else:
                delta[0] += n
                delta[1] += ms
    return total


def _rows_of(key: Key) -> Iterator[Key]:
    kb, hour, task_type, priority, status = key
    yield key
    yield kb, EVER, task_type, priority, status
    yield ALL_KBS, hour, task_type, priority, status
    yield ALL_KBS, EVER, task_type, priority, status


def _drop_zeros(db: sqlite3.Connection, table: str, rows: list[tuple[int, ...]]) -> None:
    """A count that came down to nothing leaves no row, so that the same events make the same rows
    in whatever batches they come."""
    db.executemany(
        f"DELETE FROM {table} WHERE kb = ? AND hour = ? AND task_type = ? AND priority = ?"  # noqa: S608 - a name of ours
        " AND status = ? AND n = 0",
        [row[:5] for row in rows if row[5] < 0],
    )
