"""`GET /metrics`: what is known of the service, as Prometheus reads it.

What the ledger knows (tasks, queues, attempts) is asked of the read model when somebody looks, so
that any number of API processes tell the same; what processes measure themselves is added up from
their files. Whatever cannot be asked is left out, and `ledger_up` or `read_model_up` says so.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from api.describe import Answer, Group, operation
from api.exchange import Exchange
from api.metric_families import Scrape, families
from consumers.meters import Meters
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection
from projections.metric_totals import Totals, read_totals
from projections.read_model import BEGINNING, Checkpoint
from projections.readers import Unavailable

log = structlog.get_logger("metrics")

PART_TIMEOUT_S: Final = 2.0
"""Scrapers give up after ten seconds; what does not answer by then is left out."""

Found = TypeVar("Found")
Ask = Callable[[Callable[[sqlite3.Connection], Totals]], Awaitable[Totals]]


class Lag:
    """How many events the read model has still to take.

    The ledger counts all entries that there ever were, the read model those that it took. They
    differ by what was taken away before it was made, and by foreign entries: by how much is learnt
    whenever the read model has got to the end.
    """

    def __init__(self) -> None:
        self._never_taken: dict[int, int] = {}

    def events(self, partition: int, taken: Checkpoint, end: str, added: int) -> int:
        """Of one partition, whose last event stands at `end`, and that ever had `added` entries."""
        if taken.entry == end:
            self._never_taken[partition] = added - taken.events
            return 0
        return max(1, added - taken.events - self._never_taken.get(partition, 0))


class Metrics:
    """The endpoint. `gather` adds up what processes measured, `ask` asks the read model."""

    def __init__(
        self, store: RedisStore, gather: Callable[[], Awaitable[Meters]], ask: Ask
    ) -> None:
        self._store = store
        self._gather = gather
        self._ask = ask
        self._lag = Lag()

    @operation(
        "getMetrics",
        Group.OPERATIONS,
        {200: Answer("The metrics, as text.", media_type="text/plain", schema={"type": "string"})},
    )
    async def metrics(self, exchange: Exchange) -> None:
        """Metrics, for Prometheus.

        Always an answer: what cannot be asked now is left out, and `ledger_up` or `read_model_up`
        is 0.
        """
        exchange.parameters()
        meters, totals, workers = await asyncio.gather(
            self._gather(),
            _or_none("read model", self._ask(read_totals)),
            _or_none("workers", self._store.workers()),
        )
        lag = None
        if totals is not None and workers is not None:
            lag = await _or_none("ledger", self._lag_events(totals))
        text = exposition(Scrape(meters, totals, lag, workers))
        content_type = (b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode())
        await exchange.respond(200, text, content_type=content_type)

    async def _lag_events(self, totals: Totals) -> Mapping[int, int]:
        behind: dict[int, int] = {}
        for partition in range(self._store.partitions):
            extent, end = await asyncio.gather(
                self._store.extent(partition), self._store.last_position(partition)
            )
            taken = totals.checkpoints.get(partition, Checkpoint(BEGINNING, b"", 0))
            behind[partition] = self._lag.events(partition, taken, end.entry, extent.added)
        return behind


def exposition(scrape: Scrape) -> bytes:
    """The text of a scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families(scrape)))
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


async def _or_none(what: str, asked: Awaitable[Found]) -> Found | None:
    try:
        async with asyncio.timeout(PART_TIMEOUT_S):
            return await asked
    except (Unavailable, Rejection, RedisError, OSError, TimeoutError) as error:
        log.info("metrics_incomplete", without=what, reason=str(error))
        return None
