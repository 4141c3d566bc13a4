"""When the attempts began that workers say they run, as the read model knows it."""

import sqlite3
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from ledger.identity import is_task_id
from ledger.task import Status
from ledger.workers import WorkerSeen
from projections.changes import STATUS_NO

STARTS_MAX: Final = 1_000
"""So many are looked up; what else runs counts as just begun."""


class Start(msgspec.Struct, frozen=True):
    """Of a running attempt."""

    task_type: str
    at_ms: int


def running(workers: Sequence[WorkerSeen]) -> list[str]:
    """Ids of what workers run that take tasks, at most STARTS_MAX."""
    ids = [i for w in workers if w.takes_tasks for i in w.report.task_ids if is_task_id(i)]
    return ids[:STARTS_MAX]


def read_starts(db: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Start]:
    """By task id, of those that are being processed as far as the read model has seen."""
    if not ids:
        return {}
    marks = ", ".join("?" * len(ids))
    rows = db.execute(
        "SELECT id, name, started_at FROM tasks JOIN names ON no = task_type"  # noqa: S608 - question marks only
        f" WHERE id IN ({marks}) AND status = ? AND started_at IS NOT NULL",
        (*(UUID(task_id).bytes for task_id in ids), STATUS_NO[Status.PROCESSING]),
    )
    return {str(UUID(bytes=task_id)): Start(name, at_ms) for task_id, name, at_ms in rows}
