"""Whether the ledger still has what went into the archive: asked before anything is signed, since a
ledger that lost its newest events, and went on without them, must not be sealed on."""

from typing import Final

import msgspec

from ledger.archive.writer import LogWriter
from ledger.store import Store
from ledger.subscriptions import Subscriptions, order_of

COUNT_MAX: Final = 10_000
"""Of so many entries, some come while they are counted."""


class LedgerWentBack(Exception):
    """The ledger has not got what was sealed, or lacks what was not: says which."""


class AnotherLedger(Exception):
    """The server holds another ledger by now, or none."""


class Reached(msgspec.Struct, frozen=True):
    """How far a partition was read."""

    entry: str
    """Everything up to it is sealed, or was added to what is sealed next."""
    passed: int
    """Entries up to there, whether they are still there or not."""


class SameLedger:
    """One partition of the ledger of an epoch."""

    def __init__(
        self, store: Store, subscriptions: Subscriptions, partition: int, epoch: str
    ) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._partition = partition
        self._epoch = epoch
        self._checked = -1

    async def check_if_need_be(self, writer: LogWriter, reached: Reached, accepted: str) -> None:
        """Another connection may lead to another server, without all that the last one had. Raises
        as `check`."""
        if self._store.connections_made != self._checked:
            await self.check(writer, reached, accepted)

    async def check(self, writer: LogWriter, reached: Reached, accepted: str) -> None:
        """Hold the last leaf against the event. `accepted`: behind this entry somebody decided that
        it goes on, whatever stands there. Raises LedgerWentBack, AnotherLedger, Rejection."""
        made = self._store.connections_made
        epoch = await self._store.epoch()
        if epoch != self._epoch:
            raise AnotherLedger(f"this is another ledger now (epoch {epoch or 'none'})")
        last = writer.last
        if last is not None and last.position.entry != accepted:
            ends = await self._subscriptions.ends(self._partition)
            if order_of(ends.last) < last.position.order:
                raise LedgerWentBack(
                    f"the ledger ends at {self._partition}:{ends.last}, before {last.position},"
                    " which is in the archive"
                )
            event = await self._store.event_at(last.position)
            # Of that leaf: others may have been added meanwhile.
            if event is None:
                is_well = await self._was_removed(reached)
            else:
                is_well = last.is_of(event)
            if not is_well:
                raise LedgerWentBack(
                    f"the event at {last.position}, which is in the archive, is gone from the"
                    " ledger, or is another one now"
                )
        self._checked = made

    async def _was_removed(self, reached: Reached) -> bool:
        """Whether there were as many entries up to the last one as there should have been: then it
        was there, and was taken away since. A ledger that went back has had fewer."""
        before = await self._subscriptions.ends(self._partition)
        if not before.removed:
            return False
        while True:
            behind = await self._subscriptions.count_after(self._partition, reached.entry)
            after = await self._subscriptions.ends(self._partition)
            if before.added == after.added or behind > COUNT_MAX:
                return before.added <= reached.passed + behind <= after.added
            before = after
