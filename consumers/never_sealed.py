"""What a ledger has, and its archive has not, where the archive is further already.

So it is once a server has lost what was sealed and has gone on in its own way: sealing goes on
behind the archive's end, and what the ledger has before that would be trimmed some day, unsealed.
"""

import contextlib
from typing import Self

import msgspec

from consumers.stream_span import events_up_to
from ledger.archive.reader import SealedLog
from ledger.store import Events, Position, Recorded
from ledger.subscriptions import BEGINNING


class NeverSealed(msgspec.Struct, frozen=True):
    """How many events those are, and the first and last of them."""

    count: int = 0
    first: Position | None = None
    last: Position | None = None

    def and_at(self, position: Position) -> Self:
        """With one more."""
        return type(self)(self.count + 1, self.first or position, position)


async def never_sealed(events: Events, log: SealedLog) -> NeverSealed:
    """The events of a partition's stream that stand before the end of its log, and not in it.
    Raises Rejection, and as SealedLog's methods."""
    found = NeverSealed()
    if log.size == 0:
        return found
    end, index = (await log.leaf(log.size - 1)).position, -1
    start = Position(log.partition, BEGINNING)
    async with contextlib.aclosing(events_up_to(events, start, end.entry)) as reading:
        async for some in reading:
            for event in some:
                position = event.position
                if index < 0:
                    index = max(await log.index_after(position) - 1, 0)
                while (await log.leaf(index)).position.order < position.order:
                    index += 1
                if not await _is_sealed_at(log, index, event):
                    found = found.and_at(position)
    return found


async def _is_sealed_at(log: SealedLog, index: int, event: Recorded) -> bool:
    """Whether a leaf is of this event, whatever was erased of either."""
    leaf = await log.leaf(index)
    return leaf.recorded(event.data) == event
