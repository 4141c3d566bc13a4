"""The outermost layer: makes the exchange, and turns whatever goes wrong into the one error shape.

On the good path it costs a `try` and a look-up.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog
from redis.exceptions import RedisError

from api.errors import ApiError, ErrorCode, answer, of_rejection
from api.exchange import ClientGone, Exchange
from ledger.rejections import Rejection, RejectionCode

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

log = structlog.get_logger("api")

REQUESTS_MAX: Final = 10_000
"""Requests in work at once in one process; more get 503 rather than memory."""

EXCHANGE: Final = "ledgerq.exchange"
"""Where an endpoint finds its Exchange in the ASGI scope."""


class Gate:
    """An ASGI application around another.

    `fixed` paths are found by one look-up, all others through `app`: routing would be a tenth of a
    submission's time.
    """

    def __init__(self, app: "ASGIApp", fixed: Mapping[str, "ASGIApp"]) -> None:
        self._app = app
        self._fixed = fixed
        self._in_work = 0

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope[EXCHANGE] = Exchange(scope, receive, send)
        self._in_work += 1
        try:
            if self._in_work > REQUESTS_MAX:
                raise ApiError(
                    RejectionCode.SERVICE_UNAVAILABLE,
                    f"{REQUESTS_MAX} requests are in work already; try again",
                )
            await self._fixed.get(scope["path"], self._app)(scope, receive, send)
        except ClientGone:
            return
        except Exception as error:
            if exchange.started:
                raise
            refusal = answer(self._as_api_error(error, exchange))
            await exchange.respond(refusal.status, refusal.body, refusal.headers)
        finally:
            self._in_work -= 1

    def _as_api_error(self, error: Exception, exchange: Exchange) -> ApiError:
        match error:
            case ApiError():
                return error
            case Rejection():
                path: dict[str, Any] = exchange.scope.get("path_params", {})
                return of_rejection(error, path)
            case RedisError():
                log.error("redis_refused", request_id=exchange.request_id, reason=str(error))
                return ApiError(
                    RejectionCode.SERVICE_UNAVAILABLE, "the ledger's server refused the call"
                )
            case _:
                log.error(
                    "request_failed",
                    request_id=exchange.request_id,
                    method=exchange.scope["method"],
                    path=exchange.scope["path"],
                    exc_info=error,
                )
                return ApiError(
                    ErrorCode.INTERNAL_ERROR,
                    "something went wrong here; the log has it under this request id",
                    {"request_id": exchange.request_id},
                )


async def not_found(scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Where no route leads."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    raise ApiError(
        ErrorCode.NOT_FOUND, "there is nothing at this path", {"path": scope["path"][:200]}
    )
