"""Threads that do the blocking work of an event loop.

An executor of the standard library wakes the loop for each piece of work and hands each outcome
through two futures, which costs a small piece more than the work itself. Hands take what has
gathered while they were busy, and the loop hears of all that is done by then at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Job = TypeVar("Job")

Outcome = Exception | None
"""Of a job: what it failed with, if it did."""


class Hands(Generic[Job]):
    """At most `threads_max` of `threads` that do jobs in the order they came, up to `at_once_max`
    together. `do` is called in a thread with these, and returns the outcome of each. It belongs to
    one event loop."""

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        threads_max: int,
        do: Callable[[Sequence[Job]], Sequence[Outcome]],
        at_once_max: int = 1,
    ) -> None:
        self._threads = threads
        self._threads_max = threads_max
        self._do = do
        self._at_once_max = at_once_max
        self._waiting: deque[_Order[Job]] = deque()
        self._busy = 0
        self._over: deque[_Order[Job] | None] = deque()
        """Done, but the loop has not heard of it; None is a thread that ended."""
        self._told = False
        """The loop is about to look at what is over."""

    async def do(self, job: Job) -> None:
        """Have it done; it is over when this returns or raises, even where the caller is cancelled
        meanwhile. Raises what the job failed with."""
        loop = asyncio.get_running_loop()
        order = _Order(job, loop)
        self._waiting.append(order)
        self._call(loop)
        try:
            await order.ended
        except asyncio.CancelledError:
            # The thread goes on, whoever stops waiting for it.
            await order.until_over()
            raise
        finally:
            del order  # it has the error, which has this frame

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting and self._busy < self._threads_max:
            self._busy += 1
            self._threads.submit(self._work, loop)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until nothing waits. Called in a thread."""
        while orders := self._taken():
            # Kept in no variable: an error has this frame, and must not have itself.
            _note(orders, self._outcomes([order.job for order in orders]))
            self._end(loop, orders)
        self._end(loop, [None])

    def _outcomes(self, jobs: Sequence[Job]) -> Sequence[Outcome]:
        try:
            return self._do(jobs)
        except Exception as error:
            return [error] * len(jobs)

    def _taken(self) -> "list[_Order[Job]]":
        orders: list[_Order[Job]] = []
        # Other threads take too: it may be empty whatever was seen before.
        try:
            while len(orders) < self._at_once_max:
                orders.append(self._waiting.popleft())
        except IndexError:
            pass
        return orders

    def _end(self, loop: asyncio.AbstractEventLoop, orders: "Sequence[_Order[Job] | None]") -> None:
        self._over.extend(orders)
        # In this order: the loop takes back its word before it looks.
        if not self._told:
            self._told = True
            loop.call_soon_threadsafe(self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._told = False
        while self._over:
            order = self._over.popleft()
            if order is None:
                self._busy -= 1
            else:
                order.end()
        # What came while the thread was about to end.
        self._call(loop)


class _Order(Generic[Job]):
    """A job, and who waits for it."""

    __slots__ = ("_over", "ended", "job", "outcome")

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self.job = job
        self.outcome: Outcome = None
        self.ended: asyncio.Future[None] = loop.create_future()
        self._over = False

    def end(self) -> None:
        """Tell who waits. Called on the loop."""
        self._over = True
        outcome, self.outcome = self.outcome, None
        if self.ended.done():
            return
        if outcome is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(outcome)

    async def until_over(self) -> None:
        """Return when it is over, however often the waiting is cancelled."""
        while not self._over:
            self.ended = asyncio.get_running_loop().create_future()
            try:
                await self.ended
            except asyncio.CancelledError:
                continue
            except Exception:
                return  # nobody is left who asks


def _note(orders: Sequence[_Order[Job]], outcomes: Sequence[Outcome]) -> None:
    for order, outcome in zip(orders, outcomes, strict=True):
        order.outcome = outcome
