"""What estimates are made from: how long attempts took, how many ended, and what waits, by type."""

import sqlite3
from collections.abc import Mapping
from typing import Final

import msgspec

from ledger.events import Priority
from ledger.task import Status
from projections.stats import BUCKETS_S

PRIORITIES: Final = tuple(Priority)
ENDED: Final = tuple(list(Status).index(status) for status in (Status.COMPLETED, Status.FAILED))
BOUNDS_MS: Final = tuple(bound_s * 1_000 for bound_s in BUCKETS_S)
NONE_WAITING: Final[Mapping[Priority, int]] = dict.fromkeys(Priority, 0)


class Figures(msgspec.Struct, frozen=True):
    """Of one task type, since the ledger's beginning."""

    counts: tuple[int, ...]
    """Attempts that ended, by the buckets of BOUNDS_MS."""
    sums_ms: tuple[int, ...]
    """What they took together."""
    waiting: Mapping[Priority, int]
    """Ready tasks now."""

    @property
    def ended(self) -> int:
        """Attempts that ended."""
        return sum(self.counts)


NO_FIGURES: Final = Figures((0,) * len(BOUNDS_MS), (0,) * len(BOUNDS_MS), NONE_WAITING)


def read_figures(db: sqlite3.Connection) -> dict[str, Figures]:
    """By task type, of every type that ever had an attempt or now has a task."""
    counts: dict[str, list[int]] = {}
    sums_ms: dict[str, list[int]] = {}
    waiting: dict[str, dict[Priority, int]] = {}
    for name, bucket, n, sum_ms in db.execute(
        "SELECT name, bucket, n, sum_ms FROM histograms JOIN names ON no = task_type"
        " WHERE measure = 'processing'"
    ):
        counts.setdefault(name, [0] * len(BOUNDS_MS))[bucket] = n
        sums_ms.setdefault(name, [0] * len(BOUNDS_MS))[bucket] = sum_ms
    for name, priority, ready in db.execute(
        "SELECT name, priority, ready FROM queues JOIN names ON no = task_type"
    ):
        waiting.setdefault(name, dict(NONE_WAITING))[PRIORITIES[priority]] = ready
    return {
        name: Figures(
            tuple(counts.get(name, NO_FIGURES.counts)),
            tuple(sums_ms.get(name, NO_FIGURES.sums_ms)),
            waiting.get(name, NONE_WAITING),
        )
        for name in {*counts, *waiting}
    }


def finished_since(db: sqlite3.Connection, since_ms: int) -> int:
    """How many tasks came to their end, well or badly, at `since_ms` or later; canceled ones do not
    count."""
    row = db.execute(
        "SELECT count(*) FROM tasks INDEXED BY tasks_completed"
        " WHERE completed_at >= ? AND status IN (?, ?)",
        (since_ms, *ENDED),
    ).fetchone()
    return row[0]
