"""A WebSocket, from the handshake to its close: the rules are `websockets`' (RFC 6455), the
connection is the API's own.

The handshake is a request like any other, answered in the one error shape or with 101; the
connection then changes hands (`Exchange.switch`). What a client can make us keep has a bound in
each direction: it is read in pieces, no piece before the one before is dealt with, and nothing is
read while it does not read itself.
"""

import asyncio
import logging
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from api.errors import ApiError, ErrorCode, Header
from api.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

MESSAGE_BYTES_MAX: Final = 16 * 1024
"""Of a client's message; a longer one ends the connection (1009)."""

PIECE_BYTES: Final = 4 * 1024
"""What is read of a client's bytes at once: the smallest frames make hundreds of messages of it."""

PING_S: Final = 20.0
"""Time between pings; a client that lets one go by unanswered until the next is gone."""

CLOSE_S: Final = 5.0
"""How long a client may take to answer our close, until the connection is cut."""

SHUTDOWN_S: Final = 1.0
"""The same while the server stops."""

WRITE_HIGH_BYTES: Final = 64 * 1024
"""What may be on its way to a client before `write` waits."""

INVALID_DATA: Final = 1007
INTERNAL_ERROR: Final = 1011
POLICY_VIOLATION: Final = 1008
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013

# It tells of each closed connection, of no use to anybody.
_log = logging.getLogger("api.websocket")
_log.setLevel(logging.WARNING)


def text_frame(text: bytes) -> bytes:
    """A message as it goes over any connection: made once, however many it is for."""
    return Frame(Opcode.TEXT, text).serialize(mask=False)


def handshake(exchange: Exchange) -> list[Header]:
    """The headers of the 101 that accepts the handshake.

    Raises ApiError: 426 for a request that is none, 400 for one that is malformed.
    """
    headers = Headers()
    for name, value in exchange.scope["headers"]:
        headers[name.decode("latin-1")] = value.decode("latin-1")
    answer = ServerProtocol(logger=_log).accept(Request("/", headers))
    if answer.status_code == HTTPStatus.UPGRADE_REQUIRED:
        raise upgrade_required()
    if answer.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        reason = answer.body.decode().strip().removesuffix(".").removeprefix(_PREFIX)
        raise ApiError(
            ErrorCode.INVALID_REQUEST,
            f"this is no handshake of a WebSocket: {reason}",
            {"expected": "a handshake as in RFC 6455, version 13"},
        )
    wanted = ("upgrade", "connection", "sec-websocket-accept")
    return [(n.encode(), answer.headers[n].encode()) for n in wanted]


_PREFIX: Final = "Failed to open a WebSocket connection: "


def upgrade_required() -> ApiError:
    """426: there is nothing here but a WebSocket."""
    return ApiError(
        ErrorCode.UPGRADE_REQUIRED,
        "open a WebSocket here (ws:// instead of http://)",
        {"expected": "Connection: Upgrade and Upgrade: websocket"},
        [(b"upgrade", b"websocket"), (b"connection", b"upgrade")],
    )


class WebSocket(asyncio.Protocol):
    """The server's side of an open connection."""

    def __init__(self) -> None:
        self._rules = ServerProtocol(state=State.OPEN, max_size=MESSAGE_BYTES_MAX, logger=_log)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._reading_on = False
        self._fragments = bytearray()
        self._is_text = False
        self._inbox: deque[str | bytes] = deque()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._unanswered = False
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done once the connection is no more."""
        self.on_lost: Callable[[], None] = lambda: None

    # -- for whoever speaks over it -----------------------------------------------------------

    async def receive(self) -> str | bytes | None:
        """The client's next message; None once either side has said goodbye, or is gone."""
        while not self._inbox:
            if self._closing:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        message = self._inbox.popleft()
        if not self._inbox:
            self._read_on()
        return message

    async def write(self, frames: bytes) -> None:
        """Send whole frames; waits first while the client has much to read already."""
        await self._writable.wait()
        if not self._closing and self._transport is not None:
            self._transport.write(frames)

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, and cut the connection soon if that is not answered."""
        if self._closing:
            return
        if self._rules.state is State.OPEN:
            self._rules.send_close(code, reason)
        self._end()
        self._flush()

    # -- for the event loop -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # That of a socket. What uvloop makes is a Transport in all but name.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._timer = self._loop.call_later(PING_S, self._ping)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._read_piece()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._stop_timer()
        self._transport = None
        self._writable.set()
        self.lost.set_result(None)
        self.on_lost()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
        self._read_on()

    def shutdown(self) -> None:
        """The server stops, as uvicorn says it."""
        self.close(SERVICE_RESTART, "the service stops")
        if self._transport is not None:
            # Nobody may hold up the stop by not reading.
            self._stop_timer()
            self._timer = self._loop.call_later(SHUTDOWN_S, self._transport.abort)

    # -- reading ------------------------------------------------------------------------------

    def _read_on(self) -> None:
        """There is room again, for what is here already or for more."""
        if self._unread and not self._reading_on:
            # Others first: a client that sends much must not hold up the event loop.
            self._reading_on = True
            self._loop.call_soon(self._read_next)
        elif self._transport is not None and not self._unread:
            self._transport.resume_reading()

    def _read_next(self) -> None:
        self._reading_on = False
        self._read_piece()

    def _read_piece(self) -> None:
        """Deal with some of what has arrived, if that before is dealt with."""
        if self._transport is None:
            self._unread.clear()
            return
        if not self._inbox and self._writable.is_set():
            piece = bytes(self._unread[:PIECE_BYTES])
            del self._unread[:PIECE_BYTES]
            self._rules.receive_data(piece)
            for frame in self._rules.events_received():
                if isinstance(frame, Frame):
                    self._take(frame)
            self._flush()
            if self._rules.state is not State.OPEN:
                self._end()
        if self._unread or self._inbox:
            self._transport.pause_reading()
        if self._unread and not self._inbox and self._writable.is_set():
            self._read_on()

    def _take(self, frame: Frame) -> None:
        self._unanswered = False
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) or self._closing:
            return
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._fragments += frame.data
        if frame.fin:
            whole = bytes(self._fragments)
            self._fragments.clear()
            try:
                self._inbox.append(whole.decode() if self._is_text else whole)
            except UnicodeDecodeError:
                self._rules.fail(INVALID_DATA, "expected UTF-8")
            self._arrived.set()

    # -- writing and ending -------------------------------------------------------------------

    def _flush(self) -> None:
        transport = self._transport
        for data in self._rules.data_to_send():
            if transport is None or transport.is_closing():
                return
            if data == SEND_EOF:
                transport.close()
            else:
                transport.write(data)

    def _ping(self) -> None:
        # While what it said before is dealt with, its answer may lie behind that, unread.
        if self._unanswered and not self._inbox:
            self.close(INTERNAL_ERROR, f"no answer to a ping within {PING_S:g} s")
            return
        self._unanswered = True
        self._rules.send_ping(b"")
        self._flush()
        self._timer = self._loop.call_later(PING_S, self._ping)

    def _end(self) -> None:
        """Nothing is said any more; what is not closed by CLOSE_S from now is cut."""
        if self._closing:
            return
        self._closing = True
        self._inbox.clear()
        self._stop_timer()
        if self._transport is not None:
            self._transport.resume_reading()
            self._timer = self._loop.call_later(CLOSE_S, self._transport.abort)
        self._arrived.set()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
