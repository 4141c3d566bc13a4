"""One partition, read by one member of a subscription for as long as it holds the lease.

Events are read ahead within bounds, and given out in order. The checkpoint follows what was
acknowledged; it is written when it moves, and with each renewal of the lease.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from consumers.archive_reach import archive_away
from consumers.known_tasks import KnownTasks
from consumers.remembered import Remembered
from consumers.service import through_outages
from consumers.subscribed_event import SubscribedEvent, Wanted
from consumers.subscription_errors import (
    AckRefused,
    SubscriptionHalted,
)
from ledger.acks import Acks
from ledger.archive.reader import Damaged, Incomplete
from ledger.codec import Meta, Undecodable
from ledger.events import TaskSubmitted
from ledger.foreign import ForeignEntries
from ledger.redis_calls import ForeignKey
from ledger.rejections import Rejection
from ledger.retention import TRIMMED_AGE_MS
from ledger.script_format import read_events
from ledger.store import Entry, Events, Position, Recorded, Store
from ledger.subscriptions import (
    HALT_CHARACTERS_MAX,
    Checkpoint,
    Held,
    Subscriptions,
)
from ledger.system.commands import RecordSubscriptionHalted
from ledger.system.transact import transact_system
from projections.catch_up import READ_BYTES, next_count

log = structlog.get_logger("subscription")

META: Final = Meta(actor="subscriber")

READ_COUNT_FIRST: Final = 16
READ_WAIT_MS: Final = 2_000
"""A read waits so long for events; the next one follows at once."""


class Terms(msgspec.Struct, frozen=True):
    """What a member reads for, and its bounds."""

    name: str
    tag: str
    lease_ms: int
    unacked_max: int


class SubscribedPartition:
    """`run` until cancelled or lost; `take` what was read; `keep` it with each beat."""

    def __init__(
        self,
        store: Store,
        subscriptions: Subscriptions,
        partition: int,
        held: Held,
        terms: Terms,
        wanted: Wanted,
        known: KnownTasks,
        foreign: ForeignEntries,
        remembered: Remembered,
        wake: Callable[[], None],
        events: Events | None = None,
    ) -> None:
        """`wake` is called when there may be something to take; `events` are those of the archive
        too."""
        self._events = events
        self.partition = partition
        self._store = store
        self._subscriptions = subscriptions
        self._generation = held.generation
        self._terms = terms
        self._wanted = wanted
        self._known = known
        self._foreign = foreign
        self._remembered = remembered
        self._wake = wake
        self._acks = Acks(held.checkpoint)
        self._saved = held.checkpoint
        self._read = held.checkpoint
        """How far it is read; its digest is that of the last event, if need be an earlier one's."""
        self._is_behind = False
        """What follows has left the stream, or had at the last look."""
        self._count = READ_COUNT_FIRST
        self._buffer: deque[SubscribedEvent] = deque()
        self._buffered_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._all_acknowledged = asyncio.Event()
        self._saving = asyncio.Lock()
        self._held_until_s = asyncio.get_running_loop().time() + terms.lease_ms / 1_000
        self.lost = False
        """Another member has it, or may have it any moment."""
        self.leaving = False
        """It is being handed over."""

    # -- reading ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read on, waiting for more where it ends. Raises SubscriptionHalted."""
        try:
            await through_outages(self._check)
            while True:
                await self._room.wait()
                await through_outages(self._read_on)
        except SubscriptionHalted as halted:
            await self._halt(halted)
            raise

    async def _check(self) -> None:
        await self._remembered.check(self._read)
        self._is_behind = await self._remembered.is_missing(self._read)

    async def _read_on(self) -> None:
        count = max(1, min(self._count, self._terms.unacked_max - self._acks.open))
        position = Position(self.partition, self._read.entry)
        entries = await self._store.entries_after(position, count, READ_WAIT_MS)
        await self._remembered.check_if_need_be(self._read)
        if entries:
            # Not by how old the entries are: what was between may be gone, and these be new.
            at_ms, _ = self._read.order
            if self._is_behind or at_ms < self._store.now_ms() - TRIMMED_AGE_MS:
                self._is_behind = await self._remembered.is_missing(self._read)
            if self._is_behind:
                entries = await self._archived_after(position, count)
            self._count = next_count(entries, self._count)
            await self._take(entries)

    async def _archived_after(self, position: Position, count: int) -> Sequence[Entry]:
        """What has left the stream, or will soon."""
        assert self._events is not None  # noqa: S101 - it has what is missing
        try:
            return await self._events.entries_after(position, count, READ_WAIT_MS)
        except (Incomplete, Damaged) as error:
            raise archive_away(error) from error

    async def _take(self, entries: Sequence[Entry]) -> None:
        wanted = await self._wanted_of(entries)
        passing: tuple[Recorded, int] | None = None
        for name, (event, occurrence) in wanted.items():
            self._read = Checkpoint(name, "", self._read.passed + 1)
            if occurrence is None:
                passing = (event, self._read.passed) if event is not None else passing
                continue
            passing = None
            self._met(occurrence.recorded, self._read.passed)
            self._acks.read(self._read)
            self._buffer.append(occurrence)
            self._buffered_bytes += len(occurrence.recorded.data)
        if passing is not None:
            self._met(*passing)
        if not self._buffer or self._buffer[-1].position.entry != self._read.entry:
            self._acks.passed_over(self._read)
        self._make_room()
        self._wake()

    async def _wanted_of(
        self, entries: Sequence[Entry]
    ) -> dict[str, tuple[Recorded | None, SubscribedEvent | None]]:
        """By entry: the event there, unless it is a foreign one; and again if it is wanted."""
        events, foreign = read_events(self.partition, entries)
        for stranger in foreign:
            self._foreign.met(stranger)
        # What is submitted tells what later events are of, wanted or not.
        submitted = TaskSubmitted.__name__
        asked = [e for e in events if e.type == submitted or self._wanted.may_be(e)]
        known = dict(zip(asked, await self._known.facts(asked), strict=True))
        found: dict[str, tuple[Recorded | None, SubscribedEvent | None]]
        found = {entry.decode(): (None, None) for entry, _ in entries}
        for event in events:
            facts = known.get(event)
            is_wanted = self._wanted.may_be(event) and self._wanted.is_of(facts)
            occurrence = SubscribedEvent(event, facts, self.ack) if is_wanted else None
            found[event.position.entry] = event, occurrence
        return found

    def _met(self, event: Recorded, passed: int) -> None:
        """The last event so far."""
        told = self._remembered.met(event, passed)
        if event.position.entry == self._read.entry:
            self._read = Checkpoint(self._read.entry, told, self._read.passed)

    async def _halt(self, halted: SubscriptionHalted) -> None:
        log.error("subscription_halted", group=self._terms.name, reason=str(halted))
        try:
            await self._subscriptions.halt(
                self.partition, self._terms.tag, self._generation, str(halted)
            )
            reason = str(halted)[:HALT_CHARACTERS_MAX]
            command = RecordSubscriptionHalted(self._terms.name, self.partition, reason)
            await transact_system(self._store, command, META)
        except (Rejection, ForeignKey, Undecodable) as error:
            log.warning("subscription_halt_unrecorded", reason=str(error))

    # -- giving out ---------------------------------------------------------------------------

    def take(self) -> SubscribedEvent | None:
        """The next event, when there is one and the lease lasts."""
        if not self._buffer or self.lost or self.leaving:
            return None
        if asyncio.get_running_loop().time() >= self._held_until_s:
            return None  # in doubt: an outage, or this process stood still
        event = self._buffer.popleft()
        self._buffered_bytes -= len(event.recorded.data)
        self._acks.gave(event.position.entry)
        self._make_room()
        return event

    @property
    def waits_for_acks(self) -> bool:
        """Nothing more is given out until something is acknowledged."""
        return not self._buffer and self._acks.open >= self._terms.unacked_max

    def _make_room(self) -> None:
        if not self._acks.open:
            self._all_acknowledged.set()
        else:
            self._all_acknowledged.clear()
        if self._acks.open < self._terms.unacked_max and self._buffered_bytes < READ_BYTES:
            self._room.set()
        else:
            self._room.clear()

    # -- acknowledging ------------------------------------------------------------------------

    async def ack(self, position: Position) -> None:
        """The event at `position` is done. Raises AckRefused."""
        self._check_held(position)
        self._acks.ack(position.entry)
        await self._save(position)

    async def ack_up_to(self, position: Position) -> None:
        """All that were given out, up to and with the one at `position`. Raises AckRefused."""
        self._check_held(position)
        self._acks.ack_up_to(position.entry)
        await self._save(position)

    def _check_held(self, position: Position) -> None:
        if self.lost:
            raise AckRefused(position)

    async def _save(self, position: Position) -> None:
        """Write the checkpoint, if it has moved: several at once in one call."""
        self._make_room()
        reached = self._acks.checkpoint.order
        while self._saved.order < reached:
            self._check_held(position)
            await through_outages(lambda: self._save_once(reached))

    async def _save_once(self, reached: tuple[int, int]) -> None:
        async with self._saving:
            if self._saved.order < reached and not self.lost:
                await self._keep(self._terms.lease_ms)

    # -- the lease ----------------------------------------------------------------------------

    async def keep(self) -> None:
        """Renew the lease, and write the checkpoint if it has moved. Raises Rejection."""
        async with self._saving:
            if not self.lost:
                await self._keep(self._terms.lease_ms)

    async def _keep(self, lease_ms: int) -> None:
        point, sent_s = self._acks.checkpoint, asyncio.get_running_loop().time()
        moved = point if point is not self._saved else None
        kept = await self._subscriptions.keep(
            self.partition, self._terms.tag, self._generation, lease_ms, moved
        )
        if not kept:
            self.lose()
            return
        self._saved = point
        # By now, not when it was sent: `take` may have been in doubt while the answer was out.
        was_in_doubt = asyncio.get_running_loop().time() >= self._held_until_s
        self._held_until_s = sent_s + lease_ms / 1_000
        if was_in_doubt:
            self._wake()

    def lose(self) -> None:
        """It is not this member's any more."""
        if not self.lost:
            self.lost = True
            self._buffer.clear()
            self._all_acknowledged.set()
            self._wake()

    async def hand_over(self, patience_s: float) -> None:
        """Give out nothing more, wait so long for what was given out, and let others have it."""
        self.leaving = True
        self._buffer.clear()
        self._acks.withdraw()
        self._make_room()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._all_acknowledged.wait()
        await through_outages(self.release)

    async def release(self) -> None:
        """Let others have it at once. Raises Rejection."""
        async with self._saving:
            if not self.lost:
                await self._keep(0)
                self.lose()
