"""Refusing work before the server has no room for it, or for finishing what was taken."""

import asyncio
import re
from typing import Final

import structlog
from redis.exceptions import RedisError

from ledger.keys import PartitionKeys
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Settings

log = structlog.get_logger("overload")

READ_EVERY_S: Final = 1.0
READ_TIMEOUT_S: Final = 2.0
"""A busy server takes its time to answer; that is when it matters most."""

SUBMISSION_COPIES: Final = 2
"""A payload is in its event, and in the task's snapshot."""

SUBMISSION_BYTES: Final = 800
"""What a queued task takes beside its payload; measured: 620 on Valkey 9, 690 on Redis 7.0."""

_MEMORY = re.compile(rb"^(used_memory|maxmemory):(\d+)", re.MULTILINE)


class MemoryGuard:
    """Knows whether the server's memory is spent, or promised.

    A task that was taken needs more memory until it is done: its start, its end and its result are
    events too, and nothing takes them away. So a share is kept free for each unfinished task; else
    the server would take tasks up to its limit, and then refuse to let any of them finish.

    The server is asked at most once in READ_EVERY_S, and only while submissions come in; what was
    let in since counts as well. They do not wait for the answer, unless nothing is known yet or the
    last answer was bad: then waiting is better than letting too much in, or than refusing on old
    news.
    """

    def __init__(self, store: RedisStore, settings: Settings) -> None:
        self._store = store
        self._task_types = settings.known_task_types
        self._high_percent = settings.memory_high_percent
        self._reserve_bytes = settings.memory_reserve_bytes
        self._limit_bytes = 0
        self._spoken_for_bytes: int | None = None
        """Used, or kept for unfinished tasks, when it was last read."""
        self._let_in_bytes = 0
        """By this process, since then."""
        self._read_at_s = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._is_unknown = False

    async def check(self, tasks: int, body_bytes: int) -> None:
        """Take note that so many tasks are let in, or raise Rejection (QUEUE_FULL)."""
        if asyncio.get_running_loop().time() - self._read_at_s >= READ_EVERY_S:
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._read())
            if self._spoken_for_bytes is None or self._percent() >= self._high_percent:
                # Shared by all who wait: one of them hanging up must not end it for the others.
                await asyncio.shield(self._reading)
        percent = self._percent()
        if percent >= self._high_percent:
            raise Rejection(
                RejectionCode.QUEUE_FULL,
                f"{percent:.0f} % of the server's memory is used, or kept for finishing the tasks"
                f" that are there; above {self._high_percent} % no new ones are taken; try again"
                " later",
            )
        each = SUBMISSION_BYTES + self._reserve_bytes
        self._let_in_bytes += tasks * each + SUBMISSION_COPIES * body_bytes

    async def spoken_for_percent(self) -> float:
        """Read it now. Raises RedisError, Rejection or TimeoutError."""
        limit, spoken_for = await self._ask()
        return 100 * spoken_for / limit if limit else 0.0

    async def close(self) -> None:
        if self._reading is not None:
            await asyncio.wait([self._reading])

    def _percent(self) -> float:
        if not self._limit_bytes or self._spoken_for_bytes is None:
            return 0.0
        return 100 * (self._spoken_for_bytes + self._let_in_bytes) / self._limit_bytes

    async def _ask(self) -> tuple[int, int]:
        """The server's limit (0: none), and how much of it is used or kept."""
        async with asyncio.timeout(READ_TIMEOUT_S):
            info: bytes = await send(self._store.client, ("INFO", "memory"))
            found = dict(_MEMORY.findall(info))
            limit = int(found.get(b"maxmemory", 0))
            kept = await self._unfinished() * self._reserve_bytes if limit else 0
        return limit, int(found[b"used_memory"]) + kept

    async def _unfinished(self) -> int:
        waiting = await asyncio.gather(*(self._store.waiting(name) for name in self._task_types))
        ready = sum(sum(counts) for each in waiting for counts in each.values())
        names = [PartitionKeys(partition) for partition in range(self._store.partitions)]
        elsewhere = [
            await send(self._store.client, ("ZCARD", key))
            for each in names
            for key in (each.due, each.leases)
        ]
        return ready + sum(elsewhere)

    async def _read(self) -> None:
        let_in_before = self._let_in_bytes
        try:
            self._limit_bytes, self._spoken_for_bytes = await self._ask()
            self._let_in_bytes -= let_in_before
        except (RedisError, Rejection, TimeoutError, OSError) as error:
            # What was known last holds, with what was let in since: a server that is too busy to
            # answer is no reason to let more in. While nothing is known, the append finds out.
            if not self._is_unknown:
                log.warning(
                    "memory_unknown", reason=str(error) or f"no answer in {READ_TIMEOUT_S} s"
                )
            self._is_unknown = True
        else:
            self._is_unknown = False
        finally:
            self._read_at_s = asyncio.get_running_loop().time()
            self._reading = None
