"""What is asked of the system as a whole: counts, its pace, and how far the projections are."""

import sqlite3
from collections.abc import Mapping

import msgspec

from ledger.store import Position
from projections.figures import finished_since
from projections.level import positions
from projections.list_query import Filters
from projections.read_model import VERSIONS, Stopped, read_stopped
from projections.task_stats import Stats, task_stats

NO_FILTERS = Filters()


class SystemFacts(msgspec.Struct, frozen=True):
    """One state of the read model."""

    stats: Stats
    ready: int
    """Tasks that wait to be taken."""
    finished: int
    """Tasks that came to their end since the time that was asked for."""
    seen: Mapping[int, Position]
    """How far the events were read, by partition."""
    stopped: Mapping[str, Stopped | None]
    """Every projection, and why it does not go on if it does not."""


def system_facts(db: sqlite3.Connection, since_ms: int) -> SystemFacts:
    """Read within a transaction, so that all of it agrees."""
    [(ready,)] = db.execute("SELECT coalesce(sum(ready), 0) FROM queues")
    stopped = read_stopped(db)
    return SystemFacts(
        task_stats(db, NO_FILTERS),
        ready,
        finished_since(db, since_ms),
        positions(db),
        {name: stopped.get(name) for name in VERSIONS},
    )
