"""From where a partition is sealed on, when an archiver opens its log."""

import contextlib

import structlog

from consumers.same_ledger import LedgerWentBack, Reached
from consumers.stream_span import events_up_to
from ledger.archive.writer import LogWriter
from ledger.redis_archive import Hold, Sealed
from ledger.store import Events, Position
from ledger.subscriptions import BEGINNING, Checkpoint, Ends, Subscriptions, order_of

log = structlog.get_logger("archiver")


async def find_start(
    events: Events, subscriptions: Subscriptions, partition: int, writer: LogWriter, hold: Hold
) -> Reached:
    """Where the log ends, and how many entries that are. Raises LedgerWentBack where events behind
    that are gone, and Rejection."""
    told = hold.sealed
    last = BEGINNING if writer.last is None else writer.last.position.entry
    if told.size == writer.size and hold.accepted != last:
        if told.digest != writer.last_hash.hex():
            raise LedgerWentBack(
                f"the archive has {writer.size} events of partition {partition}, as many as were"
                f" sealed up to {told.entry}, but others: put the archive back that has those"
            )
        if order_of(told.entry) >= order_of(last):
            return Reached(told.entry, told.passed)
    ends = await subscriptions.ends(partition)
    behind = await subscriptions.count_after(partition, last, ends.last)
    # What was taken away counts as passed, wherever it stood.
    reached = Reached(last, ends.added - behind)
    if told.size > writer.size:
        is_lost = await is_some_lost(events, ends, Position(partition, last), writer.size, told)
    else:
        passed = reached.passed if last != BEGINNING else 0
        if told.size:
            # An archiver was killed after it had signed, and before it had told so.
            since = await subscriptions.count_after(partition, told.entry, last)
            passed = told.passed + since
        is_lost = ends.lost_after(Checkpoint(last, "", passed))
    if not is_lost:
        return reached
    if told.size and hold.accepted != last:
        raise LedgerWentBack(
            f"events after {partition}:{last}, where the archive ends, were taken away; they were"
            f" sealed once, up to {told.entry}: put the archive back that has them"
        )
    # Somebody trimmed a ledger that had no archive, or decided that it goes on.
    log.warning("archive_has_a_gap", partition=partition, first=ends.first)
    return reached


async def is_some_lost(events: Events, ends: Ends, last: Position, size: int, told: Sealed) -> bool:
    """Whether the ledger, which was told of more leaves, lacks events behind the end of a log of
    `size` of them, at `last`. How many were taken away does not say where they stood: so those are
    counted that are there. Raises Rejection."""
    if ends.lost_after(Checkpoint(told.entry, "", told.passed)):
        return True
    return await _events_between(events, last, told.entry) < told.size - size


async def _events_between(events: Events, start: Position, end: str) -> int:
    """Behind `start`, up to and with `end`; not what others wrote, which has no leaves."""
    async with contextlib.aclosing(events_up_to(events, start, end)) as reading:
        return sum([len(some) async for some in reading])
