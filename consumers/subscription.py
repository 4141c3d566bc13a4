"""Events of the ledger for another service: durable, named, resumable, at least once.

    async for event in consumers.subscribe("billing", start="beginning", types=["TaskCompleted"]):
        await charge(event.task_id, event.data["result"])
        await event.ack()

docs/subscriptions.md is the guide.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Generic, Self, TypeVar

import structlog

from consumers.joining import join, open_ledger, settings_of
from consumers.membership import Membership
from consumers.subscribed_event import SubscribedEvent
from consumers.subscription_errors import AckRefused
from consumers.subscription_options import Options, check_terms, filters_of
from consumers.subscription_start import Start
from ledger.objects import open_objects
from ledger.redis_store import RedisStore
from ledger.store import Position

log = structlog.get_logger("subscription")

LEASE_MS: Final = 15_000
UNACKED_MAX: Final = 1_000
BATCH_EVENTS_MAX: Final = 100

STALLED_S: Final = 10.0
"""So long without anything to give out, while events wait for their acknowledgement, is worth a
line in the log."""


Given = TypeVar("Given")


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
    GroupRemoved, TooManyGroups; ledger.settings_sources.SettingsError and
    consumers.programs.NoServer where the ledger is named wrongly or not at all. While the ledger is
    out of reach it waits.
    """
    check_terms(group, start, lease_ms, unacked_max)
    filters = filters_of(types, kb_ids, task_types, task_ids)
    options = Options(group, start, filters, redis_url, data_dir, lease_ms, unacked_max)
    return Subscription(options, store)


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
        if self._membership is not None:
            raise RuntimeError("this subscription is entered already; make another member of it")
        async with contextlib.AsyncExitStack() as stack:
            settings, store = settings_of(self._options), self._given_store
            if store is None:
                store = await open_ledger(settings)
                stack.push_async_callback(store.close)
            objects = open_objects(settings)
            stack.push_async_callback(objects.close)
            membership = await join(store, objects, self._options)
            stack.push_async_callback(_leave, membership)
            self._stack = stack.pop_all()
        self._membership = membership
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._membership = None
        await self._stack.aclose()

    def __aiter__(self) -> "Following[SubscribedEvent]":
        return Following(self, lambda membership: _next(membership, self._options.name))

    def batches(self, events_max: int = BATCH_EVENTS_MAX) -> "Following[Sequence[SubscribedEvent]]":
        """Lists of events instead of single ones: what is there, at least one, at most so many."""

        async def batch(membership: Membership) -> Sequence[SubscribedEvent]:
            events = [await _next(membership, self._options.name)]
            while len(events) < events_max and (event := membership.take()) is not None:
                events.append(event)
            return events

        return Following(self, batch)

    async def ack(self, *positions: Position | str) -> None:
        """Everything that this member was given is done, up to and with these positions (as events
        have them, or as texts), of which the last one in each partition counts. As
        `SubscribedEvent.ack` otherwise.

        Raises AckRefused when a partition is another member's by now, ValueError for what is no
        position.
        """
        last: dict[int, Position] = {}
        for given in positions:
            position = Position.parse(given) if isinstance(given, str) else given
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

    @property
    def membership(self) -> Membership | None:
        """Once it is entered, and until it is left."""
        return self._membership


class Following(Generic[Given]):
    """Iterates over a subscription. Enters it, if that was not done, and then leaves it: when the
    loop is left, or the program ends."""

    def __init__(
        self, subscription: Subscription, take: Callable[[Membership], Awaitable[Given]]
    ) -> None:
        self._subscription = subscription
        self._take = take
        self._holding: asyncio.Task[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Given:
        if self._subscription.membership is None:
            await self._subscription.__aenter__()
            holding = _hold(self._subscription)
            self._holding = asyncio.get_running_loop().create_task(holding, name="subscription")
            await asyncio.sleep(0)  # it has begun, and is not merely forgotten when it is cancelled
        membership = self._subscription.membership
        if membership is None:
            raise RuntimeError("the subscription was left")
        return await self._take(membership)

    async def aclose(self) -> None:
        """Leave the subscription, if this entered it."""
        if self._holding is not None:
            self._holding.cancel()
            await asyncio.wait([self._holding])

    def __del__(self) -> None:
        # No async generator: Python ends those that a loop left a moment later, which is too late
        # where the loop was the last thing that a program did.
        if self._holding is None or self._holding.done():
            return
        loop = self._holding.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._holding.cancel)


async def _hold(subscription: Subscription) -> None:
    """Leave the subscription when this is cancelled, as all tasks are at a program's end."""
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await subscription.__aexit__()


async def _leave(membership: Membership) -> None:
    """Also when whoever leaves is cancelled meanwhile."""
    try:
        await membership.leave()
    except asyncio.CancelledError:
        await membership.leave()
        raise


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
