"""What many requests want to know of the ledger at once."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


class SharedAnswer(Generic[Answer]):
    """The answer to a question that is asked once for all who want to know at the same time, and
    anew once it was asked `fresh_s` ago. It belongs to one event loop."""

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, Answer]], fresh_s: float) -> None:
        self._ask = ask
        self._fresh_s = fresh_s
        self._asking: asyncio.Task[Answer] | None = None
        self._asked_s = 0.0

    async def get(self) -> Answer:
        """Raises what asking raises, for all who wait for it, and for nobody afterwards."""
        loop = asyncio.get_running_loop()
        if self._asking is None or (
            self._asking.done() and loop.time() - self._asked_s >= self._fresh_s
        ):
            self._asked_s = loop.time()
            self._asking = loop.create_task(self._ask())
            self._asking.add_done_callback(self._forget_failure)
        # One of them hanging up must not end it for the others.
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Return when it is not being asked any more."""
        if self._asking is not None:
            await asyncio.wait([self._asking])

    def _forget_failure(self, asked: "asyncio.Task[Answer]") -> None:
        """Kept, it would keep the frames of all who waited."""
        if asked.cancelled() or asked.exception() is not None:
            self._asking = None
