"""A gRPC client that takes next to nothing of the machine, so that the server is what is measured:
as a worker in a compiled language would call, or one on another machine.

It speaks as much of HTTP/2 (RFC 9113) and gRPC's framing as unary calls need. Its headers are never
compressed (literals without indexing, RFC 7541, section 6.2.2), and those of answers are not read:
an answer without a message is a refusal. Its own windows are so wide that they need no updates; of
the server's bounds it knows the window of the connection alone, so no request may be larger than a
frame is at first (16 KiB), nor more calls in work than the server takes without saying.
"""

import asyncio
import struct
from collections import deque
from typing import Any, Final

from google.protobuf.message import Message

from api.grpc import task_service_pb2 as pb

SERVICE: Final = "ledgerq.v1.TaskService"
ANSWERS: Final[dict[str, type[Message]]] = {
    "GetPendingTasks": pb.GetPendingTasksResponse,
    "UpdateStatus": pb.UpdateStatusResponse,
}

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW: Final = 65_535
"""What either side may send on a connection at first."""
WINDOW_MAX: Final = 2**31 - 1
INITIAL_WINDOW_SIZE: Final = 4

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS: Final = 4

POST_OVER_HTTP: Final = b"\x83\x86"
"""`:method: POST` and `:scheme: http`, of the static table."""


class LightStub(asyncio.Protocol):
    """One connection. What is called in one turn of the loop is sent together."""

    @classmethod
    async def open(cls, target: str) -> "LightStub":
        """Connected to HOST:PORT."""
        host, port = target.rsplit(":", 1)
        loop = asyncio.get_running_loop()
        _, stub = await loop.create_connection(lambda: cls(target), host, int(port))
        return stub

    def __init__(self, target: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._heads = {method: _head(method, target) for method in ANSWERS}
        self._transport: Any = None
        self._next_stream = 1
        self._calls: dict[int, tuple[asyncio.Future[Any], type[Message]]] = {}
        self._data: dict[int, bytes] = {}
        self._received = b""
        self._unsent: deque[tuple[bytes, int]] = deque()
        """Frames of calls, and how much of the server's window each takes."""
        self._window = WINDOW

    def call(self, method: str, request: Message) -> "asyncio.Future[Any]":
        """The answer to come. It fails with RuntimeError where the server refuses."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self._transport.is_closing():
            answer.set_exception(ConnectionError("the connection is gone"))
            return answer
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._calls[stream] = answer, ANSWERS[method]
        message = request.SerializeToString()
        message = b"\0" + struct.pack(">I", len(message)) + message
        head = _frame(HEADERS, END_HEADERS, stream, self._heads[method])
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append((head + _frame(DATA, END_STREAM, stream, message), len(message)))
        return answer

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        wide = struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW_MAX)
        wider = struct.pack(">I", WINDOW_MAX - WINDOW)
        self._transport.write(
            PREFACE + _frame(SETTINGS, 0, 0, wide) + _frame(WINDOW_UPDATE, 0, 0, wider)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        for answer, _ in self._calls.values():
            if not answer.done():
                answer.set_exception(ConnectionError(f"the server hung up: {exc}"))
                answer.exception()  # one of them is enough to be told of

    def data_received(self, data: bytes) -> None:
        received, at = self._received + data, 0
        while len(received) - at >= 9:
            size, kind, flags, stream = _read_head(received, at)
            if len(received) - at - 9 < size:
                break
            self._take(kind, flags, stream, received[at + 9 : at + 9 + size])
            at += 9 + size
        self._received = received[at:]

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == DATA:
            self._data[stream] = self._data.get(stream, b"") + content
        elif kind == WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(content, "big")
            self._send()
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._transport.write(_frame(kind, ACK, 0, content if kind == PING else b""))
        elif kind in (RST_STREAM, GOAWAY):
            self._transport.abort()
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            answer, message = self._calls.pop(stream)
            framed = self._data.pop(stream, b"")
            if answer.done():
                return
            if framed:
                answer.set_result(message.FromString(framed[5:]))
            else:
                answer.set_exception(RuntimeError("the call was refused"))

    def _send(self) -> None:
        """As much as the server has room for."""
        frames: list[bytes] = []
        while self._unsent and self._unsent[0][1] <= self._window:
            frame, size = self._unsent.popleft()
            self._window -= size
            frames.append(frame)
        if frames:
            self._transport.write(b"".join(frames))


def _head(method: str, target: str) -> bytes:
    fields = (
        (":path", f"/{SERVICE}/{method}"),
        (":authority", target),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
    literals = (
        b"\0%c%b%c%b" % (len(name), name.encode(), len(value), value.encode())
        for name, value in fields
    )
    return POST_OVER_HTTP + b"".join(literals)


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">IBI", len(content) << 8 | kind, flags, stream) + content


def _read_head(received: bytes, at: int) -> tuple[int, int, int, int]:
    """Size of the content, kind, flags and stream of a frame."""
    size_and_kind, flags, stream = struct.unpack_from(">IBI", received, at)
    return size_and_kind >> 8, size_and_kind & 0xFF, flags, stream
