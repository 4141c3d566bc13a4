"""`ledgerq retention`: what of the ledger may leave Redis, and who holds it back."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from cyclopts import App, Parameter
from redis.asyncio import Redis

from api.cli.failures import CliError
from api.cli.flags import AsJson, DataDir, RedisUrl, load_settings
from api.cli.open_ledger import open_ledger
from api.cli.output import counted, print_json, print_table
from api.wire import moment_text
from consumers.retention_status import (
    Limit,
    PartitionRetention,
    RetentionStatus,
    retention_status,
    terms_of,
)
from ledger.keys import PartitionKeys
from ledger.redis_connection import send
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.retention import BEGINNING
from ledger.settings import Settings
from ledger.store import Position
from ledger.subscriptions import order_of

SAMPLES: Final = 20
"""Nodes of a stream that its size is estimated by."""

app = App(
    name="retention",
    help="Tell what of the ledger may leave Redis now, and what holds it back.",
    help_format="plaintext",
    help_epilogue="Examples:\n  ledgerq retention\n  ledgerq retention --json"
    "\n  ledgerq retention forget 3f9c01d2",
    default_parameter=Parameter(negative=(), show_default=False),
    result_action="return_value",
)

HEADINGS = ("part", "what", "up to", "age", "held by", "more")
LEAST = ("more",)


class LimitView(msgspec.Struct, frozen=True):
    """Up to where something may go."""

    up_to: str
    age_seconds: float | None
    held_by: tuple[str, ...]


class ReadModelView(msgspec.Struct, frozen=True):
    """How far a node's read model is."""

    node: str
    host: str
    position: str
    heard_seconds_ago: float
    silent: bool


class PartitionView(msgspec.Struct, frozen=True):
    """One partition."""

    partition: int
    sealed: str
    sealed_events: int
    halted: str
    stream_entries: int
    stream_bytes: int
    oldest: str
    trim: LimitView
    evict: LimitView
    evicted_up_to: str
    unevicted_events: int
    """Sealed events that were not looked at yet: tasks that end with one of them are in memory."""
    read_models: tuple[ReadModelView, ...]
    overdue: tuple[str, ...]
    """Whom trimming does not wait for any more."""


class SubscriptionView(msgspec.Struct, frozen=True):
    """Who follows the ledger."""

    group: str
    lag_events: int | None
    overdue: bool
    halted: str


class RetentionView(msgspec.Struct, frozen=True):
    """All of it."""

    now: str
    event_retention_s: int
    task_retention_s: int
    partitions: tuple[PartitionView, ...]
    subscriptions: tuple[SubscriptionView, ...]


@app.default
def retention(*, data_dir: DataDir = None, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """Exit code 1 when something other than age holds back what is old enough to go."""
    settings = load_settings(data_dir=data_dir, redis_url=redis_url).settings
    found, waits = asyncio.run(_look(settings))
    if json:
        print_json(found)
    else:
        rows = [row for one in found.partitions for row in _rows(one)]
        print_table(HEADINGS, rows, least=LEAST)
    return int(waits)


@app.command(
    help="Wait for a node's read model no more, which will not come back.",
    help_epilogue="Example:\n  ledgerq retention forget 3f9c01d2",
)
def forget(
    node: Annotated[str, Parameter(help="as `ledgerq retention` names it")],
    /,
    *,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
) -> None:
    """If it does come back, it reads in the archive what the streams have no longer."""
    settings = load_settings(data_dir=data_dir, redis_url=redis_url).settings

    async def run() -> bool:
        async with open_ledger(settings) as store:
            return await store.forget_projection(node)

    if not asyncio.run(run()):
        raise CliError(f"no read model is called {node!r}: see `ledgerq retention`")
    print(f"nothing waits for {node} any more")


async def _look(settings: Settings) -> tuple[RetentionView, bool]:
    terms = terms_of(settings)
    async with open_ledger(settings) as store:
        subscriptions = RedisSubscriptions(
            store.client, store.partitions, settings.redis_timeout_ms
        )
        now_ms = store.now_ms()
        status = await retention_status(store, subscriptions, terms, now_ms)
        sizes = [await _stream_bytes(store.client, p.partition) for p in status.partitions]
    waits = any(one.waits_for(now_ms, terms.events_ms) for one in status.partitions)
    return _view(status, sizes, settings), waits


async def _stream_bytes(client: Redis, partition: int) -> int:
    key = PartitionKeys(partition).events
    return await send(client, ("MEMORY", "USAGE", key, "SAMPLES", SAMPLES)) or 0


def _view(status: RetentionStatus, sizes: list[int], settings: Settings) -> RetentionView:
    return RetentionView(
        moment_text(status.now_ms),
        settings.event_retention_s,
        settings.task_retention_s,
        tuple(
            _of_partition(one, size, status.now_ms)
            for one, size in zip(status.partitions, sizes, strict=True)
        ),
        tuple(
            SubscriptionView(group.name, group.lag_events, group.overdue, group.halted)
            for group in status.groups
        ),
    )


def _of_partition(one: PartitionRetention, size: int, now_ms: int) -> PartitionView:
    def at(entry: str) -> str:
        return str(Position(one.partition, entry))

    return PartitionView(
        one.partition,
        at(one.archive.sealed),
        one.archive.size,
        one.archive.halted,
        one.ends.length,
        size,
        at(one.ends.first),
        _limit(one.partition, one.trim, now_ms),
        _limit(one.partition, one.evict, now_ms),
        at(one.archive.evicted),
        max(0, one.archive.size - one.archive.looked),
        tuple(
            ReadModelView(
                each.node,
                each.told.host,
                at(each.told.entry),
                max(0, now_ms - each.told.at) / 1_000,
                each.silent,
            )
            for each in one.projections
        ),
        one.overdue,
    )


def _limit(partition: int, limit: Limit, now_ms: int) -> LimitView:
    age = None if limit.up_to == BEGINNING else (now_ms - order_of(limit.up_to)[0]) / 1_000
    return LimitView(str(Position(partition, limit.up_to)), age, limit.held_by)


def _rows(one: PartitionView) -> Iterator[tuple[str, ...]]:
    """A line each for what may be trimmed and evicted, and for whom that waits or does not."""
    part = str(one.partition)
    events = counted(one.sealed_events, "event")
    sealed = f"halted: {one.halted}" if one.halted else f"{events} sealed"
    yield part, "sealed", one.sealed, "", "", sealed
    entries = counted(one.stream_entries, "entry", "entries")
    held = f"{entries}, {one.stream_bytes / 1e6:,.1f} MB, from {one.oldest}"
    yield part, "trim", one.trim.up_to, _age(one.trim), ", ".join(one.trim.held_by), held
    left = f"{counted(one.unevicted_events, 'event')} to look at, behind {one.evicted_up_to}"
    yield part, "evict", one.evict.up_to, _age(one.evict), ", ".join(one.evict.held_by), left
    for model in one.read_models:
        heard = f"heard {model.heard_seconds_ago:,.0f} s ago"
        state = "silent, nothing waits for it" if model.silent else model.host
        yield part, f"read model {model.node}", model.position, "", "", f"{state}, {heard}"
    for name in one.overdue:
        yield part, name, "", "", "", "overdue, nothing waits for it"


def _age(limit: LimitView) -> str:
    return "-" if limit.age_seconds is None else f"{limit.age_seconds:,.0f} s"
