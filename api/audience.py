"""Everybody who follows a live feed in this process, whichever: all share one reader of the ledger.

A feed gives each client an `Outbox` and something that fills it (a `broadcast.Sink`); what begins,
serves and ends a client is here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Any, Final

import structlog

from api.broadcast import Broadcasts, Follower, Sink
from api.errors import ApiError, ErrorCode, invalid
from api.live import LedgerWentBack, Live
from api.outbox import Outbox
from api.scalars import AFTER_EXPECTED
from consumers.archive_reach import reaches
from ledger.rejections import Rejection
from ledger.store import Events, Position, Store, parse_positions
from ledger.subscriptions import entry_before

log = structlog.get_logger("live")

CANCELS_MAX: Final = 3
CANCEL_TIMEOUT_S: Final = 1.0
"""A task that is still there so long after it was cancelled is cancelled again, up to so often:
nobody who hung up may hold a place because something below swallows cancellations."""


class Ending(Enum):
    """Why a client is told no more."""

    GONE = auto()
    """It hung up."""
    SLOW = auto()
    """It did not read."""
    STOPPING = auto()
    """The service stops."""
    BROKEN = auto()
    """The ledger cannot be read on, for instance since it went back."""


class Audience:
    """The clients, and the one reader that they share."""

    def __init__(self, store: Store, live: Live, events: Events | None = None) -> None:
        """`events`: as `Broadcasts`."""
        self._store = store
        self._events: Events = store if events is None else events
        self._broadcasts = Broadcasts(store, live, events)
        self._stopping: asyncio.Future[None] | None = None
        self._is_stopping = False
        self._following: set[asyncio.Task[None]] = set()

    async def beginning(self, field: str, text: str) -> list[Position]:
        """A position for each partition, from what a client sent as `field`.

        Raises ApiError: 400 for what is no position (yet), 410 for one whose followers are gone.
        """
        partitions = range(self._store.partitions)
        if text == "beginning":
            return [await self._oldest(partition) for partition in partitions]
        try:
            named = {} if text == "now" else parse_positions(text, len(partitions))
        except ValueError as error:
            raise invalid(field, AFTER_EXPECTED, f"{field}: {error}") from None
        return [await self._begin_at(field, p, named.get(p)) for p in partitions]

    def followers(self, positions: Iterable[Position], sink: Sink) -> list[Follower]:
        """What brings `sink` all that it wants after `positions`, once `serve` runs them."""
        return [self._broadcasts.follower(position, sink) for position in positions]

    async def serve(
        self,
        followers: Sequence[Follower],
        outbox: Outbox,
        write: Callable[[bytes], Awaitable[None]],
        gone: "asyncio.Task[None]",
        request_id: str,
    ) -> Ending:
        """Serve a client until one of the reasons to end. `gone` ends when it hangs up."""
        if self._is_stopping:
            gone.cancel()
            return Ending.STOPPING
        loop = asyncio.get_running_loop()
        if self._stopping is None:
            self._stopping = loop.create_future()
        following = [loop.create_task(follower.run()) for follower in followers]
        self._following.update(following)
        sending = loop.create_task(outbox.send_all(write))
        tasks = {gone, sending, *following}
        try:
            signals = {outbox.overflown, self._stopping}
            await asyncio.wait(tasks | signals, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = {task for task in tasks if task.done()}
            await _end(tasks)
            self._following.difference_update(following)
        if gone in ended and _error(gone) is None:
            return Ending.GONE
        if outbox.overflown.done() or isinstance(_error(sending), TimeoutError):
            log.info("slow_client_dropped", request_id=request_id)
            return Ending.SLOW
        if self._is_stopping:
            return Ending.STOPPING
        for task in (gone, sending, *following):
            _report(_error(task), request_id)
        return Ending.BROKEN

    async def stop(self) -> None:
        """End everybody; clients come back to whoever serves then. Afterwards nobody listens to
        the ledger for them."""
        self._is_stopping = True
        if self._stopping is not None and not self._stopping.done():
            self._stopping.set_result(None)
        if self._following:
            await _end(self._following)

    async def _begin_at(self, field: str, partition: int, named: Position | None) -> Position:
        extent = await self._store.extent(partition)
        if named is None or named.order == (0, 0):
            return named or extent.last
        if named.order > extent.last.order:
            expected = f"a position up to {extent.last}, where the ledger ends"
            raise invalid(field, expected, f"{field}: {named} is none yet, expected {expected}")
        if named.order < extent.first.order and not await self._reaches(named, extent.first):
            raise ApiError(
                ErrorCode.POSITION_GONE,
                f"{field}: what came after {named} is no longer kept here; the oldest event is at "
                f"{extent.first}. Load what you follow anew, then begin at its Ledger-Position, or "
                "at `beginning`",
                {"field": field, "first": str(extent.first)},
            )
        return named

    async def _oldest(self, partition: int) -> Position:
        """Where to begin for all that there is."""
        beginning = Position(partition, "0-0")
        extent = await self._store.extent(partition)
        if extent.first == beginning or await self._reaches(beginning, extent.first):
            return beginning
        return Position(partition, entry_before(extent.first.entry))

    async def _reaches(self, position: Position, first: Position) -> bool:
        """Whether all that came after a position is in the archive, up to the first in the
        stream."""
        return self._events is not self._store and await reaches(self._events, position, first)


async def _end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel them, and wait until they have ended, within bounds."""
    left = set(tasks)
    for _ in range(CANCELS_MAX):
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_TIMEOUT_S)
        if not left:
            return
    log.error("live_feed_tasks_left", tasks=[task.get_name() for task in left])


def _error(task: "asyncio.Task[None]") -> BaseException | None:
    return None if task.cancelled() or not task.done() else task.exception()


def _report(error: BaseException | None, request_id: str) -> None:
    match error:
        case None:
            return
        case Rejection() | LedgerWentBack():
            log.warning("live_feed_ended", request_id=request_id, reason=str(error))
        case _:
            log.error("live_feed_failed", request_id=request_id, exc_info=error)
