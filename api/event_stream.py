"""`GET /api/v1/events`: the ledger as Server-Sent Events, from a position on or from now.

https://html.spec.whatwg.org/multipage/server-sent-events.html. An id without data moves a client's
`Last-Event-ID` on without telling it anything: so a client whose filter matches seldom resumes from
where it was, not from the last event that it was told.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import structlog

from api.broadcast import CATCH_UP_READS_MAX, Broadcast, Follower
from api.describe import Answer, Group, HeaderInfo, operation
from api.errors import ApiError, ErrorCode, Header, invalid
from api.event_filter import EventFilter, EventsQuery, filter_of
from api.exchange import Exchange
from api.live import LedgerWentBack, Live
from api.query import QueryReader
from api.scalars import AFTER_EXPECTED, POSITIONS_PATTERN
from api.task_facts import Message, Occurrence, TaskFacts
from consumers.meters import Meter
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Position, Store, parse_positions, positions_text

log = structlog.get_logger("live")

CLIENTS_MAX: Final = 1_000
"""In one process; more get 503."""

HEARTBEAT_S: Final = 15.0
"""Proxies cut connections on which nothing is said; this also tells that a client hung up."""

SEND_TIMEOUT_S: Final = 20.0
"""A client that takes nothing for so long is dropped."""

END_TIMEOUT_S: Final = 1.0
CANCELS_MAX: Final = 3
CANCEL_TIMEOUT_S: Final = 1.0
"""A task that is still there so long after it was cancelled is cancelled again, up to so often:
nobody who hung up may hold a place because something below swallows cancellations."""

BUFFER_MESSAGES_MAX: Final = 1_024
BUFFER_BYTES_MAX: Final = 4 * 1024 * 1024
"""What may wait for one client; one that has more to read when more comes is dropped."""

PART_BYTES: Final = 64 * 1024
RECONNECT_MS: Final = 1_000

HEADERS: Final[tuple[Header, ...]] = (
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
)
NO_STORE: Final = HeaderInfo("Cache-Control", "For caches.", {"const": "no-store"})
NOT_BUFFERED: Final = HeaderInfo("X-Accel-Buffering", "For proxies.", {"const": "no"})
LAST_EVENT_ID: Final = HeaderInfo(
    "Last-Event-ID",
    "The last `id` that was received: the stream goes on after it.",
    {"type": "string", "pattern": f"^(now|beginning|{POSITIONS_PATTERN})?$"},
    always=False,
)


class Subscription:
    """What is on its way to one client. Bounded: what does not fit any more sets `overflown`."""

    def __init__(self, wanted: EventFilter, positions: Sequence[Position]) -> None:
        self._wanted = wanted
        self._positions = list(positions)
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.overflown = asyncio.Event()

    async def room(self) -> None:
        """Return when most of what waited is sent."""
        await self._drained.wait()

    def take(self, occurrences: Sequence[Occurrence]) -> None:
        """Line up those of the next events that are wanted."""
        if self._bytes > BUFFER_BYTES_MAX or len(self._waiting) > BUFFER_MESSAGES_MAX:
            self.overflown.set()
            return
        for occurrence in occurrences:
            self._positions[occurrence.position.partition] = occurrence.position
            if self._wanted.matches(occurrence):
                message = b"id: %b\n%b" % (self.last_id, occurrence_lines(occurrence))
                self._waiting.append(message)
                self._bytes += len(message)
        if self._waiting:
            self._filled.set()
            if self._bytes > BUFFER_BYTES_MAX // 2:
                self._drained.clear()

    @property
    def last_id(self) -> bytes:
        """Up to where the client has been told everything, once it has what waits."""
        return positions_text(self._positions).encode()

    async def next_part(self) -> bytes:
        """What to send next: events, or a heartbeat when there are none for HEARTBEAT_S."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._filled.wait()
        except TimeoutError:
            if not self._waiting:
                return b": heartbeat\nid: %b\n\n" % self.last_id
        parts = [self._waiting.popleft()]
        size = len(parts[0])
        while self._waiting and size + len(self._waiting[0]) <= PART_BYTES:
            parts.append(self._waiting.popleft())
            size += len(parts[-1])
        self._bytes -= size
        if not self._waiting:
            self._filled.clear()
        if self._bytes <= BUFFER_BYTES_MAX // 2:
            self._drained.set()
        return b"".join(parts)


def occurrence_lines(occurrence: Occurrence) -> bytes:
    """The event without its id, as a client reads it. Line breaks in the caller's JSON stand
    between tokens, where any line break will do."""
    data = b"\ndata: ".join(occurrence.json.splitlines())
    name = occurrence.recorded.type
    return b"event: %b\ndata: %b\n\n" % (name.encode() if name.isidentifier() else b"?", data)


class EventStreams:
    """The endpoint, and who is connected to it in this process."""

    _query: Final = QueryReader(EventsQuery)

    def __init__(self, store: Store, live: Live, meter: Meter) -> None:
        self._store = store
        self._meter = meter
        self._facts = TaskFacts(store)
        self._broadcasts = [Broadcast(feed, self._facts) for feed in live.feeds]
        self._reads = asyncio.Semaphore(CATCH_UP_READS_MAX)
        self._stopping = asyncio.Event()
        self._following: set[asyncio.Task[None]] = set()
        self.clients = 0

    @operation(
        "followEvents",
        Group.FEED,
        {
            200: Answer(
                "What happens.",
                Message,
                (NO_STORE, NOT_BUFFERED),
                media_type="text/event-stream",
            )
        },
        refusals=(ErrorCode.POSITION_GONE,),
        query=EventsQuery,
        headers=(LAST_EVENT_ID,),
    )
    async def events(self, exchange: Exchange) -> None:
        """Follow what happens, as it happens.

        Server-Sent Events, one for each event of the ledger that all given filters match. `id` is
        its position, `event` its type, and `data` a `Message` as JSON.

        An `id` without data moves `Last-Event-ID` on, and a comment shows that the stream lives. A
        client that does not read what it is sent is dropped, and resumes from there.
        """
        query = self._query.read(exchange)
        wanted = filter_of(query)
        positions = await self._beginning(exchange, query.after)
        if self.clients >= CLIENTS_MAX:
            raise ApiError(
                RejectionCode.SERVICE_UNAVAILABLE,
                f"{CLIENTS_MAX} clients follow the events here already; try again",
            )
        self.clients += 1
        self._meter.stream(opened=1)
        try:
            await exchange.start_stream(b"text/event-stream", HEADERS)
            if exchange.scope["method"] == "HEAD":
                await exchange.end_stream()
            else:
                await self._serve(exchange, Subscription(wanted, positions), positions)
        finally:
            self.clients -= 1
            self._meter.stream(opened=-1)

    async def stop(self) -> None:
        """End every stream; clients come back to whoever serves then. Afterwards nobody listens to
        the ledger for them."""
        self._stopping.set()
        if self._following:
            await _end(self._following)

    # -- from where ---------------------------------------------------------------------------

    async def _beginning(self, exchange: Exchange, after: str) -> list[Position]:
        """A position for each partition. A client that comes back sends the address that it came
        with, so its Last-Event-ID counts."""
        last_id = exchange.headers.get(b"last-event-id", b"").decode("latin-1")
        field, text = ("Last-Event-ID", last_id) if last_id else ("after", after)
        partitions = range(self._store.partitions)
        if text == "beginning":
            return [Position(partition, "0-0") for partition in partitions]
        try:
            named = {} if text == "now" else parse_positions(text, len(partitions))
        except ValueError as error:
            raise invalid(field, AFTER_EXPECTED, f"{field}: {error}") from None
        return [await self._begin_at(field, p, named.get(p)) for p in partitions]

    async def _begin_at(self, field: str, partition: int, named: Position | None) -> Position:
        extent = await self._store.extent(partition)
        if named is None or named.order == (0, 0):
            return named or extent.last
        if named.order > extent.last.order:
            expected = f"a position up to {extent.last}, where the ledger ends"
            raise invalid(field, expected, f"{field}: {named} is none yet, expected {expected}")
        if named.order < extent.first.order:
            raise ApiError(
                ErrorCode.POSITION_GONE,
                f"{field}: what came after {named} is no longer kept here; the oldest event is at "
                f"{extent.first}. Load what you follow anew, then begin at its Ledger-Position, or "
                "at `beginning`",
                {"field": field, "first": str(extent.first)},
            )
        return named

    # -- one client ---------------------------------------------------------------------------

    async def _serve(
        self, exchange: Exchange, subscription: Subscription, positions: Sequence[Position]
    ) -> None:
        start = asyncio.get_running_loop().create_task
        if self._stopping.is_set():
            positions = ()
        followers = [start(self._follower(p, subscription).run()) for p in positions]
        self._following.update(followers)
        gone = start(exchange.gone())
        sending = start(_send_all(exchange, subscription))
        stopping = start(self._stopping.wait())
        overflow = start(subscription.overflown.wait())
        tasks = {gone, sending, stopping, overflow, *followers}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(tasks)
            self._following.difference_update(followers)
        if gone.done() and not gone.cancelled():
            return
        if not overflow.cancelled() or isinstance(_error(sending), TimeoutError):
            self._meter.stream(dropped=1)
            log.info("slow_client_dropped", request_id=exchange.request_id)
            await exchange.hang_up()
            return
        for task in (sending, *followers):
            _report(_error(task), exchange.request_id)
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await exchange.end_stream()
        except TimeoutError:
            await exchange.hang_up()

    def _follower(self, position: Position, subscription: Subscription) -> Follower:
        broadcast = self._broadcasts[position.partition]
        return Follower(self._store, broadcast, self._facts, self._reads, position, subscription)


async def _send_all(exchange: Exchange, subscription: Subscription) -> None:
    """Send what there is, for ever. Raises TimeoutError when the client takes nothing."""
    part = b"retry: %d\nid: %b\n\n" % (RECONNECT_MS, subscription.last_id)
    while True:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await exchange.send_part(part)
        part = await subscription.next_part()


async def _end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel them, and wait until they have ended, within bounds."""
    left = set(tasks)
    for _ in range(CANCELS_MAX):
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_TIMEOUT_S)
        if not left:
            return
    log.error("event_stream_tasks_left", tasks=[task.get_name() for task in left])


def _error(task: "asyncio.Task[None]") -> BaseException | None:
    return None if task.cancelled() or not task.done() else task.exception()


def _report(error: BaseException | None, request_id: str) -> None:
    match error:
        case None:
            return
        case Rejection() | LedgerWentBack():
            log.warning("event_stream_ended", request_id=request_id, reason=str(error))
        case _:
            log.error("event_stream_failed", request_id=request_id, exc_info=error)
