"""Refusing work before the server has no room for it."""

import asyncio
import re
import time
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ledger.redis_connection import send
from ledger.rejections import Rejection, RejectionCode

log = structlog.get_logger("overload")

READ_EVERY_S: Final = 1.0
READ_TIMEOUT_S: Final = 0.5

_MEMORY = re.compile(rb"^(used_memory|maxmemory):(\d+)", re.MULTILINE)


class MemoryGuard:
    """Knows, about a second late, whether the server's memory is nearly spent.

    The server is asked at most once in READ_EVERY_S, and only while submissions come in. They do
    not wait for the answer, unless nothing is known yet or the last answer was bad: then waiting
    is better than letting too much in, or than refusing on old news.
    """

    def __init__(self, client: Redis, high_percent: int) -> None:
        self._client = client
        self._high_percent = high_percent
        self._used_percent: float | None = None
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Raise Rejection (SERVICE_UNAVAILABLE) while memory is above its bound."""
        if time.monotonic() - self._read_at >= READ_EVERY_S:
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._read())
            if self._used_percent is None or self._used_percent >= self._high_percent:
                # Shared by all who wait: one of them hanging up must not end it for the others.
                await asyncio.shield(self._reading)
        used = self._used_percent
        if used is not None and used >= self._high_percent:
            raise Rejection(
                RejectionCode.SERVICE_UNAVAILABLE,
                f"the ledger's server uses {used:.0f} % of its memory; above "
                f"{self._high_percent} % no new tasks are taken; try again later",
            )

    async def used_percent(self) -> float:
        """Read it now. Raises RedisError or TimeoutError."""
        async with asyncio.timeout(READ_TIMEOUT_S):
            info: bytes = await send(self._client, ("INFO", "memory"))
        found = dict(_MEMORY.findall(info))
        limit = int(found.get(b"maxmemory", 0))
        return 100 * int(found[b"used_memory"]) / limit if limit else 0.0

    async def close(self) -> None:
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def _read(self) -> None:
        try:
            self._used_percent = await self.used_percent()
        except (RedisError, TimeoutError, OSError) as error:
            # Whether the server takes the submission is then for the append to find out.
            log.warning("memory_unknown", reason=str(error))
            self._used_percent = 0.0
        finally:
            self._read_at = time.monotonic()
            self._reading = None
