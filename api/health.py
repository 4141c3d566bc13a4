"""Whether the service can do its work, asked of what it stands on."""

import asyncio
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.database_health import WELL, Database, DatabaseHealth, DatabaseStatus
from api.describe import Answer, Group, operation
from api.errors import RETRY_AFTER
from api.exchange import Exchange
from api.overload import MemoryGuard
from ledger import __version__
from ledger.codec import encode
from ledger.redis_connection import send
from ledger.rejections import Rejection
from ledger.settings import Settings

CHECK_TIMEOUT_S: Final = 2.0
"""Probes give up after a few seconds themselves: an answer must come before."""

HEALTHY: Final = "healthy"
UNHEALTHY: Final = "unhealthy"


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of one thing that the service stands on; `size` counts keys."""

    status: str
    size: int | None = None
    message: str = ""


class Details(msgspec.Struct, frozen=True):
    """The parts that the contract names."""

    database: Database
    redis: Part
    queue: Part


class Health(msgspec.Struct, frozen=True):
    """The answer of /health."""

    status: str
    service: str
    version: str
    details: Details


@operation("getLiveness", Group.OPERATIONS, {200: Answer("It runs.", Part)})
async def live(exchange: Exchange) -> None:
    """Whether the process runs: 200 as long as it answers at all."""
    exchange.parameters()
    await exchange.respond(200, encode(Part(HEALTHY)))


class HealthChecks:
    """/health and /readyz."""

    def __init__(
        self, client: Redis, memory: MemoryGuard, database: DatabaseHealth, settings: Settings
    ) -> None:
        self._client = client
        self._database = database
        self._memory = memory
        self._high_percent = settings.memory_high_percent
        self._timeout_s = min(CHECK_TIMEOUT_S, settings.redis_timeout_ms / 1000)
        self.stopping = False

    @operation(
        "getHealth",
        Group.OPERATIONS,
        {
            200: Answer("All parts do their work.", Health),
            503: Answer("A part does not; which one stands in the details.", Health),
        },
    )
    async def health(self, exchange: Exchange) -> None:
        """Whether the service can do its work, and else which part is at fault.

        503 as soon as somebody has to do something: the ledger is out of reach or full, a
        projection stopped, the read model is damaged, or nobody keeps it level or can make it. A
        read model that is being made, or is behind, comes right by itself. To decide where requests
        go, ask `/readyz`: tasks are taken and done without the read model.
        """
        exchange.parameters()
        (redis, queue), database = await asyncio.gather(self._parts(), self._database_part())
        well = redis.status == queue.status == HEALTHY and database.status in WELL
        status = HEALTHY if well else UNHEALTHY
        details = Details(database, redis, queue)
        await self._answer(exchange, Health(status, "task-manager", __version__, details))

    @operation(
        "getReadiness",
        Group.OPERATIONS,
        {
            200: Answer("It takes requests.", Part),
            503: Answer("It does not: `message` says why.", Part),
        },
    )
    async def ready(self, exchange: Exchange) -> None:
        """Whether this process takes requests, and can write tasks."""
        exchange.parameters()
        if self.stopping:
            await self._answer(exchange, Part(UNHEALTHY, message="the process is stopping"))
            return
        redis, queue = await self._parts()
        await self._answer(exchange, redis if redis.status != HEALTHY else queue)

    async def _database_part(self) -> Database:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._database.check()
        except TimeoutError:
            reason = f"no answer within {self._timeout_s:g} s"
            return Database(DatabaseStatus.UNAVAILABLE, reason)

    async def _parts(self) -> tuple[Part, Part]:
        try:
            async with asyncio.timeout(self._timeout_s):
                await send(self._client, ("PING",))
                size = await send(self._client, ("DBSIZE",))
                used = await self._memory.spoken_for_percent()
        except (RedisError, Rejection, OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {self._timeout_s:g} s"
            return (
                Part(UNHEALTHY, message=reason),
                Part(UNHEALTHY, message="the queues are out of reach"),
            )
        if used >= self._high_percent:
            full = (
                f"{used:.0f} % of memory is used or kept for unfinished tasks: no new ones above"
                f" {self._high_percent} %"
            )
            return Part(HEALTHY, size), Part(UNHEALTHY, message=full)
        return Part(HEALTHY, size), Part(HEALTHY)

    async def _answer(self, exchange: Exchange, answer: Health | Part) -> None:
        if answer.status == HEALTHY:
            await exchange.respond(200, encode(answer))
        else:
            await exchange.respond(503, encode(answer), [RETRY_AFTER])
