"""Notices when the event loop stands still, and says which handler holds it up, and where.

A coroutine that computes, or calls what blocks, keeps everything else on its loop from moving:
other tasks, heartbeats, time-outs and cancels, its own included. A thread beside the loop sees it.
"""

import asyncio
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, Final, Protocol

import structlog

log = structlog.get_logger("worker")

FRAMES_MAX: Final = 12
"""Of the stack, the innermost ones are told."""


ORPHAN_EXIT: Final = 70
"""EX_SOFTWARE in sysexits.h."""


class Running(Protocol):
    """What is known of an attempt whose handler runs."""

    @property
    def task_id(self) -> str: ...
    @property
    def task_type(self) -> str: ...


RUNNING: Final[ContextVar[Running | None]] = ContextVar("RUNNING", default=None)
"""The attempt that a coroutine belongs to; tasks that its handler makes inherit it."""


class LoopWatch:
    """`run` on the loop to be watched, until cancelled."""

    def __init__(
        self,
        blocked_s: float,
        on_blocked: Callable[[str], None],
        on_moves: Callable[[str, float], None],
        *,
        on_stood: Callable[[], None] = lambda: None,
        orphan_s: float = float("inf"),
    ) -> None:
        """`on_blocked` is told, from the thread, of the task type that holds the loop up, empty
        when that is unknown; `on_moves` of the same once it moves again, and for how many seconds
        it stood. `on_stood` is called then too, whoever held it up, if only the whole process. One
        that lost its parent, and whose loop stands for `orphan_s`, is ended: nobody else would do
        that."""
        self._blocked_s = blocked_s
        self._tick_s = blocked_s / 4
        self._on_blocked = on_blocked
        self._on_moves = on_moves
        self._on_stood = on_stood
        self._orphan_s = orphan_s
        self._parent = os.getppid()
        self._moved_at = time.monotonic()
        self._ended = threading.Event()
        self._found: str | None = None
        """The task type that was told as holding up the loop, until it moves."""

    async def run(self) -> None:
        """Show that the loop moves, and let the thread look. Does nothing without a bound."""
        if not self._blocked_s:
            return
        loop = asyncio.get_running_loop()
        arguments = (loop, threading.get_ident())
        thread = threading.Thread(target=self._look, args=arguments, name="loop-watch", daemon=True)
        self._moved_at = time.monotonic()
        thread.start()
        try:
            while True:
                await asyncio.sleep(self._tick_s)
                self._move()
        finally:
            self._ended.set()

    def _move(self) -> None:
        now = time.monotonic()
        stood_s, self._moved_at = now - self._moved_at, now
        if stood_s > self._blocked_s:
            self._on_stood()
        found, self._found = self._found, None
        if found is not None:
            log.warning(
                "event_loop_moves_again", task_type=found or None, blocked_s=round(stood_s, 1)
            )
            self._on_moves(found, stood_s)

    def _look(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        """In a thread of its own."""
        looked_at = time.monotonic()
        while not self._ended.wait(self._tick_s):
            now = time.monotonic()
            late_s, looked_at = now - looked_at - self._tick_s, now
            if late_s > self._blocked_s:
                # This thread stood still too, so the loop is not to blame alone.
                log.warning(
                    "process_stood_still",
                    seconds=round(late_s, 1),
                    hint="it was stopped, had no processor, or a handler held the interpreter",
                )
            elif now - self._moved_at > self._orphan_s and os.getppid() != self._parent:
                log.error("orphan_ended", blocked_s=round(now - self._moved_at, 1))
                os._exit(ORPHAN_EXIT)
            elif now - self._moved_at > self._blocked_s and self._found is None:
                self._found = self._tell(loop, thread, now - self._moved_at)
                self._on_blocked(self._found)

    def _tell(self, loop: asyncio.AbstractEventLoop, thread: int, stood_s: float) -> str:
        running = running_on(loop)
        frames = _frames(thread)
        log.error(
            "event_loop_blocked",
            task_id=None if running is None else running.task_id,
            task_type=None if running is None else running.task_type,
            blocked_s=round(stood_s, 1),
            at=frames[-1] if frames else None,
            stack="\n".join(frames),
            hint="a coroutine must not block: use a plain def, or executor='process'",
        )
        return "" if running is None else running.task_type


def running_on(loop: asyncio.AbstractEventLoop) -> Running | None:
    """The attempt whose code a loop runs at this moment; called from another thread."""
    task = asyncio.current_task(loop)
    context = None if task is None else _context_of(task)
    return None if context is None else context.get(RUNNING)


def _context_of(task: asyncio.Task[Any]) -> Context | None:
    if sys.version_info >= (3, 12):
        return task.get_context()
    # Python 3.11 does not tell, but its collector knows what a task refers to.
    found = (each for each in gc.get_referents(task) if isinstance(each, Context))
    return next(found, None)


def _frames(thread: int) -> list[str]:
    """Where a thread is: file, line, function and source of each frame, the innermost last."""
    frame = sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage] # documented
    stack = traceback.extract_stack(frame)[-FRAMES_MAX:]
    return [f"{each.filename}:{each.lineno} in {each.name}: {each.line}" for each in stack]
