"""Where a subscription begins, or is to go on: from what a caller says to a checkpoint for each
partition."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from consumers.archive_reach import reaches
from ledger.archive.joined import Joined
from ledger.store import Position, Store, parse_positions
from ledger.subscriptions import (
    BEGINNING,
    Checkpoint,
    Subscriptions,
    entry_before,
    order_of,
)
from projections.read_model import digest

Start = str | datetime | Position
"""`beginning`, `now`, a position or several separated by commas, or a time (RFC 3339 as text)."""

START_EXPECTED: Final = (
    "'beginning', 'now', a position such as 0:1763811000123-0 (several separated by commas, one for"
    " each partition), or a time such as 2026-11-05T08:30:00Z"
)


async def checkpoints(
    store: Store, subscriptions: Subscriptions, start: Start, events: Joined | None = None
) -> tuple[Checkpoint, ...]:
    """A checkpoint for each partition. A partition that no position is named for begins now.
    `events` are those of the archive too.

    Raises ValueError for what is no start, for a position or time that is yet to come, and for one
    that some events after which are no longer there; Rejection.
    """
    entries = entries_of(start, store.partitions)
    partitions = range(store.partitions)
    return tuple(
        [await _checkpoint(store, subscriptions, p, entries.get(p), events) for p in partitions]
    )


def entries_of(start: Start, partitions: int) -> Mapping[int, str | datetime]:
    """By partition, the entry behind which to begin, or from when on; not there: now.

    Raises ValueError.
    """
    if isinstance(start, Position):
        start = str(start)
    if isinstance(start, datetime):
        return dict.fromkeys(range(partitions), _aware(start))
    match start:
        case "beginning":
            return dict.fromkeys(range(partitions), BEGINNING)
        case "now":
            return {}
        case _ if "T" in start or " " in start.strip():
            return dict.fromkeys(range(partitions), _time(start))
        case _:
            return {p: at.entry for p, at in _positions(start, partitions).items()}


def _positions(text: str, partitions: int) -> Mapping[int, Position]:
    try:
        return parse_positions(text, partitions)
    except ValueError as error:
        told = error if ":" in text else f"expected {START_EXPECTED}, got {text[:80]!r}"
        raise ValueError(f"start: {told}") from None


def _time(text: str) -> datetime:
    try:
        return _aware(datetime.fromisoformat(text))
    except ValueError:
        raise ValueError(f"start: expected {START_EXPECTED}, got {text[:80]!r}") from None


def _aware(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError("start: a time needs its zone, such as datetime.now(UTC) has")
    return time.astimezone(UTC)


async def _checkpoint(
    store: Store,
    subscriptions: Subscriptions,
    partition: int,
    begin: str | datetime | None,
    events: Joined | None,
) -> Checkpoint:
    ends = await subscriptions.ends(partition)
    first = Position(partition, ends.first)
    if begin == BEGINNING:
        beginning = Position(partition, BEGINNING)
        archived = ends.removed and events and await reaches(events, beginning, first)
        return Checkpoint(BEGINNING, "", 0 if archived else ends.removed)
    if isinstance(begin, datetime):
        if begin.timestamp() * 1_000 > store.now_ms() + 1_000:
            raise ValueError(f"start: {begin.isoformat()} is yet to come")
        # Entries are numbered by the server's clock.
        begin = entry_before(f"{max(0, int(begin.timestamp() * 1_000))}-0")
        begin = min(begin, ends.last, key=order_of)
    entry = ends.last if begin is None else begin
    if order_of(entry) > order_of(ends.last):
        raise ValueError(
            f"start: {Position(partition, entry)} is yet to come, the partition ends at {ends.last}"
        )
    # Up to there: more may have come since, which `ends` does not count.
    behind = await subscriptions.count_after(partition, entry, ends.last)
    event = await store.event_at(Position(partition, entry))
    told = "" if event is None else digest(event).hex()
    if not ends.removed or order_of(entry) >= order_of(entry_before(ends.first)):
        return Checkpoint(entry, told, ends.added - behind)
    position = Position(partition, entry)
    if events is None or not await reaches(events, position, first):
        raise ValueError(
            f"start: what came after {position} is no longer there; the oldest event is at {first}."
            " 'beginning' begins with that"
        )
    return Checkpoint(entry, told, await events.sealed_up_to(position))
