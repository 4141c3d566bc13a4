"""Carries out, in the archive and in the stream of a partition, the erasures that were decided on.

That a task is erased is an event. From the moment it is written, nobody is told any more what the
task was about; what the archive and the stream still have of it is removed here, once the event is
sealed, by whoever seals the partition. Up to which event that is done stands in the ledger, so what
an archiver was killed in is taken up by the next one.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from consumers.subscription_status import trim_bounds
from ledger.archive.eraser import CannotErase, Eraser, erasures_in
from ledger.archive.reader import Archive, Damaged, Incomplete, SealedLog
from ledger.archive.tiles import TILE_WIDTH
from ledger.archive.writer import LostFence
from ledger.objects import ObjectStoreError
from ledger.redis_retention import RedisRetention
from ledger.store import Position
from ledger.subscriptions import Subscriptions

log = structlog.get_logger("archiver")

BUNDLES_AT_ONCE: Final = 64
"""Looked through for erasures in one step."""

ENTRIES_AT_ONCE: Final = 500

AGAIN_S: Final = 5.0
"""Between tries, where something is in the way."""

PUT_OFF_S: Final = 3_600.0
"""Until what could not be carried out is tried once more, as it is when the lease is taken anew."""

CANNOT: Final = (Damaged, Incomplete, CannotErase)
"""What stays so until somebody mends it."""

TELL_S: Final = 60.0
"""The ledger is told no more often how far there was nothing to erase. An archiver that begins
looks from there on."""

PUT_OFF_MAX: Final = 1_000
"""Erasures that are remembered as not to be carried out; with more, none is any further."""


class Erasing:
    """Of one partition. `step` after what was added is sealed."""

    def __init__(
        self,
        retention: RedisRetention,
        subscriptions: Subscriptions,
        archive: Archive,
        partition: int,
        hold_ms: int,
    ) -> None:
        """`hold_ms`: it waits no longer for a subscription that has not come to the events yet."""
        self._retention = retention
        self._subscriptions = subscriptions
        self._archive = archive
        self._partition = partition
        self._hold_ms = hold_ms
        self._looked: int | None = None
        """Leaves that were looked at; None: not known since the lease was taken."""
        self._put_off: list[int] = []
        """Leaves at which something could not be carried out, in their order."""
        self._try_again_s = 0.0
        self._tell_s = 0.0
        self._told = 0
        self._failing = False
        self._again_s = 0.0
        self.met = False
        """Whether there is one among the events that were sealed since."""
        self.waits_for: tuple[str, ...] = ()
        """Subscriptions that hold up an erasure."""

    def forget(self) -> None:
        """The lease was lost, or is new."""
        self._looked = None
        self._put_off.clear()
        self._tell_s = self._again_s = 0.0
        self._told = 0

    async def step(self, generation: int, sealed: SealedLog | None) -> bool:
        """Look on in the log as its writer has it, and carry out what is found; whether the log's
        data was changed, so that whoever writes it has to open it anew. Raises LostFence,
        Rejection."""
        now_s = asyncio.get_running_loop().time()
        if self._put_off and now_s >= self._try_again_s:
            self.forget()
        if self.stuck and now_s < self._again_s:
            return False
        self._again_s = now_s + AGAIN_S
        try:
            changed = await self._step(generation, sealed)
        except (ObjectStoreError, *CANNOT) as error:
            if not self._failing:
                log.error("erasure_failed", partition=self._partition, reason=str(error))
            self._failing = True
            if isinstance(error, CANNOT):
                self._again_s = now_s + PUT_OFF_S
            return True
        self._failing = False
        return changed

    @property
    def done(self) -> bool:
        """Whether nothing is left to be done, as far as is known."""
        return self._looked is not None and not (self.met or self.stuck)

    @property
    def stuck(self) -> bool:
        """Whether what is left has to wait."""
        return self._failing or bool(self.waits_for)

    async def _step(self, generation: int, sealed: SealedLog | None) -> bool:
        if sealed is None:
            self._looked = 0
            return False
        if self._looked is None:
            reached = (await self._retention.archive_state(self._partition)).erased
            self._looked = await sealed.index_after(Position(self._partition, reached))
            self.met = True
        if not self.met:
            self._looked = sealed.size
            await self._tell(generation, sealed)
            return False
        changed = False
        for _ in range(BUNDLES_AT_ONCE):
            if self._looked >= sealed.size:
                self.met = False
                if not self._put_off:
                    await self._reached(generation, (await sealed.leaf(sealed.size - 1)).position)
                break
            end = min((self._looked // TILE_WIDTH + 1) * TILE_WIDTH, sealed.size)
            try:
                found = await erasures_in(sealed, self._looked)
            except CANNOT as error:
                self._put_off_until_later(self._looked, error)
                found = []
            for index in found:
                try:
                    if not await self._carry_out(generation, sealed, index):
                        return changed
                except CANNOT as error:
                    self._put_off_until_later(index, error)
                changed, self._looked = True, index + 1
            self._looked = end
        return changed

    async def _tell(self, generation: int, sealed: SealedLog) -> None:
        """Of what was sealed since, it is known that there is nothing to erase."""
        now_s = asyncio.get_running_loop().time()
        if sealed.size == self._told or self._put_off or now_s < self._tell_s:
            return
        await self._reached(generation, (await sealed.leaf(sealed.size - 1)).position)
        self._told, self._tell_s = sealed.size, now_s + TELL_S

    def _put_off_until_later(self, index: int, error: Exception) -> None:
        """Go on with the next: it must not keep others from being erased. The ledger is not told of
        any from this one on, so that the next archiver tries again. Raises the error when there are
        too many."""
        if len(self._put_off) >= PUT_OFF_MAX:
            raise error
        if not self._put_off:
            self._try_again_s = asyncio.get_running_loop().time() + PUT_OFF_S
        self._put_off.append(index)
        log.error(
            "erasure_put_off",
            partition=self._partition,
            leaf=index,
            reason=str(error),
            hint="ask `ledgerq verify` what is damaged, and put back a copy of it; or run the"
            " version of ledgerq that the task was erased with. It is tried again in an hour, and"
            " when the archiver starts",
        )

    async def _carry_out(self, generation: int, sealed: SealedLog, index: int) -> bool:
        """False while a subscription has yet to come to what is to be taken out."""

        async def may_change() -> None:
            # What another archiver does by now must not be undone.
            await self._take_out(generation, ())

        eraser = Eraser(self._archive.objects, self._archive.epoch, sealed, may_change)
        events = [leaf.position for _, leaf in await eraser.events_of(index)]
        if events and not await self._all_have_passed(events[-1]):
            return False
        await eraser.remove(index)
        for first in range(0, len(events), ENTRIES_AT_ONCE):
            await self._take_out(generation, events[first : first + ENTRIES_AT_ONCE])
        leaf = await sealed.leaf(index)
        if not self._put_off:
            await self._reached(generation, leaf.position)
        log.info("task_erased", task_id=leaf.task_id, events=len(events))
        return True

    async def _all_have_passed(self, last: Position) -> bool:
        bound = (await trim_bounds(self._subscriptions, self._hold_ms))[self._partition]
        passed = last.order < bound.up_to.order
        self.waits_for = () if passed else bound.held_by
        return passed

    async def _take_out(self, generation: int, events: Sequence[Position]) -> None:
        entries = [position.entry for position in events]
        if await self._retention.erase(self._partition, generation, entries) is None:
            raise LostFence

    async def _reached(self, generation: int, position: Position) -> None:
        if await self._retention.erase(self._partition, generation, (), position.entry) is None:
            raise LostFence
