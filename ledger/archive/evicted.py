"""Tasks and events that left the ledger's server, as the archive has them: a `ledger.past.Past`.

Anybody may ask after any id, and each look costs reads of the object store. So few look at once, a
bounded number waits for its turn, and an id that is not there is remembered for a while.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

import structlog

from ledger.archive.reader import Archive, Damaged, Incomplete, SealedLog
from ledger.codec import Undecodable
from ledger.evolve import fold
from ledger.identity import partition_of
from ledger.objects import ObjectStoreError
from ledger.past import Kept
from ledger.rejections import Rejection, RejectionCode
from ledger.retention import BEGINNING, FORGOTTEN
from ledger.store import Position, Recorded
from ledger.subscriptions import order_of
from ledger.task import Task

log = structlog.get_logger("archive")

Found = TypeVar("Found")

LOOKS_AT_ONCE: Final = 4
"""Looks into the archive at a time, in one process."""

LOOKS_WAITING_MAX: Final = 512
"""Further ones that wait for their turn; more are refused."""

ABSENT_MAX: Final = 10_000
"""Ids remembered that are not there: some megabytes."""


class EvictedTasks:
    """What the archive of a ledger has of it. An archive of the epoch "" becomes that of the ledger
    that `epoch` tells, with the first look."""

    def __init__(self, archive: Archive, epoch: Callable[[], Awaitable[str]]) -> None:
        self._archive = archive
        self._epoch = epoch
        self._turns = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._waiting = 0
        self._absent: OrderedDict[str, str] = OrderedDict()
        """Ids that are not there, and up to which entry that is known."""

    async def find(self, task_id: str, evicted: str) -> Kept:
        """As `Past`."""
        if self._is_absent(task_id, evicted):
            return Kept(None, self._absent[task_id])

        async def look(sealed: SealedLog) -> Kept:
            history = await sealed.history(task_id)
            return Kept(fold_recorded(task_id, history), sealed.checkpoint.last or BEGINNING)

        partition = partition_of(task_id, self._archive.partitions)
        kept = await self._look(partition, look)
        if kept is None and evicted == FORGOTTEN:
            return Kept(None, evicted)
        if kept is None or order_of(kept.as_of) < order_of(evicted):
            raise _away(f"the log of partition {partition} ends before {evicted}")
        if kept.task is None:
            self._remember_absent(task_id, kept.as_of)
        return kept

    async def last_entry(self, task: Task) -> str | None:
        """As `Past`."""

        async def look(sealed: SealedLog) -> str | None:
            leaves = await sealed.leaves_of(task.id)
            if not leaves:
                return None
            leaf = await sealed.leaf(leaves[-1])
            return leaf.position.entry if leaf.version == task.version else None

        return await self._look(partition_of(task.id, self._archive.partitions), look)

    async def history_back(
        self, task_id: str, start: Position | None, count: int, evicted: str
    ) -> list[Recorded]:
        """As `Past`."""
        if start is None and self._is_absent(task_id, evicted):
            return []

        async def look(sealed: SealedLog) -> tuple[str, list[Recorded]]:
            end = sealed.size if start is None else await sealed.index_after(start)
            leaves = [leaf for leaf in await sealed.leaves_of(task_id) if leaf < end]
            return sealed.checkpoint.last, await sealed.events_of(leaves[-count:][::-1])

        partition = partition_of(task_id, self._archive.partitions)
        found = await self._look(partition, look)
        if found is None and start is None and evicted == FORGOTTEN:
            return []
        # What left the server was sealed: an archive without it is not all there.
        last, events = found or (BEGINNING, [])
        _check_reaches(partition, last, evicted if start is None else start.entry)
        return events

    async def event_at(self, position: Position) -> Recorded | None:
        """As `Past`."""

        async def look(sealed: SealedLog) -> tuple[str, Recorded | None]:
            index = await sealed.index_after(position) - 1
            if index < 0 or (await sealed.leaf(index)).position != position:
                return sealed.checkpoint.last, None
            return sealed.checkpoint.last, await sealed.event(index)

        last, event = await self._look(position.partition, look) or (BEGINNING, None)
        if event is None:
            _check_reaches(position.partition, last, position.entry)
        return event

    def _is_absent(self, task_id: str, evicted: str) -> bool:
        """Whether that is known, and takes account of what was evicted since."""
        as_of = self._absent.get(task_id)
        return as_of is not None and order_of(as_of) >= order_of(evicted)

    def _remember_absent(self, task_id: str, as_of: str) -> None:
        self._absent[task_id] = as_of
        self._absent.move_to_end(task_id)
        if len(self._absent) > ABSENT_MAX:
            self._absent.popitem(last=False)

    async def _look(
        self, partition: int, look: Callable[[SealedLog], Awaitable[Found]]
    ) -> Found | None:
        """What a look into the newest log of a partition finds; None where nothing was sealed."""
        async with self._turn():
            if not self._archive.epoch:
                known = self._archive
                self._archive = Archive(known.objects, await self._epoch(), known.partitions)
            try:
                sealed = await self._archive.log(partition)
                return None if sealed is None else await look(sealed)
            except (ObjectStoreError, Damaged, Incomplete, Undecodable) as error:
                log.warning("archive_unreadable", partition=partition, reason=str(error))
                raise _away(str(error)) from error

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        if self._waiting >= LOOKS_WAITING_MAX:
            raise Rejection(
                RejectionCode.SERVICE_UNAVAILABLE,
                f"{LOOKS_WAITING_MAX} look-ups wait for the archive already; try again",
            )
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()


def fold_recorded(task_id: str, history: list[Recorded]) -> Task | None:
    """The task that events make. Raises Undecodable."""
    return fold(task_id, ((recorded.event(), recorded.at) for recorded in history))


def _check_reaches(partition: int, last: str, entry: str) -> None:
    """Raises Rejection for a log that ends before an entry that left the server."""
    if order_of(last or BEGINNING) < order_of(entry):
        raise _away(f"the log of partition {partition} ends before {entry}")


def _away(reason: str) -> Rejection:
    return Rejection(RejectionCode.SERVICE_UNAVAILABLE, f"the archive cannot be read now: {reason}")
