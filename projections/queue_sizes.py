"""What waits and runs in the queues, and how long the oldest has waited."""

import sqlite3

import msgspec

from ledger.placement import Queue
from projections.selection import PRIORITIES


class QueueSize(msgspec.Struct, frozen=True):
    """One type and priority: tasks that are ready to be taken, that wait for their time, that run;
    and since when (ms) the oldest ready one is so."""

    queue: Queue
    ready: int
    delayed: int
    processing: int
    oldest_since: int | None


def queue_sizes(db: sqlite3.Connection) -> list[QueueSize]:
    """Of every queue that a task was ever in."""
    rows: list[tuple[str, int, int, int, int, int | None]] = db.execute(
        "SELECT name, priority, ready, delayed, processing,"
        " (SELECT min(since) FROM ready WHERE ready.task_type = queues.task_type"
        "  AND ready.priority = queues.priority)"
        " FROM queues JOIN names ON names.no = queues.task_type"
    ).fetchall()
    return [
        QueueSize(Queue(name, PRIORITIES[priority]), ready, delayed, processing, since)
        for name, priority, ready, delayed, processing, since in rows
    ]
