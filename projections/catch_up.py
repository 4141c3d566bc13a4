"""Bring a read model level with the ledger, as fast as one core goes.

The next entries are asked for before the last ones are worked on, so that the server and the
network are at work meanwhile. Folding and SQLite stay on the thread of the loop: two threads would
fight over the interpreter around every statement.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final

from ledger.store import Entry, Events, Position
from projections.fold import DATA, Missing
from projections.read_model import BEGINNING, Checkpoint, ReadModel, digest

READ_COUNT_FIRST: Final = 100
READ_COUNT_MAX: Final = 1_000
READ_BYTES: Final = 4 * 1024 * 1024
"""Entries are asked for in such numbers that a read should bring no more than this. Payloads of a
MiB each may bring more, once: the next read asks for fewer."""

COMMIT_TASKS: Final = 15_000
COMMIT_BYTES: Final = 16 * 1024 * 1024
"""A commit is due when so much is gathered."""

BEHIND_WAIT_MS: Final = 1_000
"""For entries that are known to be there."""


class LedgerCutShort(Exception):
    """The ledger ends before where it ended a moment ago."""


async def bring_level(
    model: ReadModel,
    events: Events,
    ends: Mapping[int, str] | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Read on in every partition, exactly up to the entries `ends`, or up to where each ends now.

    `progress` is told of events as they are taken. Raises as ReadModel's methods, LedgerCutShort,
    Rejection.
    """
    for partition in range(events.partitions):
        end = ends.get(partition, BEGINNING) if ends is not None else None
        if end is None:
            end = (await events.last_position(partition)).entry
        start = Position(partition, model.checkpoint(partition).entry)
        async for entries in read_ahead(events, start, end):
            await take(model, events, partition, entries)
            progress(len(entries))
            tasks, size_bytes = model.gathered
            if tasks >= COMMIT_TASKS or size_bytes >= COMMIT_BYTES:
                model.commit()
    model.commit()


async def take(model: ReadModel, events: Events, partition: int, entries: Sequence[Entry]) -> None:
    """Fold entries of one partition into the model, with what it needs from the store for that."""
    while True:
        try:
            model.take(partition, entries)
            return
        except Missing as missing:
            model.remember(missing, await events.history(missing.task_id))
            entries = _cut(entries, first=missing.position)


async def still_there(events: Events, partition: int, checkpoint: Checkpoint) -> bool:
    """Whether the ledger still has the event that was read last; if not, it went backwards."""
    if checkpoint.entry == BEGINNING:
        return True
    if partition >= events.partitions:
        return False
    position = Position(partition, checkpoint.entry)
    event = await events.event_at(position)
    if event is not None and digest(event) == checkpoint.digest:
        return True
    return await events.is_erased(position)


async def read_ahead(events: Events, start: Position, end: str) -> AsyncGenerator[Sequence[Entry]]:
    """The entries behind `start`, up to and with `end`, in pieces."""
    last, count = Position(start.partition, end), READ_COUNT_FIRST
    position = start
    if position.order >= last.order:
        return
    reading = asyncio.create_task(events.entries_after(position, count, BEHIND_WAIT_MS))
    try:
        while True:
            entries = await reading
            if not entries:
                raise LedgerCutShort(
                    f"partition {start.partition} was to be read up to {end}, and has nothing"
                    f" behind {position.entry}"
                )
            position = position_of(start.partition, entries[-1])
            over = position.order >= last.order
            if over:
                yield _cut(entries, last=last)
                return
            count = next_count(entries, count)
            reading = asyncio.create_task(events.entries_after(position, count, BEHIND_WAIT_MS))
            await asyncio.sleep(0)  # lets the request out
            yield entries
    finally:
        reading.cancel()
        await asyncio.wait([reading])


def position_of(partition: int, entry: Entry) -> Position:
    """Where an entry lies."""
    return Position(partition, entry[0].decode())


def next_count(entries: Sequence[Entry], count: int) -> int:
    """How many entries to ask for, after `count` were asked for and these came."""
    # Of the payloads: the other fields are short, and READ_COUNT_MAX bounds those.
    size_bytes = sum([len(fields[DATA]) for _, fields in entries if len(fields) > DATA])
    fitting = READ_BYTES * len(entries) // (size_bytes + 1)
    return max(1, min(fitting, 2 * count, READ_COUNT_MAX))


def _cut(
    entries: Sequence[Entry], *, first: Position | None = None, last: Position | None = None
) -> Sequence[Entry]:
    """Those from `first` on, up to and with `last`."""
    if last is not None and entries[-1][0] == last.entry.encode():
        return entries
    return [
        entry
        for entry in entries
        if (first is None or position_of(first.partition, entry).order >= first.order)
        and (last is None or position_of(last.partition, entry).order <= last.order)
    ]
