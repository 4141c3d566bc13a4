"""The application before its ledger is open: it answers at once, and begins to work by itself."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from api.app import App
from api.errors import ApiError
from api.gate import Gate
from api.health import live
from api.resource import Resource
from ledger.rejections import RejectionCode

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Entrance:
    """An ASGI application: /livez is 200 and everything else 503, until `open` gives the App."""

    def __init__(self) -> None:
        self._answering: ASGIApp = Gate(_not_open_yet, {"/livez": Resource({"GET": live})})
        self._app: App | None = None

    def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> Awaitable[None]:
        return self._answering(scope, receive, send)

    def open(self, app: App) -> None:
        """Let `app` answer from now on."""
        self._answering = self._app = app

    async def stop_waiting(self) -> None:
        """`App.stop_waiting`, if there is one yet."""
        if self._app is not None:
            await self._app.stop_waiting()

    async def close(self) -> None:
        """`App.close`, if there is one yet."""
        if self._app is not None:
            await self._app.close()


async def _not_open_yet(_scope: "Scope", _receive: "Receive", _send: "Send") -> None:
    raise ApiError(
        RejectionCode.SERVICE_UNAVAILABLE, "the ledger's server has not been reached yet; try again"
    )
