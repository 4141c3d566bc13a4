"""The ledger told live to many: what each missed is read apart, then all hear one reader.

A `Broadcast` is what one partition's shared reader finds, each event made ready once. A `Follower`
brings one listener there from wherever it stood, without gap or duplicate.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from api.live import Feed, LedgerWentBack
from api.task_facts import Occurrence, TaskFacts
from consumers.service import backoff_s
from ledger.rejections import Rejection
from ledger.store import Position, Recorded, Store

WAITING_EVENTS_MAX: Final = 4_096
"""Events read and not yet told, or held for one who still catches up; then the listener goes back
to reading for itself."""

CATCH_UP_READS_MAX: Final = 4
"""Reads of the past at once in one process: they must not slow down what is live."""

CATCH_UP_EVENTS_MAX: Final = 64
CATCH_UP_EVENTS_FIRST: Final = 8
CATCH_UP_BYTES: Final = 256 * 1024
"""About what one read should bring; an event may have a payload of 1 MiB, or of ten bytes."""

AT_ONCE_MS: Final = 1
"""A read of what is there already."""


class Overrun(Exception):
    """Events came faster than they could be made ready."""


class Sink(Protocol):
    """Where a follower's events go."""

    async def room(self) -> None:
        """Return when there is room for some that can wait."""
        ...

    def take(self, occurrences: Sequence[Occurrence]) -> None:
        """The next events of a partition, oldest first."""
        ...


class Broadcast:
    """One partition, for everybody in this process who listens to all that happens in it."""

    def __init__(self, feed: Feed, facts: TaskFacts) -> None:
        self._feed = feed
        self._facts = facts
        self._followers: set[Follower] = set()
        self._joining = asyncio.Lock()
        self._listening = False
        self._error: Exception | None = None
        self._told_up_to = Position(0, "0-0")
        self._waiting: deque[Sequence[Recorded]] = deque()
        self._waiting_count = 0
        self._teller: asyncio.Task[None] | None = None

    async def join(self, follower: "Follower") -> Position:
        """Tell `follower` everything after the position returned, or that this ended.

        Raises as the shared reader when it cannot begin.
        """
        async with self._joining:
            if not self._listening:
                await self._listen()
            self._followers.add(follower)
            self._tell_soon()
            return self._told_up_to

    def leave(self, follower: "Follower") -> None:
        """Tell it no longer."""
        self._followers.discard(follower)
        if self._listening and not self._followers:
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
        followers, self._followers = self._followers, set()
        self._stop()
        for follower in followers:
            follower.ended(error)

    async def _listen(self) -> None:
        self._error = None
        try:
            self._told_up_to = await self._feed.join(self)
        except BaseException:
            self._feed.leave(self)
            self._stop()
            raise
        if self._error is not None:
            raise self._error
        self._listening = True

    def _stop(self) -> None:
        self._listening = False
        self._waiting.clear()
        self._waiting_count = 0
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
                self._waiting_count -= len(events)
                self._told_up_to = occurrences[-1].position
                for follower in tuple(self._followers):
                    follower.heard(occurrences)
            self._teller = None
        except Exception as error:
            self._teller = None
            self._feed.leave(self)
            self.failed(error)


class Follower:
    """One listener's way through one partition, from `position` on."""

    def __init__(
        self,
        store: Store,
        broadcast: Broadcast,
        facts: TaskFacts,
        reads: asyncio.Semaphore,
        position: Position,
        sink: Sink,
    ) -> None:
        self._store = store
        self._broadcast = broadcast
        self._facts = facts
        self._reads = reads
        self._position = position
        self._order = position.order
        self._sink = sink
        self._count = CATCH_UP_EVENTS_FIRST
        self._held: list[Occurrence] | None = None
        self._end: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Pass events on for ever; while the ledger is out of reach, try again and again.

        Raises LedgerWentBack, and what is no outage.
        """
        failures = 0
        while True:
            try:
                if failures:
                    await self._check_end()
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

    def heard(self, occurrences: Sequence[Occurrence]) -> None:
        """From the broadcast."""
        if self._held is None:
            self._pass_on(occurrences)
            return
        self._held += occurrences
        if len(self._held) > WAITING_EVENTS_MAX:
            self._broadcast.leave(self)
            self.ended(Overrun())

    def ended(self, error: Exception) -> None:
        """The broadcast tells no more."""
        if self._end is not None and not self._end.done():
            self._end.set_exception(error)

    async def _listen(self) -> None:
        """Join the broadcast, read what it told before, and pass on what it tells. Raises what ends
        that."""
        self._held, self._end = [], asyncio.get_running_loop().create_future()
        try:
            told_up_to = (await self._broadcast.join(self)).order
            while self._order < told_up_to and not self._end.done():
                if not await self._read_on():
                    break  # what stood there was taken away
            if not self._end.done():
                held, self._held = self._held, None
                self._pass_on(held)
            await self._end
        finally:
            self._broadcast.leave(self)
            if self._end.done() and not self._end.cancelled():
                self._end.exception()

    async def _read_to_the_end(self) -> None:
        while True:
            asked = self._count
            if await self._read_on() < asked:
                return

    async def _read_on(self) -> int:
        """Read the next events apart from the others; how many there were."""
        await self._sink.room()
        async with self._reads:
            events = await self._store.events_after(self._position, self._count, AT_ONCE_MS)
            occurrences = await self._facts.occurrences(events)
        if events:
            size = sum(len(event.data) for event in events) // len(events)
            self._count = max(1, min(CATCH_UP_EVENTS_MAX, CATCH_UP_BYTES // max(size, 1)))
            self._pass_on(occurrences)
        return len(events)

    def _pass_on(self, occurrences: Sequence[Occurrence]) -> None:
        fresh = [one for one in occurrences if one.order > self._order]
        if fresh:
            self._position, self._order = fresh[-1].position, fresh[-1].order
            self._sink.take(fresh)

    async def _check_end(self) -> None:
        """After an outage: a server that lost its newest events gives their positions out again."""
        extent = await self._store.extent(self._position.partition)
        if self._order > extent.last.order:
            raise LedgerWentBack(f"the ledger ends at {extent.last}, before {self._position}")
