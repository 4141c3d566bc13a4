"""The server's clock, as a process knows it without asking each time."""

import asyncio
import time
from typing import Final

from redis.exceptions import RedisError

from ledger.redis_connection import Caller
from ledger.rejections import Rejection

SYNC_INTERVAL_S: Final = 60.0


class ServerClock:
    """Counts on from the server's time with this host's steady clock, so that neither a wrong
    clock nor one that is set while we run does any harm."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._offset_ms = 0.0
        self._synced_at_s = float("-inf")
        self._syncing: asyncio.Task[None] | None = None

    def now_ms(self) -> int:
        """Milliseconds since the epoch. Asks the server again, aside, once a minute."""
        now_s = time.monotonic()
        if now_s - self._synced_at_s > SYNC_INTERVAL_S and self._syncing is None:
            self._syncing = asyncio.get_running_loop().create_task(self._sync_quietly())
        return int(now_s * 1000 + self._offset_ms)

    async def sync(self) -> None:
        """Ask the server; the quickest of three replies counts. Raises Rejection."""
        best_s = float("inf")
        for _ in range(3):
            sent_s = time.monotonic()
            seconds, micros = await self._caller.command("TIME")
            took_s = time.monotonic() - sent_s
            if took_s < best_s:
                best_s = took_s
                server_ms = int(seconds) * 1000 + int(micros) / 1000
                self._offset_ms = server_ms - (sent_s + took_s / 2) * 1000
        self._synced_at_s = time.monotonic()

    async def close(self) -> None:
        """Wait for a question that is under way."""
        if self._syncing is not None:
            await asyncio.wait([self._syncing])

    async def _sync_quietly(self) -> None:
        try:
            await self.sync()
        except (Rejection, RedisError):
            # Out of reach: the old offset serves until the next try.
            self._synced_at_s = time.monotonic()
        finally:
            self._syncing = None
