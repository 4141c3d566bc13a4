"""Joining the shared reader: whatever happens in between is told, and told once."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest

from api import broadcast, recent
from api.broadcast import AT_ONCE_MS, Broadcasts, Follower
from api.event_filter import EventFilter
from api.live import LedgerWentBack, Live
from api.task_facts import Occurrence
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Extent, Position, Recorded
from tests.contracts.store import submit

PATIENCE_S = 20
BEGINNING = Position(0, "0-0")

Interference = Callable[[], Awaitable[None]]


async def nothing() -> None:
    """What usually happens meanwhile."""


class WatchedStore(RedisStore):
    """Lets a test act before and after chosen reads of who catches up. The shared reader's reads
    are those that wait: `shared` is set by the first. `over` is set once the last chosen one was
    made."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.before: dict[int, Interference] = {}
        self.after: dict[int, Interference] = {}
        self.reads = 0
        self.over = asyncio.Event()
        self.shared = asyncio.Event()

    async def events_after(self, position: Position, count: int, wait_ms: int) -> list[Recorded]:
        if wait_ms != AT_ONCE_MS:
            self.shared.set()
            return await super().events_after(position, count, wait_ms)
        self.reads += 1
        number = self.reads
        await self.before.get(number, nothing)()
        events = await super().events_after(position, count, wait_ms)
        await self.after.get(number, nothing)()
        if number == max((*self.before, *self.after), default=0):
            self.over.set()
        return events


class Heard:
    """Takes all, and remembers it."""

    wants_states: bool = False
    wanted = EventFilter()

    def __init__(self) -> None:
        self.positions: list[Position] = []
        self._more = asyncio.Event()

    async def room(self) -> None:
        return

    def take(self, occurrence: Occurrence) -> None:
        self.positions.append(occurrence.position)
        self._more.set()

    async def until(self, position: Position) -> list[Position]:
        """All that was heard, once that was."""
        async with asyncio.timeout(PATIENCE_S):
            while position not in self.positions:
                self._more.clear()
                await self._more.wait()
        return self.positions


class Listeners:
    """Followers of one broadcast, and one that hears it live already."""

    def __init__(self, store: WatchedStore) -> None:
        self._store = store
        self.live = Live(store)
        self._broadcasts = Broadcasts(store, self.live)
        self.early = Heard()

    def follower(self, position: Position, heard: Heard) -> Follower:
        return self._broadcasts.follower(position, heard)

    @contextlib.asynccontextmanager
    async def following(self, heard: Heard, position: Position = BEGINNING) -> AsyncGenerator[None]:
        running = asyncio.create_task(self.follower(position, heard).run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def happens(self) -> None:
        """Something happens, and is told to who listens already."""
        await submit(self._store)
        await self.early.until(await self._store.last_position(0))


@pytest.fixture
async def store(ledger_url: str) -> AsyncIterator[WatchedStore]:
    store = await WatchedStore.open(ledger_url)
    yield store
    await store.close()


@pytest.fixture
async def listeners(
    store: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Listeners]:
    # The past has to be read where none of it is kept.
    monkeypatch.setattr(recent, "RECENT_EVENTS_MAX", 0)
    await submit(store)
    listeners = Listeners(store)
    async with listeners.following(listeners.early):
        # What happens from now on needs none of its own reads.
        async with asyncio.timeout(PATIENCE_S):
            await store.shared.wait()
        await listeners.happens()
        store.reads = 0
        yield listeners
    await listeners.live.close()


async def everything(store: RedisStore) -> list[Position]:
    return [event.position for event in await store.events_after(BEGINNING, 1_000, 5)]


@pytest.mark.parametrize("read", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_happens_while_the_past_is_read_is_told_once(
    store: WatchedStore, listeners: Listeners, read: int, when: str
):
    # The second read is made after the follower has joined: what the first one found was not all.
    late = Heard()
    store.after[1] = listeners.happens
    getattr(store, when)[read] = listeners.happens

    async with listeners.following(late):
        async with asyncio.timeout(PATIENCE_S):
            await store.over.wait()
        await listeners.happens()
        heard = await late.until(await store.last_position(0))

    assert heard == await everything(store)


async def test_what_comes_too_fast_is_read_apart(
    store: WatchedStore, listeners: Listeners, monkeypatch: pytest.MonkeyPatch
):
    async def flood() -> None:
        for _ in range(5):
            await listeners.happens()

    late = Heard()
    store.after[1], store.after[2] = listeners.happens, flood
    monkeypatch.setattr(broadcast, "WAITING_EVENTS_MAX", 2)

    async with listeners.following(late):
        async with asyncio.timeout(PATIENCE_S):
            await store.over.wait()
        await listeners.happens()
        heard = await late.until(await store.last_position(0))

    assert heard == await everything(store)


async def test_a_ledger_that_lost_its_end_is_not_read_on(store: WatchedStore):
    class Shortened(WatchedStore):
        async def extent(self, partition: int) -> Extent:
            return Extent(BEGINNING, BEGINNING, 0)

    async def fails() -> None:
        raise Rejection(RejectionCode.SERVICE_UNAVAILABLE, "out of reach")

    await submit(store)
    store.__class__ = Shortened
    store.before[2] = fails
    listeners = Listeners(store)
    position = await store.last_position(0)
    store.reads = 1

    with pytest.raises(LedgerWentBack):
        async with asyncio.timeout(PATIENCE_S):
            await listeners.follower(position, Heard()).run()
