"""Progress reports on their way to the ledger: merged, so that a chatty handler stays cheap."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

PROGRESS_INTERVAL_S: Final = 0.2
"""At most one report of a task is written in this time; the latest of those in between counts."""


class ProgressReporter:
    """Sends the latest report of one attempt, at most one each PROGRESS_INTERVAL_S."""

    def __init__(self, send: Callable[[int, str], Awaitable[None]]) -> None:
        self._send = send
        self._latest: tuple[int, str] | None = None
        self._sent_at = float("-inf")
        self._flushing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def report(self, percent: int, message: str) -> None:
        """Take a report, from the event loop; it is written soon."""
        self._latest = (percent, message)
        if self._flushing is None and not self._closing.is_set():
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def close(self) -> None:
        """Write what is left, now; later reports are ignored."""
        self._closing.set()
        if self._flushing is not None:
            await self._flushing

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._latest is not None:
                await self._pause(self._sent_at + PROGRESS_INTERVAL_S - loop.time())
                latest, self._latest = self._latest, None
                await self._send(*latest)
                self._sent_at = loop.time()
        finally:
            self._flushing = None

    async def _pause(self, seconds: float) -> None:
        if seconds > 0 and not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._closing.wait()
