"""The ledger told live to many: what each missed is read apart, then all hear one reader.

A `Broadcast` is what one partition's shared reader finds, each event made ready once and handed to
those who want it. A `Follower` brings one listener there from wherever it stood, without gap or
duplicate. `Broadcasts` are those of all partitions, for every feed of this process.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from api.event_filter import EventFilter
from api.followers import Followers
from api.live import Feed, LedgerWentBack, Live
from api.recent import Recent
from api.task_facts import Occurrence, TaskFacts
from api.task_states import States, TaskStates
from consumers.archive_reach import archive_away
from consumers.service import backoff_s
from ledger.archive.joined import Gap
from ledger.archive.reader import Damaged, Incomplete
from ledger.rejections import Rejection
from ledger.retention import TRIMMED_AGE_MS
from ledger.store import Events, Position, Recorded, Store

WAITING_EVENTS_MAX: Final = 4_096
"""Events read and not yet told, or held for one who still catches up; then the listener goes back
to reading for itself."""

CATCH_UP_READS_MAX: Final = 4
"""Reads of the past at once in one process: they must not slow down what is live."""

RECENT_EVENTS_AT_ONCE: Final = 512
"""Of those that are kept: half a millisecond's work where few of them are wanted."""

CATCH_UP_EVENTS_MAX: Final = 64
CATCH_UP_EVENTS_FIRST: Final = 8
CATCH_UP_BYTES: Final = 256 * 1024
"""About what one read should bring; an event may have a payload of 1 MiB, or of ten bytes."""

AT_ONCE_MS: Final = 1
"""A read of what is there already."""


class Overrun(Exception):
    """Events came faster than they could be made ready, or the listener wants others now."""


class Sink(Protocol):
    """Where a follower's events go."""

    wants_states: bool
    """Whether it must be known what an event made of its task (`Occurrence.state`)."""

    @property
    def wanted(self) -> EventFilter:
        """Which events; `Follower.wants_others` tells when that has changed."""
        ...

    async def room(self) -> None:
        """Return when there is room for some that can wait."""
        ...

    def take(self, occurrence: Occurrence) -> None:
        """The next wanted event of a partition."""
        ...


class Broadcast:
    """One partition, for everybody in this process who listens to what happens in it."""

    def __init__(self, feed: Feed, facts: TaskFacts, states: TaskStates, recent: Recent) -> None:
        self.recent = recent
        self.told_up_to = Position(0, "0-0")
        self.told_order = (0, 0)
        self._feed = feed
        self._facts = facts
        self._states = states
        self._known = States()
        self._followers: Followers[Follower] = Followers()
        self._joining = asyncio.Lock()
        self._listening = False
        self._error: Exception | None = None
        self._waiting: deque[Sequence[Recorded]] = deque()
        self._waiting_count = 0
        self._teller: asyncio.Task[None] | None = None

    async def join(self, follower: "Follower") -> tuple[int, int]:
        """Tell `follower` everything that it wants after the place returned, or that this ended.

        Raises as the shared reader when it cannot begin.
        """
        async with self._joining:
            if not self._listening:
                await self._listen()
            self._followers.add(follower, follower.wanted)
            self._tell_soon()
            return self.told_order

    def reaches(self, order: tuple[int, int]) -> bool:
        """Whether whoever stands there can join, and needs no other reads than from memory."""
        return self._listening and (order >= self.told_order or self.recent.reaches(order))

    def leave(self, follower: "Follower") -> None:
        """Tell it no longer."""
        self._followers.discard(follower)
        if self._followers:
            return
        if self._listening:
            self._feed.leave(self)
        self._stop()

    def heard(self, events: Sequence[Recorded]) -> None:
        self._waiting.append(events)
        self._waiting_count += len(events)
        if self._waiting_count > WAITING_EVENTS_MAX:
            self._feed.leave(self)
            self.failed(Overrun())
        elif self._listening:
            self._tell_soon()

    def failed(self, error: Exception) -> None:
        self._error = error
        followers, self._followers = self._followers, Followers()
        self._stop()
        for follower in followers:
            follower.ended(error)

    async def _listen(self) -> None:
        self._error = None
        try:
            began_at = await self._feed.join(self)
        except BaseException:
            self._feed.leave(self)
            self._stop()
            raise
        if self._error is not None:
            raise self._error
        self.told_up_to, self.told_order = began_at, began_at.order
        self._listening = True

    def _stop(self) -> None:
        self._listening = False
        self._waiting.clear()
        self._waiting_count = 0
        self._known.clear()
        self.recent.clear()
        if self._teller is not None:
            self._teller.cancel()
            self._teller = None

    def _tell_soon(self) -> None:
        if self._waiting and self._teller is None:
            self._teller = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        try:
            while self._waiting:
                events = self._waiting.popleft()
                occurrences = await self._facts.occurrences(events)
                # Others may begin to listen meanwhile, and want what nobody did before.
                while bare := [one for one in occurrences if self._is_bare(one)]:
                    await self._states.fill(bare, self._known)
                self._waiting_count -= len(events)
                self._hand_out(occurrences)
            self._teller = None
        except Exception as error:
            self._teller = None
            self._feed.leave(self)
            self.failed(error)

    def _is_bare(self, occurrence: Occurrence) -> bool:
        """Whether its state is wanted and not there yet."""
        return not occurrence.has_state and any(
            follower.wants_states for follower in self._followers.of(occurrence)
        )

    def _hand_out(self, occurrences: Sequence[Occurrence]) -> None:
        self.recent.add(self.told_order, occurrences)
        for occurrence in occurrences:
            # Whoever asks where it stands is told all before this one.
            self.told_up_to, self.told_order = occurrence.position, occurrence.order
            for follower in self._followers.of(occurrence):
                follower.heard(occurrence)

    def want_others(self, follower: "Follower") -> None:
        """The follower wants other events from now on."""
        if follower in self._followers:
            self._followers.add(follower, follower.wanted)


class Broadcasts:
    """Those of all partitions."""

    def __init__(self, store: Store, live: Live, events: Events | None = None) -> None:
        """`events`: where old ones are read, if the store may not have them any more."""
        self._store = store
        self._events: Events = store if events is None else events
        self._facts = TaskFacts(store)
        self._states = TaskStates(store)
        self._reads = asyncio.Semaphore(CATCH_UP_READS_MAX)
        self._of = [
            Broadcast(feed, self._facts, self._states, Recent(len(live.feeds)))
            for feed in live.feeds
        ]

    def follower(self, position: Position, sink: Sink) -> "Follower":
        """One that brings `sink` what it wants after `position`, once it runs."""
        broadcast = self._of[position.partition]
        return Follower(
            self._store,
            self._events,
            broadcast,
            self._facts,
            self._states,
            self._reads,
            position,
            sink,
        )


class Follower:
    """One listener's way through one partition, from `position` on."""

    def __init__(
        self,
        store: Store,
        events: Events,
        broadcast: Broadcast,
        facts: TaskFacts,
        states: TaskStates,
        reads: asyncio.Semaphore,
        position: Position,
        sink: Sink,
    ) -> None:
        self._store = store
        self._events = events
        self._broadcast = broadcast
        self._facts = facts
        self._states = states
        self._known = States()
        self._reads = reads
        self._position = position
        self._order = position.order
        self._sink = sink
        self._count = CATCH_UP_EVENTS_FIRST
        self._held: deque[Occurrence] = deque()
        self._at_end = False
        self._is_live = False
        self._end: asyncio.Future[None] | None = None

    @property
    def position(self) -> Position:
        """Up to where the listener was told everything that it wants."""
        broadcast = self._broadcast
        if self._is_live and broadcast.told_order > self._order:
            return broadcast.told_up_to
        return self._position

    @property
    def wanted(self) -> EventFilter:
        return self._sink.wanted

    @property
    def wants_states(self) -> bool:
        return self._sink.wants_states

    async def run(self) -> None:
        """Pass events on for ever; while the ledger is out of reach, try again and again.

        Raises LedgerWentBack, and what is no outage.
        """
        failures = 0
        try:
            while True:
                try:
                    if failures:
                        await self._check_end()
                    if not self._broadcast.reaches(self._order):
                        await self._read_to_the_end()
                    failures = 0
                    await self._listen()
                except Overrun:
                    continue
                except Rejection as rejection:
                    if not rejection.retryable:
                        raise
                    failures += 1
                    await asyncio.sleep(backoff_s(failures))
        finally:
            self._broadcast.leave(self)

    def wants_others(self) -> None:
        """The sink wants other events from now on."""
        if self._is_live:
            self._broadcast.want_others(self)
        elif self._end is not None:
            # What is held is what was wanted: read on from before it.
            self._broadcast.leave(self)
            self.ended(Overrun())

    def heard(self, occurrence: Occurrence) -> None:
        """From the broadcast."""
        if self._is_live:
            self._pass_on(occurrence)
            return
        self._held.append(occurrence)
        if len(self._held) > WAITING_EVENTS_MAX:
            self._broadcast.leave(self)
            self.ended(Overrun())

    def ended(self, error: Exception) -> None:
        """The broadcast tells no more."""
        self._settle()
        if self._end is not None and not self._end.done():
            self._end.set_exception(error)

    def _settle(self) -> None:
        """From now on the broadcast goes its own way."""
        self._position = self.position
        self._order = self._position.order
        self._is_live = False

    async def _listen(self) -> None:
        """Join the broadcast, read what it told before, and pass on what it tells. Raises what ends
        that."""
        self._held.clear()
        self._end = asyncio.get_running_loop().create_future()
        try:
            told_up_to = await self._broadcast.join(self)
            while self._order < told_up_to and not self._end.done():
                if not await self._read_on():
                    break  # what stood there was taken away
            while self._held and not self._end.done():
                await self._pass_on_the_past([self._held.popleft()])
            if not self._end.done():
                self._known.clear()
                self._is_live = True
            await self._end
        finally:
            if self._is_live:
                self._settle()
            self._broadcast.leave(self)
            if self._end.done() and not self._end.cancelled():
                self._end.exception()
            self._end = None

    async def _read_to_the_end(self) -> None:
        self._at_end = False
        while not self._at_end:
            await self._read_on()

    async def _read_on(self) -> int:
        """Read the next events apart from the others; how many there were."""
        await self._sink.room()
        occurrences = self._broadcast.recent.after(self._order, RECENT_EVENTS_AT_ONCE)
        if not occurrences:
            async with self._reads:
                occurrences = await self._read()
        await self._pass_on_the_past(occurrences)
        return len(occurrences)

    async def _read(self) -> Sequence[Occurrence]:
        order = self._order
        events = await self._young_events()
        if events is None:
            events = await self._old_events()
            # Of the archive, a read brings fewer than it could.
            self._at_end = not events
        else:
            self._at_end = len(events) < self._count
        occurrences = await self._facts.occurrences(events)
        if events:
            size = sum(len(event.data) for event in events) // len(events)
            self._count = max(1, min(CATCH_UP_EVENTS_MAX, CATCH_UP_BYTES // max(size, 1)))
            self._broadcast.recent.add(order, occurrences)
        return occurrences

    async def _young_events(self) -> Sequence[Recorded] | None:
        """What the stream has; None where some of it may be gone from there."""
        if self._order[0] < self._store.now_ms() - TRIMMED_AGE_MS:
            return None
        events = await self._store.events_after(self._position, self._count, AT_ONCE_MS)
        # What left the stream looks young as well, if the server's clock was set back since.
        extent = await self._store.extent(self._position.partition)
        return None if self._order < extent.first.order else events

    async def _old_events(self) -> Sequence[Recorded]:
        try:
            return await self._events.events_after(self._position, self._count, AT_ONCE_MS)
        except Gap as gap:
            raise LedgerWentBack(str(gap)) from gap
        except (Incomplete, Damaged) as error:
            raise archive_away(error) from error

    async def _pass_on_the_past(self, occurrences: Sequence[Occurrence]) -> None:
        """No faster than the listener takes them."""
        sink = self._sink
        await self._fill([one for one in occurrences if sink.wanted.matches(one)])
        for occurrence in occurrences:
            if sink.wanted.matches(occurrence):
                await sink.room()
                # It may want more than when the others were filled.
                await self._fill([occurrence])
            self._pass_on(occurrence)

    async def _fill(self, occurrences: Sequence[Occurrence]) -> None:
        bare = [one for one in occurrences if not one.has_state]
        if bare and self._sink.wants_states:
            await self._states.fill(bare, self._known)

    def _pass_on(self, occurrence: Occurrence) -> None:
        if occurrence.order > self._order:
            self._position, self._order = occurrence.position, occurrence.order
            if self._sink.wanted.matches(occurrence):
                self._sink.take(occurrence)

    async def _check_end(self) -> None:
        """After an outage: a server that lost its newest events gives their positions out again."""
        extent = await self._store.extent(self._position.partition)
        if self._order > extent.last.order:
            raise LedgerWentBack(f"the ledger ends at {extent.last}, before {self._position}")
