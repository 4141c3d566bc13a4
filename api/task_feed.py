"""`/ws/tasks`: how tasks stand, told over a WebSocket as it changes.

One message for each event that changes what a message shows. `subscribe` and `unsubscribe` change
the set of tasks that a connection tells of, which `task_id` in the address begins; without either
it tells of all that the other filters let through.
"""

import asyncio
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from api.audience import Audience, Ending
from api.describe import Answer, Group, HeaderInfo, operation
from api.errors import ANSWERS, ApiError, ErrorCode, Header, invalid, of_rejection
from api.event_filter import UpdatesQuery, filter_of
from api.exchange import Exchange
from api.query import QueryReader
from api.scalars import POSITIONS_PATTERN
from api.task_watch import Command, Subscribe, TaskWatch, Unsubscribe
from api.websocket import (
    INTERNAL_ERROR,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    TRY_AGAIN_LATER,
    WebSocket,
    handshake,
    text_frame,
)
from consumers.meters import Meter
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Store

CLIENTS_MAX: Final = 4_000
"""In one process; more get 503."""

ERRORS_MAX: Final = 10
"""Messages of one client that are refused; one more ends the connection (1008)."""

CLOSES: Final = {
    Ending.SLOW: (TRY_AGAIN_LATER, "too slow: more was told than was read"),
    Ending.STOPPING: (SERVICE_RESTART, "the service stops; connect again"),
    Ending.BROKEN: (INTERNAL_ERROR, "the ledger cannot be read on from here; connect again"),
}

LEDGER_POSITION: Final = HeaderInfo(
    "Ledger-Position",
    "Where the feed begins: what happens after it is told.",
    {"type": "string", "pattern": f"^{POSITIONS_PATTERN}$"},
)
ACCEPT: Final = HeaderInfo("Sec-WebSocket-Accept", "As in RFC 6455.", {"type": "string"})

EXPECTED: Final = 'a message such as {"type": "subscribe", "task_id": "..."} (or "unsubscribe")'

_decode = msgspec.json.Decoder(Command).decode


class TasksQuery(UpdatesQuery, frozen=True):
    """Which tasks are told of, and from where on."""

    positions: Annotated[
        bool,
        Meta(
            description="Also send messages of the type `position`: at the beginning, and while "
            "nothing happens. What they hold is where to resume, in all partitions.",
        ),
    ] = False


class ErrorMessage(msgspec.Struct, frozen=True, tag="error", tag_field="type"):
    """Why a message of the client was refused; as the body of a refused request is."""

    error: str
    message: str
    code: str
    details: Any


class TaskFeed:
    """The endpoint, and who is connected to it in this process. Pages of `origins` may connect,
    beside those that come from where the feed does."""

    _query: Final = QueryReader(TasksQuery)

    def __init__(
        self, store: Store, audience: Audience, meter: Meter, origins: tuple[str, ...]
    ) -> None:
        self._store = store
        self._audience = audience
        self._meter = meter
        self._origins = origins
        self.clients = 0

    @operation(
        "watchTasks",
        Group.FEED,
        {101: Answer("A WebSocket.", headers=(LEDGER_POSITION, ACCEPT), media_type="")},
        refusals=(ErrorCode.FORBIDDEN, ErrorCode.POSITION_GONE, ErrorCode.UPGRADE_REQUIRED),
        query=TasksQuery,
    )
    async def tasks(self, exchange: Exchange) -> None:
        """Watch tasks, over a WebSocket.

        A message `task_update` for each change of a task that all given filters match: `task_id`,
        `status`, `progress`, `message`, `kb_id`, `task_type`, `result` (once finished),
        `error_message`, `position` and `at`. To miss nothing, resume `after` the last `position`.

        Send `{"type": "subscribe", "task_id": ...}` to be told how a task stands and of it from
        then on, in place of all tasks; and `unsubscribe`.

        A client that does not read what it is sent is dropped (close code 1013). Pages of other
        origins than this one are refused, unless the setting `websocket_origins` names them.
        """
        try:
            self._check_origin(exchange)
            watch = await self._watch(exchange)
            headers = handshake(exchange)
            if self.clients >= CLIENTS_MAX:
                raise ApiError(
                    RejectionCode.SERVICE_UNAVAILABLE,
                    f"{CLIENTS_MAX} clients watch tasks here already; try again",
                )
        except ApiError as error:
            # A page learns why it was refused only if it asks again without a WebSocket: also that
            # its origin is not among the settings', which would be hard to find out.
            error.headers = (*error.headers, *_readable_by(exchange))
            raise
        socket = WebSocket()
        exchange.switch([*headers, (b"ledger-position", watch.position.encode())], socket)
        self.clients += 1
        self._meter.websocket(opened=1)
        try:
            await self._serve(exchange, socket, watch)
        finally:
            self.clients -= 1
            self._meter.websocket(opened=-1)

    async def _watch(self, exchange: Exchange) -> TaskWatch:
        """What is asked for."""
        query = self._query.read(exchange)
        watch = TaskWatch(self._store, filter_of(query), tell_positions=query.positions)
        positions = await self._audience.beginning("after", query.after)
        watch.followers = self._audience.followers(positions, watch)
        return watch

    def _check_origin(self, exchange: Exchange) -> None:
        """Any page may open a WebSocket to anywhere, and a browser would let it read."""
        origin = exchange.headers.get(b"origin")
        if origin is None or "*" in self._origins:
            return
        text = origin.decode("latin-1")
        host = exchange.headers.get(b"host", b"").decode("latin-1")
        if text not in self._origins and not (host and _host_of(text) == host.lower()):
            raise ApiError(
                ErrorCode.FORBIDDEN,
                f"pages of {text[:200]} may not watch tasks here: the setting websocket_origins "
                "does not name it",
                {"field": "Origin"},
            )

    async def _serve(self, exchange: Exchange, socket: WebSocket, watch: TaskWatch) -> None:
        watch.begin()
        talk = asyncio.get_running_loop().create_task(_talk(socket, watch))
        ending = await self._audience.serve(
            watch.followers, watch.outbox, socket.write, talk, exchange.request_id
        )
        if ending is Ending.SLOW:
            self._meter.websocket(dropped=1)
        if ending in CLOSES:
            socket.close(*CLOSES[ending])
        await asyncio.wait([socket.lost])


def _host_of(origin: str) -> str:
    """Empty where there is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _readable_by(exchange: Exchange) -> list[Header]:
    """Headers that let a page of another origin read why it was refused."""
    origin = exchange.headers.get(b"origin")
    return (
        [] if origin is None else [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
    )


async def _talk(socket: WebSocket, watch: TaskWatch) -> None:
    """Do what the client says, until it is gone or talks nonsense."""
    refused = 0
    while (message := await socket.receive()) is not None:
        try:
            await _obey(message, watch)
        except (ApiError, Rejection) as error:
            refused += 1
            if refused > ERRORS_MAX:
                socket.close(POLICY_VIOLATION, f"more than {ERRORS_MAX} messages were refused")
                return
            watch.outbox.put(_error_message(error))


async def _obey(message: str | bytes, watch: TaskWatch) -> None:
    match _command(message):
        case Subscribe(task_id):
            await watch.subscribe(task_id)
        case Unsubscribe(task_id):
            watch.unsubscribe(task_id)


def _command(message: str | bytes) -> Command:
    if isinstance(message, bytes):
        raise invalid("message", EXPECTED, f"expected {EXPECTED}, got a binary one")
    try:
        return _decode(message)
    except (msgspec.MsgspecError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise invalid("message", EXPECTED, f"expected {EXPECTED}: {reason}") from None


def _error_message(error: ApiError | Rejection) -> bytes:
    refusal = of_rejection(error, {}) if isinstance(error, Rejection) else error
    title = ANSWERS[refusal.code][1]
    told = ErrorMessage(title, refusal.message, refusal.code, refusal.details)
    return text_frame(msgspec.json.encode(told))
