"""What a handler is told about its task, and what it can say back."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import structlog

MESSAGE_CHARS_MAX = 1_000
"""Longer progress messages are cut."""


class Cancellation:
    """Whether the task is still wanted: true once it is not, and awaitable until then.

    `if context.canceled: ...` works in every executor; `await context.canceled` on the event loop.
    """

    def __init__(self) -> None:
        self._set = False
        self._waiters: list[asyncio.Future[None]] | None = None

    def __bool__(self) -> bool:
        return self._set

    def __await__(self) -> Generator[Any, None, None]:
        if self._set:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:  # most handlers never ask
            self._waiters = []
        self._waiters.append(waiter)
        yield from waiter

    def set(self) -> None:
        """Called on the event loop that the waiters are on."""
        self._set = True
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)


class _Accepted:
    """Already done: `progress` can be awaited in a coroutine, and called plainly elsewhere."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


ACCEPTED = _Accepted()


class Context:
    """One attempt at one task, as its handler sees it.

    attempt    1 on the first run, one more on each
    kb_id      the knowledge base (the tenant) that the task belongs to
    metadata   what the submitter attached, or None
    canceled   true, and awaited, once nobody wants the result any more
    deadline   when the attempt will be stopped, in UTC
    log        a structlog logger that names the task
    traceparent
               the trace of whoever submitted the task, or retried it (W3C Trace Context), or None
    """

    def __init__(
        self,
        *,
        task_id: str,
        task_type: str,
        attempt: int,
        kb_id: str,
        metadata: dict[str, Any] | None,
        deadline_s: float,
        report: Callable[[int, str], None],
        traceparent: str | None = None,
    ) -> None:
        """`deadline_s` is in s since the epoch. `report` is called from any thread."""
        self.task_id = task_id
        self.task_type = task_type
        self.attempt = attempt
        self.kb_id = kb_id
        self.metadata = metadata
        self.deadline_s = deadline_s
        self.traceparent = traceparent
        self.canceled = Cancellation()
        self._report = report

    @cached_property
    def deadline(self) -> datetime:
        return datetime.fromtimestamp(self.deadline_s, UTC)

    @cached_property
    def log(self) -> Any:
        return structlog.get_logger("handler").bind(
            task_id=self.task_id, task_type=self.task_type, attempt=self.attempt
        )

    def progress(self, percent: int, message: str = "") -> Awaitable[None]:
        """Tell how far the work is, 0 to 100. Call it as often as you like: what comes faster than
        the ledger should keep is merged, and the latest counts. Raises ValueError out of range."""
        if not 0 <= percent <= 100:
            raise ValueError(f"progress: expected 0 to 100, got {percent!r}")
        self._report(int(percent), plain_text(str(message), MESSAGE_CHARS_MAX))
        return ACCEPTED


def plain_text(text: str, chars_max: int) -> str:
    """As much of a text as the ledger takes: cut, and `?` for halves of characters, which file
    names that are not UTF-8 bring along and JSON cannot carry."""
    return text[:chars_max].encode(errors="replace").decode()
