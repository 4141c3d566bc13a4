"""The archive and the stream as one: every event that there ever was, each once.

What the stream has is read there, which is faster. Only what was sealed is ever taken out of it, so
the archive has what it has no longer. What neither has was lost, and that is said.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from typing import Final, NamedTuple, TypeVar

from ledger.archive.reader import Archive, Incomplete, SealedLog
from ledger.archive.tiles import TILE_WIDTH
from ledger.foreign import ForeignEntries, ForeignEntry
from ledger.identity import SYSTEM, is_task_id, partition_of
from ledger.objects import ObjectStoreError
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection, RejectionCode
from ledger.script_format import as_entry, read_events
from ledger.store import Entry, Extent, Position, Recorded, Store
from ledger.subscriptions import entry_before

Found = TypeVar("Found")

BEGINNING: Final = "0-0"
HISTORY_CHUNK: Final = 500

SCAN_COUNT_FIRST: Final = 100
SCAN_COUNT_MAX: Final = 4 * TILE_WIDTH
"""Of sealed ones, so many bundles are read side by side: one after the other, each would take a
trip to a bucket far away."""

SCAN_BYTES: Final = 4 * 1024 * 1024
"""Entries of a stream are asked for in such numbers that a read should bring no more than this. Of
an archive, a read ends with the bundle that has more."""


class Gap(Incomplete):
    """Events that are neither in the stream nor in the archive; says which."""

    def __init__(self, partition: int, what: str) -> None:
        self.name = f"partition {partition}"
        Exception.__init__(self, f"{self.name}: {what}")


class Joined:
    """All events of a ledger (`ledger.store.Events`), from its stream and its archive; or from the
    archive alone, up to where it was sealed. An archive of the epoch "" becomes that of the ledger,
    which it follows when there is another one.

    Every method may raise Rejection(SERVICE_UNAVAILABLE) where either is out of reach, Incomplete
    (above all Gap) and Damaged.
    """

    def __init__(self, store: Store | None, archive: Archive) -> None:
        self._store = store
        # Told once by a process, whichever way they are met.
        self._foreign = store.foreign if isinstance(store, RedisStore) else ForeignEntries()
        self._archive = archive
        self._whole_from: dict[int, Position] = {}
        """From where on a stream is whole, as far as is known: it has no less with time."""
        self._logs: dict[int, SealedLog | None] = {}
        self._next: dict[int, tuple[Position, int]] = {}
        """Where somebody reads a log: a position, and the leaf behind it."""

    @property
    def partitions(self) -> int:
        """How many the ledger has."""
        return self._archive.partitions

    async def epoch(self) -> str:
        """What tells this ledger from any other."""
        known = self._archive
        epoch = known.epoch if self._store is None else await self._store.epoch()
        if epoch and epoch != known.epoch:
            self._archive = Archive(known.objects, epoch, known.partitions)
            self._whole_from, self._logs, self._next = {}, {}, {}
        return epoch

    async def last_position(self, partition: int) -> Position:
        """The position of the last event; `0-0` when there is none."""
        if self._store is not None:
            last = await self._store.last_position(partition)
            if last.entry != BEGINNING:
                return last
        return await self._end_of(partition)

    async def count(self) -> int:
        """How many events there are, or somewhat more."""
        found = 0
        for partition in range(self.partitions):
            if self._store is not None:
                found += (await self._store.extent(partition)).added
            elif (log := await self._newest(partition)) is not None:
                found += log.size
        return found

    # -- in order -----------------------------------------------------------------------------

    async def entries_after(self, position: Position, count: int, wait_ms: int) -> list[Entry]:
        """As `Store.entries_after`. Of the archive, at most a bundle at once."""
        found = await self._after(position, count, wait_ms)
        return list(found.entries) or list(map(as_entry, found.sealed))

    async def events_after(self, position: Position, count: int, wait_ms: int) -> list[Recorded]:
        """As `Store.events_after`."""
        while (found := await self._after(position, count, wait_ms)).last is not None:
            events, foreign = found.sealed, list[ForeignEntry]()
            if found.entries:
                events, foreign = read_events(position.partition, found.entries)
            for stranger in foreign:
                self._foreign.met(stranger)
            if events:
                return events
            position = found.last
        return []

    async def scan(self, start: Position, end: Position) -> AsyncGenerator[list[Recorded]]:
        """The events behind `start`, up to and with `end`, as far as there are any now. The next
        ones are read while the last ones are worked on."""
        count, position = SCAN_COUNT_FIRST, start
        if start.order >= end.order:
            return
        reading = asyncio.create_task(self._after(position, count, 0))
        try:
            while (found := await reading).last is not None:
                position, events = found.last, found.events
                over = position.order >= end.order
                if not over:
                    count = _next_count(count, events)
                    reading = asyncio.create_task(self._after(position, count, 0))
                    await asyncio.sleep(0)  # lets the request out
                elif position != end:
                    events = [event for event in events if event.position.order <= end.order]
                if events:
                    yield events
                if over:
                    return
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    async def _after(self, position: Position, count: int, wait_ms: int) -> "_Piece":
        store, partition = self._store, position.partition
        if store is None:
            return _Piece(position.partition, await self._sealed_after(position, count))
        whole_from = self._whole_from.get(partition)
        if whole_from is None or position.order >= whole_from.order:
            entries = await store.entries_after(position, count, wait_ms)
            # Asked afterwards: it may have been trimmed just before.
            extent = await store.extent(partition)
            self._whole_from[partition] = extent.whole_from
            if position.order >= extent.whole_from.order:
                return _Piece(partition, [], entries)
        sealed = await self._sealed_after(position, count)
        if sealed:
            return _Piece(partition, sealed)
        await self._check_reached(store, position)
        return _Piece(partition, [], await store.entries_after(position, count, wait_ms))

    async def event_at(self, position: Position) -> Recorded | None:
        """The event at a position; None when none stands there."""
        if self._store is not None:
            event = await self._store.event_at(position)
            if event is not None:
                return event
            whole_from = (await self._store.extent(position.partition)).whole_from
            if position.order > whole_from.order:
                return None  # it was never there, or was lost: the archive must not hide that
        return await self._from_log(position.partition, lambda log: _event_at(log, position))

    async def sealed_up_to(self, position: Position) -> int:
        """How many events of the archive stand up to and at a position."""
        return await self._from_log(position.partition, lambda log: log.index_after(position)) or 0

    async def is_erased(self, position: Position) -> bool:
        """Whether an event stood there whose data was erased."""
        if self._store is not None and await self._store.is_erased(position):
            return True
        found = await self._from_log(position.partition, lambda log: _is_erased(log, position))
        return bool(found)

    async def _sealed_after(self, position: Position, count: int) -> list[Recorded]:
        """The next events in the archive; nothing where it ends."""

        async def some(log: SealedLog) -> list[Recorded]:
            known, index = self._next.get(log.partition, (None, 0))
            if known != position:
                index = await log.index_after(position)
            end = index + count
            if end // TILE_WIDTH > index // TILE_WIDTH:
                end -= end % TILE_WIDTH  # bundles are read whole
            end = min(end, log.size)
            if index >= end:
                return []
            found, size_bytes = list[Recorded](), 0
            async with contextlib.aclosing(log.events(index, end)) as reading:
                async for bundle in reading:
                    found += bundle
                    size_bytes += sum([len(event.data) for event in bundle])
                    if size_bytes > SCAN_BYTES:
                        break  # whatever came before, these are large
            self._next[log.partition] = found[-1].position, index + len(found)
            return found

        return await self._from_log(position.partition, some) or []

    async def _check_reached(self, store: Store, position: Position) -> None:
        """The archive ends: does the stream go on from there? Raises Gap."""
        partition = position.partition
        extent = await store.extent(partition)
        if position.order >= extent.first.order or await self._began_here(store, extent):
            return
        if position.entry == entry_before(extent.first.entry):
            # The stream may be empty, and the first one gone as well.
            found = await store.entries_after(position, 1, 0)
            if found and found[0][0].decode() == extent.first.entry:
                return
        end = await self._end_of(partition)
        raise Gap(
            partition,
            f"what came after {end.entry} and before {extent.first.entry} is neither in the stream"
            " nor in the archive",
        )

    async def _began_here(self, store: Store, extent: Extent) -> bool:
        """Whether nothing was ever sealed and trimmed: somebody took out entries by hand."""
        partition = extent.first.partition
        if extent.deleted is None or await self._newest(partition) is not None:
            return False
        oldest = await store.events_after(Position(partition, BEGINNING), 1, 0)
        return not oldest or not oldest[0].prev

    # -- one task -----------------------------------------------------------------------------

    async def history(self, task_id: str) -> list[Recorded]:
        """All events of a task (or of SYSTEM), oldest first; empty when there is no such task."""
        found: list[Recorded] = []
        start: Position | None = None
        while some := await self.history_back(task_id, start, HISTORY_CHUNK):
            found += some
            if not some[-1].prev:
                break
            start = Position(some[-1].position.partition, some[-1].prev)
        found.reverse()
        return found

    async def history_back(
        self, task_id: str, start: Position | None, count: int
    ) -> list[Recorded]:
        """As `Store.history_back`. Raises Gap where an event is gone that there was."""
        found: list[Recorded] = []
        if self._store is not None:
            found = await self._store.history_back(task_id, start, count)
            if len(found) == count or (found and not found[-1].prev):
                return found
        if found:
            start = Position(found[-1].position.partition, found[-1].prev)
        elif start is None and not (is_task_id(task_id) or task_id == SYSTEM):
            return []
        older = await self._sealed_back(task_id, start, count - len(found))
        if start is not None and not older and (found or self._store is None):
            raise Gap(
                start.partition,
                f"the event of {task_id} at {start.entry} is neither in the stream nor in the"
                " archive",
            )
        return [*found, *older]

    async def _sealed_back(
        self, task_id: str, start: Position | None, count: int
    ) -> list[Recorded]:
        """Of the archive; nothing where `start` is not in it."""

        async def some(log: SealedLog) -> list[Recorded]:
            end = log.size if start is None else await log.index_after(start)
            leaves = [leaf for leaf in await log.leaves_of(task_id) if leaf < end]
            if start is not None and (not leaves or (await log.leaf(leaves[-1])).position != start):
                return []
            return await log.events_of(leaves[-count:][::-1])

        if start is not None:
            homes = [start.partition]
        elif self._store is None:  # that there are more partitions may not be seen in an archive
            homes = list(range(self.partitions))
        else:
            homes = [partition_of(task_id, self.partitions)]
        for partition in homes:
            if start is None:  # what was sealed a moment ago must not be missed
                await self._newest(partition)
            if found := await self._from_log(partition, some):
                return found
        return []

    # -- logs ---------------------------------------------------------------------------------

    async def _from_log(
        self, partition: int, look: Callable[[SealedLog], Awaitable[Found]]
    ) -> Found | None:
        """What a look into the log finds: into the one that is known, and where it finds nothing
        there, or what it takes is gone, into the newest."""
        known = self._logs.get(partition)
        if known is not None:
            with contextlib.suppress(Incomplete), _outages():
                found = await look(known)
                if found:
                    return found
        newest = await self._newest(partition)
        if newest is None:
            return None
        with _outages():
            return await look(newest)

    async def _newest(self, partition: int) -> SealedLog | None:
        if not self._archive.epoch:
            await self.epoch()
        with _outages():
            log = self._logs[partition] = await self._archive.log(partition)
        return log

    async def _end_of(self, partition: int) -> Position:
        """The last event of the archive; `0-0` where it has none."""
        log = await self._newest(partition)
        if log is None or log.size == 0:
            return Position(partition, BEGINNING)
        if log.checkpoint.last:
            return Position(partition, log.checkpoint.last)
        with _outages():
            return (await log.leaf(log.size - 1)).position


class _Piece(NamedTuple):
    """The next events of a partition, out of its archive; or the next entries of its stream."""

    partition: int
    sealed: list[Recorded]
    entries: Sequence[Entry] = ()

    @property
    def events(self) -> list[Recorded]:
        return self.sealed or read_events(self.partition, self.entries)[0]

    @property
    def last(self) -> Position | None:
        """Up to where it goes; None where there is nothing."""
        if self.entries:
            return Position(self.partition, self.entries[-1][0].decode())
        return self.sealed[-1].position if self.sealed else None


def _next_count(count: int, events: Sequence[Recorded]) -> int:
    """How many entries to ask a stream for, after `count` were asked for and these came."""
    size_bytes = sum([len(event.data) for event in events])
    fitting = SCAN_BYTES * len(events) // (size_bytes + 1)
    return max(1, min(fitting, 2 * count, SCAN_COUNT_MAX))


async def _event_at(log: SealedLog, position: Position) -> Recorded | None:
    index = await log.index_after(position)
    if index == 0 or (await log.leaf(index - 1)).position != position:
        return None
    return await log.event(index - 1)


async def _is_erased(log: SealedLog, position: Position) -> bool:
    number, at = divmod(await log.index_after(position) - 1, TILE_WIDTH)
    if number < 0:
        return False
    is_there = (await log.leaf(number * TILE_WIDTH + at)).position == position
    return is_there and (await log.stored(number))[at].erased


@contextlib.contextmanager
def _outages() -> Generator[None]:
    """Of the object store, as those of the ledger are told."""
    try:
        yield
    except ObjectStoreError as error:
        raise Rejection(
            RejectionCode.SERVICE_UNAVAILABLE, f"the archive cannot be read: {error}"
        ) from error
