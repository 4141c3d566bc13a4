"""What is on its way to one client of a live feed: bounded in bytes, messages and time."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

BUFFER_MESSAGES_MAX: Final = 1_024
BUFFER_BYTES_MAX: Final = 4 * 1024 * 1024
"""What may wait for one client; one that has more to read when more comes is dropped."""

PART_BYTES: Final = 64 * 1024

SEND_TIMEOUT_S: Final = 20.0
"""A client that takes nothing for so long is dropped."""


class Outbox:
    """Messages, each as it goes over the wire. `overflown` is done when one did not fit.

    `heartbeat` makes what is sent when there was nothing else for `heartbeat_s`; nothing at all is
    sent where that is empty.
    """

    def __init__(self, heartbeat: Callable[[], bytes], heartbeat_s: float) -> None:
        self._heartbeat = heartbeat
        self._heartbeat_s = heartbeat_s
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.overflown: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def room(self) -> None:
        """Return when most of what waited is sent."""
        await self._drained.wait()

    def put(self, message: bytes) -> None:
        """Line up the next message."""
        if self._bytes > BUFFER_BYTES_MAX or len(self._waiting) > BUFFER_MESSAGES_MAX:
            if not self.overflown.done():
                self.overflown.set_result(None)
            return
        self._waiting.append(message)
        self._bytes += len(message)
        self._filled.set()
        if self._bytes > BUFFER_BYTES_MAX // 2 or len(self._waiting) > BUFFER_MESSAGES_MAX // 2:
            self._drained.clear()

    async def send_all(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what there is, for ever. Raises TimeoutError when the client takes nothing."""
        while True:
            part = await self._next_part()
            if part:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await write(part)

    async def _next_part(self) -> bytes:
        if not self._waiting:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._filled.wait()
            except TimeoutError:
                if not self._waiting:
                    return self._heartbeat()
        parts = [self._waiting.popleft()]
        size = len(parts[0])
        while self._waiting and size + len(self._waiting[0]) <= PART_BYTES:
            parts.append(self._waiting.popleft())
            size += len(parts[-1])
        self._bytes -= size
        if not self._waiting:
            self._filled.clear()
        if self._bytes <= BUFFER_BYTES_MAX // 2 and len(self._waiting) <= BUFFER_MESSAGES_MAX // 2:
            self._drained.set()
        return parts[0] if len(parts) == 1 else b"".join(parts)
