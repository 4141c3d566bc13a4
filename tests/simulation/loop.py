"""An event loop with a time of its own, on which several processes live and can be killed.

Nothing is waited for: when no callback is ready, time jumps to the next timer. Which of the ready
callbacks comes first is left to a seeded generator, so that one seed is one order of events.

A process is a tag in the context that tasks and callbacks inherit from what began them. Killing it
drops all its callbacks, as SIGKILL would: no `finally` runs, no `except` sees it.
"""

import asyncio
import contextlib
import contextvars
import heapq
import warnings
from asyncio import events
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final, TypeVar, cast

Result = TypeVar("Result")

CALLBACKS_MAX: Final = 400_000
"""More in one run are taken for an endless loop."""

CLOSINGS_MAX: Final = 20


class Stuck(Exception):
    """Nothing is left to happen, or what happens never ends."""


class Process:
    """What lives and dies together."""

    def __init__(self, seat: str, birth: int = 1) -> None:
        """`seat` is what it is there for, `birth` how many have had that seat, itself included."""
        self.seat = seat
        self.name = f"{seat}.{birth}"
        self.alive = True
        self.paused = False
        self.callbacks = 0
        self.kill_at = 0
        """Its callback with this number is its last; 0: none."""
        self.held: list[Handle] = []
        """What became ready while it was paused."""
        self.disturbed_until_s = float("-inf")
        """Until then, what it owes may be late."""
        self.late_until_s = float("-inf")
        """Until then, a request may arrive that it has given up."""


PROCESS: Final[contextvars.ContextVar[Process | None]] = contextvars.ContextVar(
    "process", default=None
)


class Handle(events.TimerHandle):
    """A callback to come, with what is needed of `asyncio.TimerHandle` and no more."""

    __slots__ = ("arguments", "callback", "context", "due", "number", "process")

    def __init__(
        self,
        due: float,
        number: int,
        callback: Callable[..., Any],
        arguments: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        # Without that of the class above, which looks up where it was called from.
        self.due = due
        self.number = number
        self.process = context.get(PROCESS)
        self.callback = callback
        self.arguments = arguments
        self.context = context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def when(self) -> float:
        return self.due

    def __lt__(self, other: Any) -> bool:
        return (self.due, self.number) < (other.due, other.number)

    @property
    def is_dropped(self) -> bool:
        return self._cancelled or (self.process is not None and not self.process.alive)


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs what asyncio's tasks, futures, locks and time-outs need; no threads, no sockets."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance.random
        self._now_s = 0.0
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = 0
        self._running = False
        self._tasks: list[asyncio.Task[Any]] = []
        self.nobody = contextvars.Context()
        """The context of what belongs to no process."""
        self.callbacks = 0
        self.broken: list[str] = []
        """What no task took care of."""
        self.is_over = False
        """What raises from now on, raises because it is being disposed of."""
        self.on_kill: Callable[[Process], None] | None = None

    # -- what asyncio asks of a loop ----------------------------------------------------------

    def time(self) -> float:
        return self._now_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        handle = Handle(
            0.0, 0, callback, args, contextvars.copy_context() if context is None else context
        )
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        self._numbers += 1
        handle = Handle(
            when,
            self._numbers,
            callback,
            args,
            contextvars.copy_context() if context is None else context,
        )
        heapq.heappush(self._timers, (when, self._numbers, handle))
        return handle

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name or "-", context=context)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.is_over:
            self.broken.append(f"{context.get('message')}: {context.get('exception')!r}")

    # -- processes ----------------------------------------------------------------------------

    def start(self, process: Process, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run `work` as the main task of a process."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(work, name=process.name, context=context)

    def kill(self, process: Process) -> None:
        """Nothing of the process happens any more."""
        if process.alive:
            process.alive = False
            process.held.clear()
            if self.on_kill is not None:
                self.on_kill(process)

    def resume(self, process: Process) -> None:
        """Let a paused process catch up."""
        process.paused = False
        self._ready += process.held
        process.held.clear()

    # -- running ------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run until `work` is done. Raises Stuck when it never will be."""
        previous = events._get_running_loop()
        events._set_running_loop(self)
        self._running = True
        try:
            main = self.create_task(work)
            while not main.done():
                self._turns(main)
            return cast("Result", main.result())
        finally:
            self._dispose()
            self._running = False
            events._set_running_loop(previous)

    def _turns(self, main: "asyncio.Task[Any]") -> None:
        """Run what is ready, one callback after the other; then let time pass."""
        ready, is_done = self._ready, main.done
        while ready:
            handle = ready.pop() if len(ready) == 1 else self._draw()
            process = handle.process
            if handle._cancelled:
                continue
            if process is not None:
                if not process.alive:
                    continue
                if process.paused:
                    process.held.append(handle)
                    continue
                process.callbacks += 1
                if process.callbacks == process.kill_at:
                    self.kill(process)
                    continue
            self.callbacks += 1
            handle.context.run(handle.callback, *handle.arguments)
            if is_done():
                return
        if self.callbacks > CALLBACKS_MAX:
            raise Stuck(f"{CALLBACKS_MAX} callbacks, and no end in sight")
        self._jump()

    def _draw(self) -> Handle:
        ready = self._ready
        index = int(self._chance() * len(ready))
        handle, ready[index] = ready[index], ready[-1]
        ready.pop()
        return handle

    def _jump(self) -> None:
        timers = self._timers
        if not timers:
            raise Stuck("nothing is left to happen")
        self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            handle = heapq.heappop(timers)[2]
            if not handle.is_dropped:
                self._ready.append(handle)

    def _dispose(self) -> None:
        """End the coroutines of those that were killed, and of what still waits: whatever their
        `finally` clauses do, nobody looks any more."""
        self.is_over = True
        self._ready.clear()
        self._timers.clear()
        with warnings.catch_warnings():
            # A task that was to await another coroutine and never began.
            warnings.simplefilter("ignore", RuntimeWarning)
            self._end_tasks()
        self._ready.clear()
        self._timers.clear()

    def _end_tasks(self) -> None:
        for task in self._tasks:
            if task.done():
                if not task.cancelled():
                    task.exception()
                continue
            cast("Any", task)._log_destroy_pending = False
            coroutine = cast("Any", task.get_coro())
            for _ in range(CLOSINGS_MAX):
                with contextlib.suppress(BaseException):  # it awaits, or raises, on its way out
                    coroutine.close()
                    break
        self._tasks.clear()
