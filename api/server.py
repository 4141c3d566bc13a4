"""The API's process: uvicorn on uvloop and httptools, from bind to drained."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from typing import Any, Final, cast

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from api.app import create_app
from api.bind import BACKLOG, bind
from api.entrance import Entrance
from api.errors import ApiError, ErrorCode, Header, answer
from api.exchange import ABORT, PAUSE, SWITCH, ClientGone, new_request_id
from api.grpc.server import GrpcServer
from api.websocket import WebSocket
from consumers.collector import rarely_collecting
from consumers.roles import open_store
from ledger.redis_store import RedisStore
from ledger.settings import Settings

KEEP_ALIVE_S: Final = 20
HEAD_BYTES_MAX: Final = 64 * 1024
"""Request line and headers; the parser itself knows no bound."""


async def serve(
    settings: Settings,
    store: RedisStore | None = None,
    *,
    listener: socket.socket | None = None,
    stop: asyncio.Event | None = None,
    on_started: Callable[[str, int], None] | None = None,
    on_grpc_started: Callable[[int], None] | None = None,
) -> None:
    """Serve the API, by HTTP and gRPC, until told to stop, then answer what is in work and return.

    `store` stays its caller's; without it the settings' ledger is opened, and closed at the end:
    until its server is there, however long that takes, requests get 503. `listener` is a socket
    that listens already, for instance inherited, and is closed at the end; without it, host and
    port are those of the settings. `stop` tells when to end; without it SIGTERM and SIGINT do.
    `on_started` is called with host and port once the ledger is open and requests are answered (of
    use with port 0); `on_grpc_started` with the port of gRPC, once that is listened on.

    Raises OSError when an address cannot be bound, and what `consumers.roles.open_store` raises.
    """
    if listener is None:
        listener = bind(settings.host, settings.port)
    with contextlib.closing(listener):
        async with _grpc(settings, on_grpc_started) as grpc:
            if store is not None:
                await _serve(settings, store, listener, grpc, stop, on_started)
            else:
                await _serve_while_opening(settings, listener, grpc, stop, on_started)


@contextlib.asynccontextmanager
async def _grpc(
    settings: Settings, on_started: Callable[[int], None] | None
) -> AsyncGenerator[GrpcServer]:
    server = GrpcServer(settings)
    try:
        port = await server.start()
        if on_started is not None:
            on_started(port)
        yield server
    finally:
        await server.stop()


def run(settings: Settings) -> None:
    """`serve`, as a process of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


def uvicorn_config(app: Any, settings: Settings) -> uvicorn.Config:
    """How uvicorn is run."""
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        loop="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, settings.drain_timeout_ms // 1000),
    )


async def _serve(
    settings: Settings,
    store: RedisStore,
    listener: socket.socket,
    grpc: GrpcServer,
    stop: asyncio.Event | None,
    on_started: Callable[[str, int], None] | None,
) -> None:
    app = create_app(store, settings)
    app.start()
    grpc.open(app)

    async def stop_waiting() -> None:
        await asyncio.gather(app.stop_waiting(), grpc.stop_waiting())

    server = Server(uvicorn_config(app, settings), stop_waiting, stop, on_started)
    try:
        with rarely_collecting():
            await server.serve([listener])
    finally:
        await grpc.stop()
        await app.close()


async def _serve_while_opening(
    settings: Settings,
    listener: socket.socket,
    grpc: GrpcServer,
    stop: asyncio.Event | None,
    on_started: Callable[[str, int], None] | None,
) -> None:
    entrance = Entrance()

    async def stop_waiting() -> None:
        await asyncio.gather(entrance.stop_waiting(), grpc.stop_waiting())

    server = Server(uvicorn_config(entrance, settings), stop_waiting, stop, None)
    host, port = listener.getsockname()[:2]

    async def open_all() -> RedisStore:
        store = await open_store(settings)
        try:
            app = create_app(store, settings)
        except BaseException:
            await store.close()
            raise
        app.start()
        entrance.open(app)
        grpc.open(app)
        if on_started is not None:
            on_started(host, port)
        return store

    def opened(opening: "asyncio.Task[RedisStore]") -> None:
        if not opening.cancelled() and opening.exception() is not None:
            server.end()

    opening = asyncio.get_running_loop().create_task(open_all())
    opening.add_done_callback(opened)
    try:
        with rarely_collecting():
            await server.serve([listener])
    finally:
        opening.cancel()
        await asyncio.wait([opening])
        await grpc.stop()
        await entrance.close()
        if not opening.cancelled():
            await opening.result().close()


class Server(uvicorn.Server):
    """uvicorn, told to stop by an event or by signals that leave the process to its caller."""

    def __init__(
        self,
        config: uvicorn.Config,
        before_shutdown: Callable[[], Awaitable[None]],
        stop: asyncio.Event | None,
        on_started: Callable[[str, int], None] | None,
    ) -> None:
        super().__init__(config)
        self._before_shutdown = before_shutdown
        self._stop = stop
        self._on_started = on_started
        self._over = False

    def end(self) -> None:
        """Stop soon, as if told to."""
        self._over = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_started is not None and sockets:
            host, port = sockets[0].getsockname()[:2]
            self._on_started(host, port)

    async def on_tick(self, counter: int) -> bool:
        if self._over or (self._stop is not None and self._stop.is_set()):
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._before_shutdown()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """uvicorn would raise the signal again when it is done, and end the process before its
        caller has closed what it opened."""
        if self._stop is not None:
            yield
            return
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)


class JoinedWrites:
    """A transport on which the head and the body of an answer leave in one write.

    uvicorn writes them one after the other, and the second system call costs a fifth of a small
    request. A head whose body does not follow at once is sent by itself.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self.flush)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            if not self._transport.is_closing():  # the caller hung up meanwhile
                self._transport.write(head)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class Protocol(HttpToolsProtocol):
    """uvicorn's parser, with bounds on the head of a request, and with our error shape.

    A connection has KEEP_ALIVE_S for each whole head, however its bytes trickle in.
    """

    _in_head = False
    _head_bytes = 0
    """Of an unfinished head, with the read that is being parsed."""
    _head_too_large = False
    _head_clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._joined = cast("asyncio.Transport", JoinedWrites(transport, self.loop))
        self._start_head_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_clock()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._stop_head_clock()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._stop_head_clock()
        self._in_head = False
        # A read may hold much of the body too: only then is the head itself measured.
        if self._head_bytes > HEAD_BYTES_MAX and self._whole_head_bytes() > HEAD_BYTES_MAX:
            self._head_too_large = True
            raise ValueError("the head is too large")  # ends the parse, and leads to send_400
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]
        self.scope[PAUSE] = self.flow.pause_reading  # type: ignore[typeddict-unknown-key]
        self.scope[SWITCH] = self._switch  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        self.cycle.transport = self._joined

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._in_head:
            self._head_bytes = 0
            cycle = cast("RequestResponseCycle | None", self.cycle)
            if cycle is not None and not cycle.response_complete:
                return
        elif self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(_head_too_large())
            return
        if self._head_clock is None:
            self._start_head_clock()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn answers to bytes that are no HTTP, and when a callback raised."""
        invalid = ApiError(ErrorCode.INVALID_REQUEST, msg)
        self._refuse(_head_too_large() if self._head_too_large else invalid)

    def _unsupported_upgrade_warning(self) -> None:
        """uvicorn would log two lines for each such request. What it is answered is the
        endpoint's matter."""

    def _switch(self, headers: Sequence[Header], socket: WebSocket) -> None:
        """Answer the request in work with 101, and give its connection to `socket`."""
        if self.transport.is_closing():
            raise ClientGone
        self.cycle.response_started = self.cycle.response_complete = True
        self._stop_head_clock()
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        connections = cast("set[Any]", self.connections)
        connections.add(socket)
        socket.on_lost = lambda: connections.discard(socket)
        lines = (
            b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *headers)
        )
        self.transport.write(b"".join((STATUS_LINE[101], *lines, b"\r\n")))
        self.transport.set_protocol(socket)
        socket.connection_made(self.transport)
        self.transport.resume_reading()

    def _whole_head_bytes(self) -> int:
        """Request line and headers, as they are on the wire, but for optional blanks."""
        lines = sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)
        return len(self.url) + lines

    def _start_head_clock(self) -> None:
        self._head_clock = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _stop_head_clock(self) -> None:
        if self._head_clock is not None:
            self._head_clock.cancel()
            self._head_clock = None

    def _refuse(self, error: ApiError) -> None:
        refusal = answer(error)
        head = (
            "content-type: application/json\r\n"
            f"content-length: {len(refusal.body)}\r\nconnection: close\r\n"
            f"x-request-id: {new_request_id()}\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[refusal.status] + head.encode() + refusal.body)
        self.transport.close()


def _head_too_large() -> ApiError:
    limit = f"at most {HEAD_BYTES_MAX} bytes of request line and headers"
    return ApiError(ErrorCode.HEADERS_TOO_LARGE, f"expected {limit}")
