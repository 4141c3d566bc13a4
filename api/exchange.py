"""One request and its answer on bare ASGI: what every endpoint reads and writes with.

Starlette's Request and Response would cost more than everything else a submission needs, so the
endpoints are coroutines that take this instead.
"""

import asyncio
import contextlib
import itertools
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from api.errors import ApiError, ErrorCode, Header, invalid
from ledger.codec import Meta

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from api.websocket import WebSocket

BODY_TIMEOUT_S: Final = 30.0
"""A body that does not arrive in this time is given up: a stalled client must not hold memory."""

BODY_RATE_MIN: Final = 16 * 1024
"""Bytes a second: a body that is read piece by piece may take this much longer for its size."""

LINGER_S: Final = 2.0
LINGER_BYTES_MAX: Final = 16 * 1024 * 1024
"""A caller that is refused in the middle of its body is heard on for so long: closing at once would
make its system throw the answer away."""

QUERY_BYTES_MAX: Final = 8_192
TEXT_HEADER_MAX: Final = 255
REQUEST_ID_MAX: Final = 128

UNROUTED: Final = "other"
"""The route of a path that leads nowhere."""

JSON_TYPE: Final[Header] = (b"content-type", b"application/json")

CLOSE: Final[Header] = (b"connection", b"close")

ABORT: Final = "ledgerq.abort"
"""Where the server puts, in the ASGI scope, how to cut the connection."""

PAUSE: Final = "ledgerq.pause"
"""And how to read no more of it until the next piece is asked for."""

SWITCH: Final = "ledgerq.switch"
"""And how to give it to another protocol, behind the head of a 101."""

_JSON_CONTENT = re.compile(
    rb'application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?;?', re.IGNORECASE
)
_TRACEPARENT = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})(?P<ids>-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-)"
    rb"(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)

_request_prefix = os.urandom(6).hex()
_request_numbers = itertools.count(1)


class ClientGone(Exception):
    """The caller hung up; nobody is left to answer."""


class Exchange:
    """A request, read piece by piece, and its one answer."""

    __slots__ = (
        "_body_left",
        "_receive",
        "_send",
        "head_sent_s",
        "headers",
        "request_id",
        "route",
        "scope",
        "status",
    )

    def __init__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = request_id_of(self.headers)
        self.status = 0
        """Of the answer, once it has begun."""
        self.route = UNROUTED
        """The template of the path."""
        self.head_sent_s: float | None = None
        """When an answer in parts began, by `time.perf_counter`."""
        self._body_left = False
        """Whether the body was meant to be read piece by piece, and is not at its end."""

    @property
    def started(self) -> bool:
        """Whether the answer has begun: it can be no other one then."""
        return self.status != 0

    # -- the request --------------------------------------------------------------------------

    @property
    def task_id(self) -> str:
        """The `{id}` of the path, whatever it looks like."""
        return self.path_text("task_id")

    def path_text(self, name: str) -> str:
        """What stands in the path at `{name}`, decoded, whatever it looks like."""
        return self.scope["path_params"][name]

    async def json_body(self, bytes_max: int) -> bytes:
        """The body, which says or leaves open that it is JSON.

        Raises ApiError: 415 for another kind, 413 above `bytes_max` (no more than that is kept),
        408 when it stalls.
        """
        kind = self.headers.get(b"content-type")
        if kind is not None and kind != b"application/json" and not _JSON_CONTENT.fullmatch(kind):
            raise ApiError(
                ErrorCode.UNSUPPORTED_MEDIA_TYPE,
                "send the body as JSON in UTF-8, with the header Content-Type: application/json",
                {"field": "Content-Type", "expected": "application/json"},
            )
        self.no_coding()
        return await self.body(bytes_max)

    def no_coding(self) -> None:
        """Raises ApiError (415) when the body is compressed, or anything else than it is."""
        if b"content-encoding" in self.headers:
            raise ApiError(
                ErrorCode.UNSUPPORTED_MEDIA_TYPE,
                "send the body as it is, without Content-Encoding",
                {"field": "Content-Encoding", "expected": "none"},
            )

    async def body(self, bytes_max: int) -> bytes:
        """The body. Raises ApiError: 413 above `bytes_max`, 408 when it stalls."""
        declared = self.headers.get(b"content-length")
        if declared is not None and int(declared) > bytes_max:
            raise _too_large(bytes_max)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message["body"]
        if message["more_body"]:
            body = await self._rest_of_body(body, bytes_max)
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        return body

    @property
    def body_bytes(self) -> int | None:
        """How long the body is said to be; None where nothing is said."""
        declared = self.headers.get(b"content-length")
        return None if declared is None else int(declared)

    def stream_body(self, bytes_max: int) -> AsyncIterator[bytes]:
        """The body as it arrives; the caller can send on as far as it is read. Whatever is answered
        before its end ends the connection.

        Raises ApiError: 413 above `bytes_max`, at once where that is announced; 408 when it comes
        too slowly. Raises ClientGone.
        """
        self._body_left = True
        if self.body_bytes is not None and self.body_bytes > bytes_max:
            raise _too_large(bytes_max)
        return self._pieces(bytes_max)

    async def _pieces(self, bytes_max: int) -> AsyncIterator[bytes]:
        size, waited_s = 0, 0.0
        clock = asyncio.get_running_loop().time
        while self._body_left:
            # What we take to write it down is no fault of the caller's.
            began_s = clock()
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S + size / BODY_RATE_MIN - waited_s):
                    message = await self._receive()
            except TimeoutError:
                raise _too_slow(
                    f"the body came at less than {BODY_RATE_MIN} bytes/s for {BODY_TIMEOUT_S:g} s"
                ) from None
            waited_s += clock() - began_s
            if message["type"] == "http.disconnect":
                raise ClientGone
            self._body_left = message["more_body"]
            piece: bytes = message["body"]
            size += len(piece)
            if size > bytes_max:
                raise _too_large(bytes_max)
            if self._body_left and PAUSE in self.scope:
                # Else the server would read on, and hold as much again for each of many bodies.
                self.scope[PAUSE]()
            if piece:
                yield piece

    async def no_body(self) -> None:
        """For requests that say all in their path; an empty object may be sent along."""
        if (await self.body(1_024)).strip() not in (b"", b"{}"):
            raise invalid("body", "no body")

    async def gone(self) -> None:
        """Return when the caller has hung up. The body must have been read, or there is none."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _rest_of_body(self, first: bytes, bytes_max: int) -> bytes:
        chunks, size = [first], len(first)
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while size <= bytes_max:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    chunks.append(message["body"])
                    size += len(message["body"])
                    if not message["more_body"]:
                        return b"".join(chunks)
        except TimeoutError:
            raise _too_slow(f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None
        raise _too_large(bytes_max)

    def parameters(self, *known: str) -> dict[str, str]:
        """The query parameters, each given once, none of them empty or unknown."""
        query: bytes = self.scope["query_string"]
        if not query:
            return {}
        if len(query) > QUERY_BYTES_MAX:
            raise invalid("query", f"a query string of at most {QUERY_BYTES_MAX} bytes")
        try:
            pairs = parse_qsl(
                query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict"
            )
        except ValueError:
            raise invalid("query", "name=value pairs joined by &, percent-encoded UTF-8") from None
        found: dict[str, str] = {}
        for name, value in pairs:
            if name not in known:
                these = f"one of {', '.join(known)}" if known else "no query parameters"
                raise invalid(name[:100], these, f"{name[:100]}: no such query parameter here")
            if name in found:
                raise invalid(name, "the parameter once")
            found[name] = value
        return found

    def text_header(self, name: str) -> str | None:
        """A header of 1 to 255 printable characters, or None. Raises ApiError (400) for others."""
        return text_header(self.headers, name)

    def list_header(self, name: bytes) -> bytes | None:
        """A header whose value is a list: all its lines as one. None when it is not there."""
        if name not in self.headers:
            return None
        return b", ".join(value for sent, value in self.scope["headers"] if sent == name)

    def meta(self) -> Meta:
        """Who writes, for the events that this request makes."""
        return meta_of(self.headers, self.request_id)

    # -- the answer ---------------------------------------------------------------------------

    async def respond(
        self,
        status: int,
        body: bytes,
        headers: Sequence[Header] = (),
        content_type: Header = JSON_TYPE,
    ) -> None:
        """The whole answer, as JSON unless told otherwise. Called once."""
        self.status = status
        start = [
            content_type,
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.request_id.encode()),
            *headers,
        ]
        if self._body_left and CLOSE not in start:
            start.append(CLOSE)
        await self._send({"type": "http.response.start", "status": status, "headers": start})
        if self._body_left:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            await self._linger()
            body = b""
        await self._send({"type": "http.response.body", "body": body})

    async def _linger(self) -> None:
        """Throw away what the caller still sends, within bounds, while it has time to see that it
        was answered."""
        self.head_sent_s = time.perf_counter()
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while size < LINGER_BYTES_MAX:
                    message = await self._receive()
                    if message["type"] == "http.disconnect" or not message["more_body"]:
                        return
                    size += len(message["body"])

    async def respond_empty(self, status: int, headers: Sequence[Header]) -> None:
        """An answer without a body (204)."""
        self.status = status
        start = [(b"x-request-id", self.request_id.encode()), *headers]
        await self._send({"type": "http.response.start", "status": status, "headers": start})
        await self._send({"type": "http.response.body", "body": b""})

    async def start_stream(self, content_type: bytes, headers: Sequence[Header]) -> None:
        """The head of an answer that comes in parts: `send_part`, then `end_stream`."""
        self.status, self.head_sent_s = 200, time.perf_counter()
        start = [
            (b"content-type", content_type),
            (b"x-request-id", self.request_id.encode()),
            *headers,
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": start})

    async def send_part(self, part: bytes) -> None:
        """The next bytes; waits while the caller has much to read already."""
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end_stream(self) -> None:
        """That was all."""
        await self._send({"type": "http.response.body", "body": b""})

    def switch(self, headers: Sequence[Header], socket: "WebSocket") -> None:
        """Answer 101, and give the connection to `socket`. Raises ClientGone."""
        head = [*headers, (b"x-request-id", self.request_id.encode())]
        switch: Callable[[Sequence[Header], WebSocket], None] = self.scope[SWITCH]
        switch(head, socket)
        self.status, self.head_sent_s = 101, time.perf_counter()

    async def hang_up(self) -> None:
        """Cut the connection of a caller who does not read: closing it would wait for that."""
        abort: Callable[[], None] | None = self.scope.get(ABORT)
        if abort is not None:
            abort()
            await self.gone()


def text_header(headers: Mapping[bytes, bytes], name: str) -> str | None:
    """A header of 1 to 255 printable characters, or None. Raises ApiError (400) for others."""
    value = headers.get(name.lower().encode())
    return None if value is None else printable(name, value)


def printable(name: str, value: bytes) -> str:
    """The text, 1 to 255 printable characters. Raises ApiError (400) naming the field."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    if not 1 <= len(text) <= TEXT_HEADER_MAX or not text.isprintable():
        raise invalid(name, f"1 to {TEXT_HEADER_MAX} printable characters")
    return text


def meta_of(headers: Mapping[bytes, bytes], request_id: str) -> Meta:
    """Who writes, as a call's headers say. Raises ApiError (400)."""
    actor = "api" if b"x-actor" not in headers else text_header(headers, "X-Actor") or "api"
    trace = headers.get(b"traceparent")
    return Meta(actor, request_id, "" if trace is None else _read_trace(trace))


def _read_trace(sent: bytes) -> str:
    """A traceparent; empty for one that is malformed: W3C Trace Context has it ignored, not
    refused. Of a later version, what this one knows of it."""
    found = _TRACEPARENT.fullmatch(sent)
    if found is None:
        return ""
    if found["version"] == b"00":
        return "" if found["more"] else sent.decode()
    # Of the flags, that is whether it is sampled.
    return f"00{found['ids'].decode()}{int(found['flags'], 16) & 1:02x}"


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The name that the caller gave to the call, if it can be one; else a new one."""
    sent = headers.get(b"x-request-id")
    if sent is not None and 1 <= len(sent) <= REQUEST_ID_MAX and sent.isascii():
        text = sent.decode("ascii")
        if text.isprintable():
            return text
    return new_request_id()


def new_request_id() -> str:
    """A name for a request whose caller gave it none."""
    return f"{_request_prefix}-{next(_request_numbers):x}"


def _too_slow(message: str) -> ApiError:
    return ApiError(ErrorCode.REQUEST_TIMEOUT, message, headers=[CLOSE])


def _too_large(bytes_max: int) -> ApiError:
    return ApiError(
        ErrorCode.PAYLOAD_TOO_LARGE,
        f"the body is larger than {bytes_max} bytes",
        {"field": "body", "expected": f"at most {bytes_max} bytes"},
    )
