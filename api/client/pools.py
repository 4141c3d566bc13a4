"""The connections of a client. They belong to the process that opened them, and to its event loop:
two processes on one connection would be given each other's answers."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from api.client.wire import Where

if TYPE_CHECKING:
    import asyncio

Http = TypeVar("Http")


class Pools(Generic[Http]):
    """Made again where those that there are cannot be used: in a process that was forked, and in
    the event loop that follows one which is closed, as with each `asyncio.run`."""

    def __init__(self, kind: Callable[..., Http], where: Where, transport: Any) -> None:
        self._kind = kind
        self._calls = where.options | {"transport": transport}
        self._feeds = self._calls | where.feed_options
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pools = self._made()

    def own(self, loop: "asyncio.AbstractEventLoop | None" = None) -> tuple[Http, Http]:
        """Those for calls, and those for feeds, of this process and loop. Raises RuntimeError while
        another loop has them."""
        process = os.getpid()
        if process != self._process:
            self._pools = self._made()
        elif self._loop not in (None, loop):
            if not self._loop.is_closed():
                raise RuntimeError(
                    "this client belongs to another event loop, which is not closed: make one for"
                    " each loop"
                )
            self._pools = self._made()
        self._process, self._loop = process, loop
        return self._pools

    def _made(self) -> tuple[Http, Http]:
        # What there was is left alone: to close it would take locks that another thread of the
        # process before may have held, or the loop that is closed.
        return self._kind(**self._calls), self._kind(**self._feeds)
