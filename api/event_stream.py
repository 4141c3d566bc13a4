"""`GET /api/v1/events`: the ledger as Server-Sent Events, from a position on or from now.

https://html.spec.whatwg.org/multipage/server-sent-events.html. An id without data moves a client's
`Last-Event-ID` on without telling it anything: so a client whose filter matches seldom resumes from
where it was, not from the last event that it was told.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from api.audience import Audience, Ending
from api.describe import Answer, Group, HeaderInfo, operation
from api.errors import ApiError, ErrorCode, Header
from api.event_filter import EventFilter, EventsQuery, filter_of
from api.exchange import Exchange
from api.outbox import Outbox
from api.query import QueryReader
from api.scalars import POSITIONS_PATTERN
from api.task_facts import Message, Occurrence
from consumers.meters import Meter
from ledger.rejections import RejectionCode
from ledger.store import positions_text

if TYPE_CHECKING:
    from api.broadcast import Follower

CLIENTS_MAX: Final = 1_000
"""In one process; more get 503."""

HEARTBEAT_S: Final = 15.0
"""Proxies cut connections on which nothing is said; this also tells that a client hung up."""

END_TIMEOUT_S: Final = 1.0
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


class Stream:
    """One client's: makes of events what it is sent."""

    wants_states: bool = False

    def __init__(self, wanted: EventFilter) -> None:
        self.wanted = wanted
        self.outbox = Outbox(lambda: b": heartbeat\nid: %b\n\n" % self.last_id, HEARTBEAT_S)
        self.followers: list[Follower] = []

    async def room(self) -> None:
        await self.outbox.room()

    def take(self, occurrence: Occurrence) -> None:
        self.outbox.put(b"id: %b\n%b" % (self.last_id, occurrence_lines(occurrence)))

    @property
    def last_id(self) -> bytes:
        """Up to where the client has been told everything, once it has what waits."""
        return positions_text(follower.position for follower in self.followers).encode()


def occurrence_lines(occurrence: Occurrence) -> bytes:
    """The event without its id, as a client reads it. Line breaks in the caller's JSON stand
    between tokens, where any line break will do."""
    data = b"\ndata: ".join(occurrence.json.splitlines())
    name = occurrence.recorded.type
    return b"event: %b\ndata: %b\n\n" % (name.encode() if name.isidentifier() else b"?", data)


class EventStreams:
    """The endpoint, and who is connected to it in this process."""

    _query: Final = QueryReader(EventsQuery)

    def __init__(self, audience: Audience, meter: Meter) -> None:
        self._audience = audience
        self._meter = meter
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
        stream = Stream(filter_of(query))
        # A client that comes back sends the address that it came with, so its Last-Event-ID counts.
        last_id = exchange.headers.get(b"last-event-id", b"").decode("latin-1")
        field, text = ("Last-Event-ID", last_id) if last_id else ("after", query.after)
        positions = await self._audience.beginning(field, text)
        stream.followers = self._audience.followers(positions, stream)
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
                await self._serve(exchange, stream)
        finally:
            self.clients -= 1
            self._meter.stream(opened=-1)

    async def _serve(self, exchange: Exchange, stream: Stream) -> None:
        stream.outbox.put(b"retry: %d\nid: %b\n\n" % (RECONNECT_MS, stream.last_id))
        gone = asyncio.get_running_loop().create_task(exchange.gone())
        ending = await self._audience.serve(
            stream.followers, stream.outbox, exchange.send_part, gone, exchange.request_id
        )
        match ending:
            case Ending.GONE:
                return
            case Ending.SLOW:
                self._meter.stream(dropped=1)
                await exchange.hang_up()
            case Ending.STOPPING | Ending.BROKEN:
                try:
                    async with asyncio.timeout(END_TIMEOUT_S):
                        await exchange.end_stream()
                except TimeoutError:
                    await exchange.hang_up()
