"""What happens in the ledger, told to whoever waits in this process.

One reader per partition serves all listeners, however many there are. It starts with the first
listener and ends soon after the last one has left, so that nobody waiting costs nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Final, Protocol

import structlog

from ledger.events import TaskCanceled, TaskCompleted, TaskFailed
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Position, Recorded, Store

log = structlog.get_logger("live")

READ_COUNT: Final = 64
"""Events per read: with payloads and results of 1 MiB each, a read still fits in memory."""

READ_WAIT_MS: Final = 2_000
"""A reader looks this often whether anybody still listens."""

FINISHING: Final = frozenset(kind.__name__ for kind in (TaskCompleted, TaskFailed, TaskCanceled))


class LedgerWentBack(Exception):
    """The ledger ends before a position that it once gave out, or has another event there: its
    newest events were lost."""


class Listener(Protocol):
    """Told of events as they are read. Neither method may block or raise."""

    def heard(self, events: Sequence[Recorded]) -> None:
        """The next events of the partition, oldest first."""
        ...

    def failed(self, error: Exception) -> None:
        """The reader ended; nothing more is heard until the listener joins again."""
        ...


class Feed:
    """The events of one partition, for all listeners of this process."""

    def __init__(self, store: Store, partition: int) -> None:
        self._store = store
        self._partition = partition
        self._listeners: set[Listener] = set()
        self._reader: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self._position = self._began_at = Position(partition, "0-0")

    async def join(self, listener: Listener) -> Position:
        """Listen. Everything after the position returned is heard, or `failed` is called: what is
        loaded from then on cannot miss a change."""
        self._listeners.add(listener)
        if self._begun.is_set() and self._reader is not None:
            return self._position
        if self._reader is None:
            self._begun.clear()
            name = f"feed-{self._partition}"
            self._reader = asyncio.get_running_loop().create_task(self._read(), name=name)
        await self._begun.wait()
        return self._began_at

    def leave(self, listener: Listener) -> None:
        """Listen no longer. The reader ends by itself when nobody is left, within READ_WAIT_MS, and
        serves whoever joins before that."""
        self._listeners.discard(listener)

    async def close(self) -> None:
        """End the reader."""
        self._listeners.clear()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        # A reader that is cancelled before its first step does not tidy up after itself.
        self._reader = None
        self._begun.set()

    async def _read(self) -> None:
        try:
            self._position = self._began_at = await self._store.last_position(self._partition)
            last = await self._store.event_at(self._position)
            made = self._store.connections_made
            self._begun.set()
            while self._listeners:
                events = await self._store.events_after(self._position, READ_COUNT, READ_WAIT_MS)
                if self._store.connections_made != made:
                    made = self._store.connections_made
                    await self._check_still_there(last)
                if events:
                    last = events[-1]
                    self._position = events[-1].position
                    for listener in tuple(self._listeners):
                        listener.heard(events)
        except Exception as error:
            log.warning("feed_stopped", partition=self._partition, reason=str(error))
            failed, self._listeners = self._listeners, set()
            for listener in failed:
                listener.failed(error)
        finally:
            self._reader = None
            self._begun.set()

    async def _check_still_there(self, last: Recorded | None) -> None:
        """Another connection may lead to another server, without all that the last one had."""
        if last is None or await self._store.event_at(last.position) == last:
            return
        if not await self._store.is_erased(last.position):
            raise LedgerWentBack(f"the event at {last.position} is gone, or is another one now")


class Watch:
    """One caller's wait for the end of one task."""

    def __init__(self) -> None:
        self._signal = asyncio.Event()
        self._error: Exception | None = None
        self._over = False

    async def within(self, seconds: float) -> bool:
        """Wait until the task may have finished: True. False when time is up, or the service stops.

        Raises what made waiting impossible.
        """
        if seconds > 0 and not self._over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._signal.wait()
        if self._error is not None:
            raise self._error
        woken = self._signal.is_set() and not self._over
        self._signal.clear()
        return woken

    def wake(self) -> None:
        self._signal.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._signal.set()

    def end(self) -> None:
        self._over = True
        self._signal.set()


class Finishes:
    """Wakes those who wait for a task's end; a look-up per finishing event, however many wait."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}

    def add(self, task_id: str, watch: Watch) -> None:
        self._watches.setdefault(task_id, set()).add(watch)

    def remove(self, task_id: str, watch: Watch) -> None:
        watches = self._watches[task_id]
        watches.discard(watch)
        if not watches:
            del self._watches[task_id]

    def __bool__(self) -> bool:
        return bool(self._watches)

    def all(self) -> list[Watch]:
        return [watch for watches in self._watches.values() for watch in watches]

    def heard(self, events: Sequence[Recorded]) -> None:
        for event in events:
            if event.type in FINISHING:
                for watch in self._watches.get(event.task_id, ()):
                    watch.wake()

    def failed(self, error: Exception) -> None:
        if isinstance(error, LedgerWentBack):
            error = Rejection(RejectionCode.SERVICE_UNAVAILABLE, f"{error}; look again")
        for watch in self.all():
            watch.fail(error)


class Live:
    """The feeds of all partitions, and the waits for single tasks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.feeds = [Feed(store, partition) for partition in range(store.partitions)]
        self._finishes = [Finishes() for _ in self.feeds]
        self._closed = False

    @contextlib.asynccontextmanager
    async def watching(self, task_id: str) -> AsyncGenerator[Watch]:
        """A watch over the end of a task: load the task inside, then wait. An end that comes after
        the load wakes the watch."""
        partition = self._store.partition_of(task_id)
        feed, finishes = self.feeds[partition], self._finishes[partition]
        watch = Watch()
        finishes.add(task_id, watch)
        try:
            if self._closed:
                watch.end()
            else:
                await feed.join(finishes)
            yield watch
        finally:
            finishes.remove(task_id, watch)
            if not finishes:
                feed.leave(finishes)

    @property
    def waiting(self) -> int:
        """How many wait for single tasks."""
        return sum(len(finishes.all()) for finishes in self._finishes)

    async def close(self) -> None:
        """Let everybody who waits go with what there is, and end the readers."""
        self._closed = True
        for finishes in self._finishes:
            for watch in finishes.all():
                watch.end()
        for feed in self.feeds:
            await feed.close()
