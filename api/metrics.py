"""`GET /metrics`: what is known of the service, as Prometheus reads it.

What the ledger knows (tasks, queues, attempts) is asked of the read model when somebody looks, so
that any number of API processes tell the same; what processes measure themselves is added up from
their files. Whatever cannot be asked is left out, and `ledger_up` or `read_model_up` says so.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from api.describe import Answer, Group, operation
from api.exchange import Exchange
from api.lag import Lag
from api.metric_families import Scrape, families
from consumers.archive_status import archive_status
from consumers.meters import Meters
from consumers.retention_status import RetentionStatus, retention_status, terms_of
from consumers.subscription_status import followers
from ledger.redis_archive import RedisArchive
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection
from ledger.settings import Settings
from ledger.store import CallbacksWaiting
from ledger.subscriptions import Subscriptions
from projections.metric_totals import Totals, read_totals
from projections.model_files import ModelFiles
from projections.readers import Unavailable

log = structlog.get_logger("metrics")

PART_TIMEOUT_S: Final = 2.0
"""Scrapers give up after ten seconds; what does not answer by then is left out."""

Found = TypeVar("Found")
Ask = Callable[[Callable[[sqlite3.Connection], Totals]], Awaitable[Totals]]


class Metrics:
    """The endpoint. `gather` adds up what processes measured, `ask` asks the read model."""

    def __init__(
        self,
        store: RedisStore,
        subscriptions: Subscriptions,
        gather: Callable[[], Awaitable[Meters]],
        lag: Lag,
        ask: Ask,
        files: ModelFiles,
        settings: Settings,
    ) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._fence = RedisArchive(store.client, store.partitions, settings.redis_timeout_ms)
        self._terms = terms_of(settings)
        self._gather = gather
        self._ask = ask
        self._lag = lag
        self._files = files
        self._task_types = settings.known_task_types

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
        of_ledger = asyncio.gather(
            _or_none("workers", self._store.workers()),
            _or_none("pauses and limits", self._store.load_system()),
            _or_none("subscriptions", followers(self._subscriptions, self._terms.hold_ms)),
            _or_none("callbacks", self._callbacks()),
            _or_none("archive", archive_status(self._fence, self._subscriptions)),
            _or_none("retention", self._retention()),
        )
        meters, totals, told = await asyncio.gather(
            self._gather(), _or_none("read model", self._totals()), of_ledger
        )
        workers, system, followed, callbacks, archive, retention = told
        lag = None
        if totals is not None and workers is not None:
            lag = await _or_none("ledger", self._lag.events(totals.checkpoints))
        state = None if system is None else system.state
        text = exposition(
            Scrape(
                meters,
                totals,
                lag,
                workers,
                self._task_types,
                state,
                followed,
                callbacks,
                archive,
                retention,
            )
        )
        content_type = (b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode())
        await exchange.respond(200, text, content_type=content_type)

    async def _retention(self) -> RetentionStatus:
        store = self._store
        return await retention_status(store, self._subscriptions, self._terms, store.now_ms())

    async def _callbacks(self) -> CallbacksWaiting:
        partitions = range(self._store.partitions)
        found = await asyncio.gather(*map(self._store.callbacks_waiting, partitions))
        return CallbacksWaiting(
            sum(one.waiting for one in found),
            sum(one.due for one in found),
            max(one.oldest_ms for one in found),
        )

    async def _totals(self) -> Totals:
        """What a damaged file says of itself may be wrong, even where it can be read."""
        damage = self._files.damage_met()
        if damage is not None:
            raise Unavailable(f"the read model is damaged ({damage})")
        return await self._ask(read_totals)


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
