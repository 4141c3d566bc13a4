"""One gRPC call, as the methods see it, and the frame around them: requests are read, errors become
statuses, and what a call took is measured."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from api.errors import ApiError, ErrorCode, invalid
from api.exchange import meta_of, request_id_of
from api.gate import as_api_error
from api.grpc.statuses import STATUSES, error_message, error_metadata
from consumers.meters import Meter
from ledger.codec import Meta
from ledger.rejections import RejectionCode

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

Context = grpc.aio.ServicerContext[Any, Any]

Write = Callable[[bytes], Awaitable[None]]

REQUEST_ID: Final = "x-request-id"
POSITION: Final = "ledger-position"

ANSWER_MARGIN_S: Final = 0.2
"""So long before its deadline a call that waits answers with what there is."""


class Call:
    """What goes with a request, and with its answer."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.headers: Mapping[bytes, bytes] = {
            name.encode(): value if isinstance(value, bytes) else value.encode()
            for name, value in context.invocation_metadata() or ()
        }
        self.request_id = request_id_of(self.headers)
        self._trailing = [(REQUEST_ID, self.request_id)]

    @property
    def peer(self) -> str:
        """The address that the call comes from, without its port."""
        _, _, rest = self._context.peer().partition(":")
        return rest.rpartition(":")[0] or rest

    def meta(self) -> Meta:
        """Who writes. Raises ApiError (400)."""
        return meta_of(self.headers, self.request_id)

    def worker_meta(self, actor: str) -> Meta:
        """The same of a call of a worker's. One may be about many tasks: what it makes happen
        belongs to each task's own trace, never to the call's."""
        return Meta(actor, self.request_id)

    @property
    def wanted_position(self) -> bytes | None:
        """What the caller has written, and wants to see."""
        return self.headers.get(POSITION.encode())

    def wrote(self, position: str) -> None:
        """Tell the caller where its write stands; empty: there was none."""
        if position:
            self._trailing.append((POSITION, position))

    def wait_s(self, field: str, wait_ms: int, seconds_max: int) -> float:
        """How long the call may wait: as it asks, but within its deadline. Raises ApiError."""
        if not 0 <= wait_ms <= 1_000 * seconds_max:
            raise invalid(field, f"milliseconds from 0 to {1_000 * seconds_max}")
        left_s = cast("float | None", self._context.time_remaining())
        wait_s = wait_ms / 1_000
        return wait_s if left_s is None else max(0.0, min(wait_s, left_s - ANSWER_MARGIN_S))

    def if_not_answered(self, call: Callable[[], None]) -> None:
        """Call when the caller has gone before the answer was on its way."""

        def ended(context: Context) -> None:
            if not context.done():
                call()

        self._context.add_done_callback(cast("Any", ended))

    def finish(self) -> None:
        """Put what goes with a good answer beside it."""
        self._context.set_trailing_metadata(tuple(self._trailing))

    async def refuse(self, error: ApiError) -> None:
        """Answer with an error. Raises."""
        await self._context.abort(
            STATUSES[error.code],
            error_message(error),
            (*self._trailing, *error_metadata(error)),
        )


class Frame:
    """Around every call. While there is nobody to answer, calls are UNAVAILABLE."""

    def __init__(self) -> None:
        self.meter: Meter | None = None
        self._in_work = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.reason = "the ledger's server has not been reached yet; try again"
        """Why calls cannot be answered; empty once they can."""

    def open(self, meter: Meter) -> None:
        """Let the methods answer from now on."""
        self.meter = meter
        self.reason = ""

    def close(self, reason: str) -> None:
        """Answer no new calls."""
        self.reason = reason

    async def drained(self, seconds: float) -> None:
        """Return when no call is in work, or time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    def unary(
        self,
        name: str,
        kind: type[Request],
        method: Callable[[Request, Call], Awaitable[Response]],
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """The method as the server wants it."""

        async def answer(sent: bytes, context: Context) -> Response:
            call = Call(context)
            with _Measured(self, name) as measured:
                try:
                    response = await method(self._read(kind, sent), call)
                except Exception as error:
                    refusal = self._refusal(error, call, name)
                    measured.end(STATUSES[refusal.code])
                    await call.refuse(refusal)
                    raise
                call.finish()
                measured.code = grpc.StatusCode.OK
                return response

        return grpc.unary_unary_rpc_method_handler(
            cast("Any", answer), response_serializer=_to_bytes
        )

    def stream(
        self,
        name: str,
        kind: type[Request],
        method: Callable[[Request, Call, Write], Awaitable[None]],
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """A method that writes many messages, as bytes. It is measured up to the first."""

        async def answer(sent: bytes, context: Context) -> None:
            call = Call(context)
            with _Measured(self, name) as measured:

                async def write(message: bytes) -> None:
                    measured.end(grpc.StatusCode.OK)
                    await context.write(message)

                try:
                    request = self._read(kind, sent)
                    # Not with the first message: if that is cut off on its way, grpc does not know
                    # that these went with it, and cannot say why the stream ends.
                    await context.send_initial_metadata(())
                    await method(request, call, write)
                except Exception as error:
                    refusal = self._refusal(error, call, name)
                    measured.end(STATUSES[refusal.code])
                    await call.refuse(refusal)
                    raise
                call.finish()

        return grpc.unary_stream_rpc_method_handler(cast("Any", answer))

    def began(self) -> None:
        """A call is in work."""
        self._in_work += 1
        self._idle.clear()

    def ended(self) -> None:
        """It is no more."""
        self._in_work -= 1
        if not self._in_work:
            self._idle.set()

    def _read(self, kind: type[Request], sent: bytes) -> Request:
        if self.reason:
            raise ApiError(RejectionCode.SERVICE_UNAVAILABLE, self.reason)
        try:
            return kind.FromString(sent)
        except DecodeError:
            raise ApiError(
                ErrorCode.INVALID_REQUEST,
                f"the message is no {kind.DESCRIPTOR.name} (text in it has to be UTF-8)",
                {"field": "message", "expected": kind.DESCRIPTOR.full_name},
            ) from None

    def _refusal(self, error: Exception, call: Call, name: str) -> ApiError:
        return as_api_error(error, call.request_id, {}, {"method": name})


class _Measured:
    """A call in work, and how long it takes; a caller who is gone gets no answer, which counts too.
    `with` it: as a generator it would cost more than what it does."""

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame = frame
        self._name = name
        self._began_s = time.perf_counter()
        self._is_told = False
        self.code = grpc.StatusCode.CANCELLED

    def __enter__(self) -> "_Measured":
        self._frame.began()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self.code)
        self._frame.ended()

    def end(self, code: grpc.StatusCode) -> None:
        """Once counts."""
        meter = self._frame.meter
        if meter is not None and not self._is_told:
            meter.call(self._name, code.name, time.perf_counter() - self._began_s)
        self._is_told = True


def _to_bytes(message: Message) -> bytes:
    return message.SerializeToString()
