"""The outermost layer: makes the exchange, and turns whatever goes wrong into the one error shape.

On the good path it costs a `try`, a look-up and a measurement.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog
from redis.exceptions import RedisError

from api.errors import ApiError, ErrorCode, answer, of_rejection
from api.exchange import ClientGone, Exchange
from consumers.meters import Meter
from ledger.rejections import Rejection, RejectionCode

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

log = structlog.get_logger("api")

REQUESTS_MAX: Final = 10_000
"""Requests in work at once in one process; more get 503 rather than memory."""

CLIENT_GONE: Final = 499
"""As nginx logs it: nobody was left to answer."""

STOPPED: Final = "the service stops, and this took too long to wait for it: send it again"

EXCHANGE: Final = "ledgerq.exchange"
"""Where an endpoint finds its Exchange in the ASGI scope."""


class Gate:
    """An ASGI application around another.

    `fixed` paths are found by one look-up, all others through `app`: routing would be a tenth of a
    submission's time.
    """

    def __init__(
        self, app: "ASGIApp", fixed: Mapping[str, "ASGIApp"], meter: Meter | None = None
    ) -> None:
        self._app = app
        self._fixed = fixed
        self._meter = meter or Meter()
        self._in_work = 0

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope[EXCHANGE] = Exchange(scope, receive, send)
        self._in_work += 1
        began_s = time.perf_counter()
        try:
            if self._in_work > REQUESTS_MAX:
                raise ApiError(
                    RejectionCode.SERVICE_UNAVAILABLE,
                    f"{REQUESTS_MAX} requests are in work already; try again",
                )
            await self._fixed.get(scope["path"], self._app)(scope, receive, send)
        except ClientGone:
            return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if exchange.started or task is None or not task.cancelling():
                raise
            # By uvicorn, which waits for what is in work when it stops, and then no longer.
            refusal = answer(ApiError(RejectionCode.SERVICE_UNAVAILABLE, STOPPED))
            await exchange.respond(refusal.status, refusal.body, refusal.headers)
        except Exception as error:
            if exchange.started:
                raise
            refusal = answer(self._as_api_error(error, exchange))
            await exchange.respond(refusal.status, refusal.body, refusal.headers)
        finally:
            # It refers back to the scope: the two would wait for the cycle collector, and with them
            # the request's body and all that the server knows of it.
            del scope[EXCHANGE]
            self._in_work -= 1
            # An answer in parts goes on for as long as its caller likes: until its head counts.
            seconds = (exchange.head_sent_s or time.perf_counter()) - began_s
            status = exchange.status or CLIENT_GONE
            self._meter.request(exchange.route, scope["method"], status, seconds)

    def _as_api_error(self, error: Exception, exchange: Exchange) -> ApiError:
        path: dict[str, Any] = exchange.scope.get("path_params", {})
        where = {"method": exchange.scope["method"], "path": exchange.scope["path"]}
        return as_api_error(error, exchange.request_id, path, where)


def as_api_error(
    error: Exception, request_id: str, details: Mapping[str, Any], where: Mapping[str, str]
) -> ApiError:
    """What a caller is told of whatever went wrong; `where` is for the log alone."""
    match error:
        case ApiError():
            return error
        case Rejection():
            return of_rejection(error, details)
        case RedisError():
            log.error("redis_refused", request_id=request_id, reason=str(error))
            return ApiError(
                RejectionCode.SERVICE_UNAVAILABLE, "the ledger's server refused the call"
            )
        case _:
            log.error("request_failed", request_id=request_id, **where, exc_info=error)
            return ApiError(
                ErrorCode.INTERNAL_ERROR,
                "something went wrong here; the log has it under this request id",
                {"request_id": request_id},
            )


async def not_found(scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Where no route leads."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    raise ApiError(
        ErrorCode.NOT_FOUND, "there is nothing at this path", {"path": scope["path"][:200]}
    )
