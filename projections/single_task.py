"""Single tasks in a read model, and what it says of one that is not there."""

import sqlite3
import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from ledger.codec import Undecodable, decode_task
from ledger.identity import is_derived
from ledger.task import Task
from projections.read_model import read_seen
from projections.retention import evicted_before

CLOCKS_APART_MS: Final = 3_600_000
"""More than the clock that made a task's id, and that of the ledger, can be apart."""


class Seen(msgspec.Struct, frozen=True):
    """What a read model knows of a task."""

    task: Task | None
    as_of: str
    """The entry up to which it has read the task's partition."""
    never: bool
    """There was no such task up to then."""


def look_up(db: sqlite3.Connection, named: Sequence[tuple[str, int]]) -> list[Seen | None]:
    """Tasks by their ids and partitions, each by its primary key; None for a row that cannot be
    read."""
    seen = read_seen(db, "tasks")
    found: list[Seen | None] = []
    for task_id, partition in named:
        as_of = seen[partition].entry if partition in seen else "0-0"
        try:
            found.append(_look_up(db, task_id, as_of))
        except Undecodable:
            found.append(None)
    return found


def _look_up(db: sqlite3.Connection, task_id: str, as_of: str) -> Seen:
    key = uuid.UUID(task_id).bytes
    row = db.execute(
        "SELECT version, submission, state FROM tasks JOIN submissions USING (id) WHERE id = ?",
        (key,),
    ).fetchone()
    if row is not None:
        return Seen(decode_task(task_id, *row), as_of, never=False)
    return Seen(None, as_of, _was_never(db, task_id, key))


def _was_never(db: sqlite3.Connection, task_id: str, key: bytes) -> bool:
    """Whether it cannot have been here, and have left."""
    left_before = evicted_before(db)
    if not left_before:
        return True
    if is_derived(task_id):
        return db.execute("SELECT 1 FROM departed WHERE id = ?", (key,)).fetchone() is None
    # Other ids begin with the time at which they were made.
    made_at = int.from_bytes(key[:6], "big")
    return key[6] >> 4 == 7 and made_at - CLOCKS_APART_MS >= left_before
