"""Whether who stands before the stream's beginning can go on in the archive."""

from ledger.archive.joined import Gap
from ledger.archive.reader import Damaged, Incomplete
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Events, Position
from ledger.subscriptions import entry_before


async def reaches(events: Events, position: Position, first: Position) -> bool:
    """Whether `events` have all that came after a position, up to `first`, the first one of the
    stream. Raises Rejection, also for an archive that cannot be read."""
    try:
        found = await events.events_after(position, 1, 1)
        if not found or found[0].position.order > first.order:
            return False
        if found[0].position != first or position.entry == entry_before(first.entry):
            return True
        # Nothing lies between them: was it there, or was that taken away?
        return await events.event_at(position) is not None
    except Gap:
        return False
    except (Incomplete, Damaged) as error:
        raise archive_away(error) from error


def archive_away(error: Incomplete | Damaged) -> Rejection:
    """What is said where somebody could read on if the archive were whole."""
    return Rejection(RejectionCode.SERVICE_UNAVAILABLE, f"the archive cannot be read: {error}")
