"""The projection `stats`: how many tasks there ever were of each kind, and how long they took."""

import bisect
import sqlite3
from collections.abc import Sequence
from typing import Final

from ledger.events import (
    AttemptFailed,
    Event,
    RetryScheduled,
    TaskCompleted,
    TaskFailed,
    TaskStarted,
)
from ledger.task import State
from projections import counting
from projections.changes import Change

VERSION: Final = 1
"""See tasks.VERSION."""

BUCKETS_S: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    *(120.0, 300.0, 600.0, 1_800.0, 3_600.0, float("inf")),
)
"""Upper bounds of the histograms' buckets; a value on a bound belongs below it."""

_BUCKETS_MS: Final = [bound_s * 1_000 for bound_s in BUCKETS_S]


MEASURED: Final = frozenset(
    kind.__name__.encode()
    for kind in (TaskStarted, TaskCompleted, AttemptFailed, RetryScheduled, TaskFailed)
)
"""The stored names of the events that `Measures.take` looks at."""


class Measures:
    """What the events of a batch say of attempts, summed up for `outcomes` and `histograms`."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[int, str], int] = {}
        """By (task_type, outcome)."""
        self.histograms: dict[tuple[str, int, int], list[int]] = {}
        """[n, sum in ms] by (measure, task_type, bucket)."""

    def take(self, task_type: int, before: State, event: Event, at: int) -> None:
        """The next event of a task that is in the state `before`, at time `at` (ms)."""
        match event:
            case TaskStarted():
                # A task in a queue was last touched when it became ready.
                self._measure("wait", task_type, at - before.updated_at)
            case TaskCompleted():
                self._measure_attempt(task_type, before, at)
                self._count(task_type, "success")
            case AttemptFailed():
                self._measure_attempt(task_type, before, at)
            case RetryScheduled():
                self._count(task_type, "retry")
            case TaskFailed():
                self._count(task_type, "failure")
            case _:
                pass

    def write(self, db: sqlite3.Connection) -> None:
        db.executemany(
            "INSERT INTO outcomes (task_type, outcome, n) VALUES (?, ?, ?)"
            " ON CONFLICT (task_type, outcome) DO UPDATE SET n = n + excluded.n",
            [(*key, n) for key, n in self.outcomes.items()],
        )
        db.executemany(
            "INSERT INTO histograms (measure, task_type, bucket, n, sum_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (measure, task_type, bucket)"
            " DO UPDATE SET n = n + excluded.n, sum_ms = sum_ms + excluded.sum_ms",
            [(*key, n, sum_ms) for key, (n, sum_ms) in self.histograms.items()],
        )

    def _count(self, task_type: int, outcome: str) -> None:
        key = (task_type, outcome)
        self.outcomes[key] = self.outcomes.get(key, 0) + 1

    def _measure_attempt(self, task_type: int, before: State, at: int) -> None:
        started_at = before.started_at
        assert started_at is not None  # noqa: S101 - only what runs can end
        self._measure("processing", task_type, at - started_at)

    def _measure(self, measure: str, task_type: int, ms: int) -> None:
        key = (measure, task_type, bisect.bisect_left(_BUCKETS_MS, ms))
        found = self.histograms.get(key)
        if found is None:
            self.histograms[key] = [1, ms]
        else:
            found[0] += 1
            found[1] += ms


def write(db: sqlite3.Connection, changes: Sequence[Change], measures: Measures) -> None:
    deltas: counting.Deltas = {}
    for change in changes:
        if change.before is not None:
            counting.add_change(deltas, change, change.before, -1)
        counting.add_change(deltas, change, change.after, 1)
    counting.write_stats(db, deltas)
    measures.write(db)
