"""From where a partition is sealed on, when an archiver opens its log."""

import structlog

from consumers.same_ledger import LedgerWentBack, Reached
from ledger.archive.writer import LogWriter
from ledger.redis_archive import Hold, Sealed
from ledger.subscriptions import BEGINNING, Checkpoint, Subscriptions, order_of

log = structlog.get_logger("archiver")


async def find_start(
    subscriptions: Subscriptions, partition: int, writer: LogWriter, hold: Hold
) -> Reached:
    """Where the log ends, and how many entries that are. Raises LedgerWentBack where events behind
    that are gone, and Rejection."""
    told = hold.sealed
    last = BEGINNING if writer.last is None else writer.last.position.entry
    if told.size == writer.size and order_of(told.entry) >= order_of(last):
        return Reached(told.entry, told.passed)
    if 0 < told.size < writer.size:
        # An archiver was killed after it had signed, and before it had told so.
        after_told = await subscriptions.count_after(partition, told.entry)
        passed = told.passed + after_told - await subscriptions.count_after(partition, last)
    elif last == BEGINNING:
        passed = 0
    else:
        ends = await subscriptions.ends(partition)
        passed = ends.added - await subscriptions.count_after(partition, last)
    return await _over_a_gap(subscriptions, partition, Reached(last, passed), told, hold.accepted)


async def _over_a_gap(
    subscriptions: Subscriptions, partition: int, reached: Reached, told: Sealed, accepted: str
) -> Reached:
    ends, entry = await subscriptions.ends(partition), reached.entry
    if not ends.lost_after(Checkpoint(entry, "", reached.passed)):
        return reached
    if told.size and accepted != entry:
        raise LedgerWentBack(
            f"events after {partition}:{entry}, where the archive ends, were taken away; they were"
            f" sealed once, up to {told.entry}: put the archive back that has them"
        )
    # Somebody trimmed a ledger that had no archive, or decided that it goes on.
    log.warning("archive_has_a_gap", partition=partition, first=ends.first)
    return Reached(entry, ends.removed)
