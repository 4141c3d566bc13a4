"""What metrics tell of the ledger: totals by task type, what waits, how far the read model is."""

import sqlite3
from collections.abc import Mapping
from typing import Final

import msgspec

from ledger.events import Priority
from projections.read_model import Checkpoint, Stopped, read_checkpoints, read_stopped
from projections.stats import BUCKETS_S

NOTHING: Final[Mapping[str, int]] = {"success": 0, "failure": 0, "retry": 0}
"""By outcome."""

_PRIORITIES: Final = tuple(Priority)


class Times(msgspec.Struct, frozen=True):
    """How long something took, of one task type."""

    counts: tuple[int, ...]
    """By the buckets of BUCKETS_S."""
    sum_ms: int


class Totals(msgspec.Struct, frozen=True):
    """One state of the read model, as metrics need it."""

    outcomes: Mapping[str, Mapping[str, int]]
    """How many, by task type and outcome; each type has every outcome."""
    processing: Mapping[str, Times]
    waits: Mapping[str, Times]
    waiting: Mapping[Priority, int]
    """Ready tasks; each priority is there."""
    checkpoints: Mapping[int, Checkpoint]
    stopped: Mapping[str, Stopped]


def read_totals(db: sqlite3.Connection) -> Totals:
    """The totals, in a few look-ups: none of these tables grows with the tasks."""
    processing, waits = _times(db, "processing"), _times(db, "wait")
    outcomes: dict[str, dict[str, int]] = {name: dict(NOTHING) for name in {*processing, *waits}}
    for name, outcome, n in db.execute(
        "SELECT name, outcome, n FROM outcomes JOIN names ON no = task_type"
    ):
        outcomes.setdefault(name, dict(NOTHING))[outcome] = n
    waiting = dict.fromkeys(_PRIORITIES, 0)
    for priority, n in db.execute("SELECT priority, sum(ready) FROM queues GROUP BY priority"):
        waiting[_PRIORITIES[priority]] = n
    return Totals(outcomes, processing, waits, waiting, read_checkpoints(db), read_stopped(db))


def _times(db: sqlite3.Connection, measure: str) -> dict[str, Times]:
    counts: dict[str, list[int]] = {}
    sums_ms: dict[str, int] = {}
    for name, bucket, n, sum_ms in db.execute(
        "SELECT name, bucket, n, sum_ms FROM histograms JOIN names ON no = task_type"
        " WHERE measure = ?",
        (measure,),
    ):
        counts.setdefault(name, [0] * len(BUCKETS_S))[bucket] = n
        sums_ms[name] = sums_ms.get(name, 0) + sum_ms
    return {name: Times(tuple(found), sums_ms[name]) for name, found in counts.items()}
