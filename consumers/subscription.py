"""Events of the ledger for another service: durable, named, resumable, at least once.

    async for event in consumers.subscribe("billing", start="beginning", types=["TaskCompleted"]):
        await charge(event.task_id, event.data["result"])
        await event.ack()

docs/subscriptions.md is the guide.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec
import structlog

from consumers.membership import Membership
from consumers.programs import server_url
from consumers.service import backoff_s
from consumers.subscribed_event import SubscribedEvent
from consumers.subscribed_partition import Terms
from consumers.subscription_errors import AckRefused, GroupMismatch
from consumers.subscription_start import Start, checkpoints
from ledger.events import EVENT_TYPES
from ledger.identity import SYSTEM, is_task_id
from ledger.redis_store import RedisStore, StoreOptions, ledger_facts
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.rejections import Rejection
from ledger.settings import Settings, find_file, load, masked
from ledger.store import Position
from ledger.subscriptions import GROUP_EXPECTED, Filters, Group, is_group_name
from ledger.system.events import SYSTEM_EVENT_TYPES

log = structlog.get_logger("subscription")

LEASE_MS: Final = 15_000
LEASE_MS_MIN: Final = 1_000
UNACKED_MAX: Final = 1_000
BATCH_EVENTS_MAX: Final = 100

STALLED_S: Final = 10.0
"""So long without anything to give out, while events wait for their acknowledgement, is worth a
line in the log."""


def subscribe(
    group: str,
    *,
    start: Start = "now",
    types: Iterable[str] = (),
    kb_ids: Iterable[str] = (),
    task_types: Iterable[str] = (),
    task_ids: Iterable[str] = (),
    redis_url: str | None = None,
    data_dir: str | None = None,
    lease_ms: int = LEASE_MS,
    unacked_max: int = UNACKED_MAX,
    store: RedisStore | None = None,
) -> "Subscription":
    """Follow the ledger as one member of a group, from where the group is.

    group      its name. Members of one group, in any number of processes, share the partitions of
               the ledger; each event goes to one of them, and again until one acknowledges it
    start      where a group begins that does not exist yet: "beginning", "now", a position or
               several separated by commas, or a time (RFC 3339, or a datetime with a zone). A group
               that exists goes on where it was
    types, kb_ids, task_types, task_ids
               what events are wanted; nothing: all of them. They belong to the group: every member
               names the same
    redis_url, data_dir
               where the ledger is; else what LEDGERQ_REDIS_URL, LEDGERQ_DATA_DIR and the settings
               file say
    lease_ms   how long a member may be silent until others take over what it reads
    unacked_max
               events that are read and not acknowledged, in each partition; more wait
    store      an open ledger, instead of one that is opened for the purpose

    Raises ValueError for what cannot be meant. Iterating raises GroupMismatch, SubscriptionHalted,
    GroupRemoved, TooManyGroups; ledger.settings.SettingsError and consumers.programs.NoServer where
    the ledger is named wrongly or not at all. While the ledger is out of reach it waits.
    """
    if not is_group_name(group):
        raise ValueError(f"group: expected {GROUP_EXPECTED}, got {group[:120]!r}")
    if lease_ms < LEASE_MS_MIN:
        raise ValueError(f"lease_ms: expected {LEASE_MS_MIN} or more, got {lease_ms}")
    if unacked_max < 1:
        raise ValueError(f"unacked_max: expected 1 or more, got {unacked_max}")
    filters = Filters(
        _listed("types", types),
        _listed("kb_ids", kb_ids),
        _listed("task_types", task_types),
        _listed("task_ids", task_ids),
    )
    _check(filters)
    options = Options(group, start, filters, redis_url, data_dir, lease_ms, unacked_max)
    return Subscription(options, store)


def _listed(name: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ValueError(f"{name}: expected a list of texts, got the text {values[:80]!r}")
    return tuple(sorted(set(values)))


def _check(filters: Filters) -> None:
    known = EVENT_TYPES.keys() | SYSTEM_EVENT_TYPES.keys()
    for name in filters.types:
        if name not in known:
            raise ValueError(f"types: there is no event {name!r}, only {', '.join(sorted(known))}")
    for task_id in filters.task_ids:
        if not is_task_id(task_id) and task_id != SYSTEM:
            raise ValueError(f"task_ids: expected lower-case UUIDs, got {task_id[:80]!r}")


class Options(msgspec.Struct, frozen=True):
    """What a member asks for."""

    name: str
    start: Start
    filters: Filters
    redis_url: str | None
    data_dir: str | None
    lease_ms: int
    unacked_max: int


class Subscription:
    """A member of a group. Iterate over it; or enter it first (`async with`), so that what it holds
    is given back the moment that it is left.

        async with subscribe("billing") as subscription:
            async for batch in subscription.batches(500):
                await store(batch)
                await subscription.ack(*(event.position for event in batch))
    """

    def __init__(self, options: Options, store: RedisStore | None) -> None:
        self._options = options
        self._given_store = store
        self._stack = contextlib.AsyncExitStack()
        self._membership: Membership | None = None

    async def __aenter__(self) -> Self:
        """Raises as iterating."""
        async with contextlib.AsyncExitStack() as stack:
            store = self._given_store
            if store is None:
                store = await _open(self._options)
                stack.push_async_callback(store.close)
            membership = await _join(store, self._options)
            stack.push_async_callback(membership.leave)
            self._stack = stack.pop_all()
        self._membership = membership
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._membership = None
        await self._stack.aclose()

    def __aiter__(self) -> AsyncIterator[SubscribedEvent]:
        return self._events()

    async def batches(
        self, events_max: int = BATCH_EVENTS_MAX
    ) -> AsyncGenerator[Sequence[SubscribedEvent]]:
        """Lists of events instead of single ones: what is there, at least one, at most so many."""
        async with self._entered() as membership:
            while True:
                batch = [await _next(membership, self._options.name)]
                while len(batch) < events_max and (event := membership.take()) is not None:
                    batch.append(event)
                yield batch

    async def ack(self, *positions: Position) -> None:
        """Everything that this member was given is done, up to and with these positions, of which
        the last one in each partition counts. As `SubscribedEvent.ack` otherwise.

        Raises AckRefused when a partition is another member's by now.
        """
        last: dict[int, Position] = {}
        for position in positions:
            known = last.setdefault(position.partition, position)
            last[position.partition] = max(known, position, key=lambda p: p.order)
        await asyncio.gather(*map(self._ack_up_to, last.values()))

    @property
    def partitions(self) -> tuple[int, ...]:
        """Those that this member reads now."""
        return () if self._membership is None else self._membership.partitions

    async def _ack_up_to(self, position: Position) -> None:
        membership = self._membership
        held = None if membership is None else membership.holding(position.partition)
        if held is None:
            raise AckRefused(position)
        await held.ack_up_to(position)

    async def _events(self) -> AsyncGenerator[SubscribedEvent]:
        async with self._entered() as membership:
            while True:
                yield await _next(membership, self._options.name)

    def _joined(self) -> Membership:
        if self._membership is None:
            raise RuntimeError("the subscription was left")
        return self._membership

    @contextlib.asynccontextmanager
    async def _entered(self) -> AsyncGenerator[Membership]:
        if self._membership is not None:
            yield self._membership
            return
        async with self:
            yield self._joined()


async def _next(membership: Membership, name: str) -> SubscribedEvent:
    """The next event, however long it takes. Raises what ends the membership."""
    while True:
        if membership.failure is not None:
            raise membership.failure
        event = membership.take()
        if event is not None:
            return event
        membership.woken.clear()
        try:
            async with asyncio.timeout(STALLED_S):
                await membership.woken.wait()
        except TimeoutError:
            if membership.waits_for_acks:
                hint = "acknowledge events, or raise unacked_max"
                log.warning("subscription_waits_for_acks", group=name, hint=hint)


# -- joining --------------------------------------------------------------------------------------


async def _join(store: RedisStore, options: Options) -> Membership:
    timeout_ms = StoreOptions().timeout_ms
    subscriptions = RedisSubscriptions(store.client, store.partitions, timeout_ms)
    name, failures = options.name, 0
    while True:
        try:
            group = await subscriptions.group(name)
            if group is None:
                group = await subscriptions.register(name, await _new_group(store, options))
            break
        except Rejection as rejection:
            if not rejection.retryable:
                raise
            failures += 1
            await asyncio.sleep(backoff_s(failures))
    if group.filters != options.filters:
        raise GroupMismatch(
            f"the subscription {name} wants {_told(group.filters)}, this member"
            f" {_told(options.filters)}: ask for the same, or take another name; `ledgerq"
            f" subscriptions remove {name}` forgets the group"
        )
    terms = Terms(name, group.tag(name), options.lease_ms, options.unacked_max)
    membership = Membership(store, subscriptions, group, _member_id(), terms)
    membership.start()
    return membership


async def _new_group(store: RedisStore, options: Options) -> Group:
    timeout_ms = StoreOptions().timeout_ms
    subscriptions = RedisSubscriptions(store.client, store.partitions, timeout_ms)
    starts = await checkpoints(store, subscriptions, options.start)
    epoch = await store.epoch()
    return Group(os.urandom(4).hex(), epoch, store.now_ms(), options.filters, starts)


def _told(filters: Filters) -> str:
    told = msgspec.to_builtins(filters)
    named = (f"{name} {', '.join(values)}" for name, values in told.items())
    return " and ".join(named) or "all events"


def _member_id() -> str:
    return f"{socket.gethostname()[:64]}-{os.getpid()}-{os.urandom(2).hex()}"


async def _open(options: Options) -> RedisStore:
    """The ledger that the options or the settings name, once it is there: waits for it."""
    flags = {"redis_url": options.redis_url, "data_dir": options.data_dir}
    settings = load(flags, os.environ, find_file(os.environ, Path.cwd())).settings
    url, failures, said = server_url(settings), 0, False
    while True:
        try:
            store = await _open_existing(settings, url)
        except Rejection as rejection:
            reason, store = rejection.message, None
        else:
            reason = "no service was started on it yet"
        if store is not None:
            return store
        if not said:
            said = True
            log.warning("subscription_waits_for_ledger", url=masked(url), reason=reason)
        failures += 1
        await asyncio.sleep(backoff_s(failures))


async def _open_existing(settings: Settings, url: str) -> RedisStore | None:
    facts = await ledger_facts(url, settings.redis_timeout_ms)
    if "partitions" not in facts:
        return None
    options = StoreOptions(
        partitions=int(facts["partitions"]), timeout_ms=settings.redis_timeout_ms
    )
    return await RedisStore.open(url, options)
