"""What a member remembers of a partition, to notice that the ledger is not what it was.

It is kept for as long as the member lives, not only while it holds the partition: a server that
lost its newest events has lost the newest checkpoints and leases with them.
"""

from typing import Final

from consumers.archive_reach import reaches
from consumers.subscription_errors import EventsGone, LedgerWentBack
from ledger.store import Events, Position, Recorded, Store
from ledger.subscriptions import Checkpoint, Ends, Subscriptions, order_of
from projections.read_model import digest

SEEK_HINT: Final = "`ledgerq subscriptions seek {} --to ...` says where to go on"


class Remembered:
    """The last event that was read, and of which ledger."""

    def __init__(
        self,
        store: Store,
        subscriptions: Subscriptions,
        partition: int,
        name: str,
        epoch: str,
        events: Events | None = None,
    ) -> None:
        """`name`: the group's. `epoch`: of the ledger that it was made on. `events`: with those
        of its archive."""
        self._store = store
        self._events = events
        self._subscriptions = subscriptions
        self._partition = partition
        self._name = name
        self._epoch = epoch
        self._made = -1
        self._last: Checkpoint | None = None

    def met(self, event: Recorded, passed: int) -> str:
        """It was read, as the partition's `passed`th entry; its digest."""
        told = digest(event).hex()
        self._last = Checkpoint(event.position.entry, told, passed)
        return told

    async def check_if_need_be(self, read: Checkpoint) -> None:
        """Another connection may lead to another server, without all that the last one had."""
        if self._store.connections_made != self._made:
            await self.check(read)

    async def check(self, read: Checkpoint) -> None:
        """Is it the same ledger, does it reach as far as was read, and is the last event still what
        it was? Raises LedgerWentBack, Rejection."""
        made = self._store.connections_made
        epoch = await self._store.epoch()
        if epoch != self._epoch:
            raise LedgerWentBack(
                self._says(f"this is another ledger now (epoch {epoch or 'none'})")
            )
        ends = await self._subscriptions.ends(self._partition)
        if read.order > order_of(ends.last):
            told = f"the ledger ends at {ends.last}, before {read.entry}"
            raise LedgerWentBack(self._says(told))
        for point in (read, self._last):
            if point is not None and point.digest:
                await self._check_event(point, ends)
        self._made = made

    async def _check_event(self, point: Checkpoint, ends: Ends) -> None:
        position = Position(self._partition, point.entry)
        event = await self._store.event_at(position)
        # Where it stood before the oldest one left it may never have been: a ledger that lost all
        # that it had in this partition, and grew again, begins behind it as well.
        if event is None and ends.removed >= point.passed:
            return  # trimmed
        is_same = event is not None and digest(event).hex() == point.digest
        if not is_same and not await self._store.is_erased(position):
            text = f"the event at {position} is gone, or is another one now"
            raise LedgerWentBack(self._says(text))

    async def is_missing(self, read: Checkpoint) -> bool:
        """Whether what follows is not in the stream any more, but in the archive. Raises EventsGone
        where it is in neither, Rejection."""
        ends = await self._subscriptions.ends(self._partition)
        if not ends.lost_after(read):
            return False
        position = Position(self._partition, read.entry)
        first = Position(self._partition, ends.first)
        if self._events is None or not await reaches(self._events, position, first):
            told = f"events after {read.entry} were taken away, the oldest one left is at"
            raise EventsGone(self._says(f"{told} {ends.first}"))
        return True

    def _says(self, what: str) -> str:
        hint = SEEK_HINT.format(self._name)
        return f"subscription {self._name}, partition {self._partition}: {what}; {hint}"
