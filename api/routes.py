"""Every path of the API and what it answers: one table."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from starlette.routing import Route

from api.commands import Commands
from api.errors import ApiError, ErrorCode, Header
from api.event_stream import EventStreams
from api.exchange import Exchange
from api.explain import Explain
from api.gate import EXCHANGE
from api.health import HealthChecks, live
from api.queries import Queries

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

Handler = Callable[[Exchange], Awaitable[None]]


class Resource:
    """What a path answers, by method: HEAD as GET, OPTIONS with what there is, others with 405.

    An object, not a function, so that Starlette calls it as an ASGI application directly.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._handlers["OPTIONS"] = self._options
        allow = ", ".join(sorted(self._handlers)).encode()
        self._allow: Header = (b"allow", allow)

    def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> Awaitable[None]:
        handler = self._handlers.get(scope["method"], self._refuse)
        return handler(scope[EXCHANGE])

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


def routes(
    commands: Commands,
    queries: Queries,
    explain: Explain,
    streams: EventStreams,
    health: HealthChecks,
) -> list[Route]:
    """The table, from path and method to endpoint; the busiest first."""
    task = "/api/v1/tasks/{task_id}"
    return [
        Route("/api/v1/tasks", Resource({"POST": commands.submit})),
        Route("/api/v1/tasks/batch", Resource({"POST": commands.submit_batch})),
        Route(task, Resource({"GET": queries.task, "DELETE": commands.cancel})),
        Route(f"{task}/events", Resource({"GET": queries.events})),
        Route(f"{task}/explain", Resource({"GET": explain.task})),
        Route(f"{task}/progress", Resource({"PUT": commands.progress})),
        Route(f"{task}/retry", Resource({"POST": commands.retry})),
        Route("/api/v1/events", Resource({"GET": streams.events})),
        Route("/health", Resource({"GET": health.health})),
        Route("/livez", Resource({"GET": live})),
        Route("/readyz", Resource({"GET": health.ready})),
    ]
