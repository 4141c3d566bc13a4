"""A read model of a moment that has passed: every event up to it, folded into a file of its own."""

import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from ledger.foreign import ForeignEntry
from ledger.script_format import read_recorded
from ledger.store import Entry, Events, Position
from projections import sqlite
from projections.catch_up import (
    COMMIT_BYTES,
    COMMIT_TASKS,
    READ_COUNT_FIRST,
    next_count,
    position_of,
    take,
)
from projections.read_model import BEGINNING, ReadModel

APART_MS: Final = 60_000
"""An event happened (`at`) at most so long before or after it was written (its entry id)."""


async def build_past(
    events: Events, path: Path, at_ms: int, *, skipped: Collection[str] = ()
) -> None:
    """Make the file `path` of all that had happened by the end of the ms `at_ms`: as a single task
    is shown as it was.

    Raises as `bring_level`.
    """
    db = sqlite.create(path)
    try:
        model = ReadModel(
            db, partitions=events.partitions, epoch=await events.epoch(), skipped=skipped
        )
        for partition in range(events.partitions):
            await _read_until(model, events, partition, at_ms)
        model.commit()
        sqlite.finish(db)
        # Nothing beside the file: it is read as it is.
        db.execute("PRAGMA journal_mode = DELETE")
    finally:
        db.close()


async def _read_until(model: ReadModel, events: Events, partition: int, at_ms: int) -> None:
    later: set[str] = set()
    position, count = Position(partition, BEGINNING), READ_COUNT_FIRST
    while entries := await events.entries_after(position, count, 1):
        written_ms = position_of(partition, entries[0]).order[0]
        if written_ms > at_ms + APART_MS:
            return
        position = position_of(partition, entries[-1])
        by_then = _by_then(partition, entries, at_ms, later)
        if by_then:
            await take(model, events, partition, by_then)
        tasks, size_bytes = model.gathered
        if tasks >= COMMIT_TASKS or size_bytes >= COMMIT_BYTES:
            model.commit()
        count = next_count(entries, count)


def _by_then(
    partition: int, entries: Sequence[Entry], at_ms: int, later: set[str]
) -> Sequence[Entry]:
    """Those that had happened. `later` are tasks of which something had not: what was written
    afterwards rests on that."""
    if position_of(partition, entries[-1]).order[0] <= at_ms - APART_MS:
        return entries
    found: list[Entry] = []
    for entry in entries:
        try:
            event = read_recorded(partition, entry)
        except ForeignEntry:
            continue
        if event.at > at_ms or event.task_id in later:
            later.add(event.task_id)
        else:
            found.append(entry)
    return found


def open_past(path: Path) -> sqlite3.Connection:
    """A file that was made, to be read; it may be removed from its folder from now on. For one
    thread after the other."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
    )
    try:
        db.execute("SELECT count(*) FROM checkpoints").fetchall()
    except sqlite3.Error:
        db.close()
        raise
    return db
