"""What one path answers, by method."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from api.errors import ApiError, ErrorCode, Header
from api.exchange import UNROUTED, Exchange
from api.gate import EXCHANGE

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

Endpoint = Callable[[Exchange], Awaitable[None]]


class Resource:
    """What a path answers, by method: HEAD as GET, OPTIONS with what there is, others with 405.

    An object, not a function, so that Starlette calls it as an ASGI application directly.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self.endpoints: Mapping[str, Endpoint] = dict(endpoints)
        """As given: what the API's description is made from."""
        self.route = UNROUTED
        """The path's template, as metrics name it; the table knows it."""
        self._handlers = dict(endpoints)
        if "GET" in endpoints:
            self._handlers["HEAD"] = endpoints["GET"]
        self._handlers["OPTIONS"] = self._options
        allow = ", ".join(sorted(self._handlers)).encode()
        self._allow: Header = (b"allow", allow)

    def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> Awaitable[None]:
        exchange: Exchange = scope[EXCHANGE]
        exchange.route = self.route
        return self._handlers.get(scope["method"], self._refuse)(exchange)

    async def _options(self, exchange: Exchange) -> None:
        await exchange.respond_empty(204, [self._allow])

    async def _refuse(self, exchange: Exchange) -> None:
        allowed = self._allow[1].decode()
        raise ApiError(
            ErrorCode.METHOD_NOT_ALLOWED,
            f"{exchange.scope['method']} is not possible here, only {allowed}",
            {"allowed": allowed.split(", ")},
            [self._allow],
        )
