"""What is told of those who follow the ledger: lag, members, and what they hold back."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from consumers.followers_watch import FollowersWatch
from consumers.subscription_status import Followers, GroupStatus, followers, trim_bounds
from ledger.keys import PartitionKeys
from ledger.redis_connection import send
from ledger.redis_store import RedisStore, StoreOptions
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.store import Position
from ledger.subscriptions import BEGINNING, Checkpoint, Filters, Group
from tests.consumers.working import Logged
from tests.contracts.subscriptions import filled

HOUR_MS = 3_600_000
EVENTS = PartitionKeys(1).events
START = Checkpoint(BEGINNING, "", 0)


@pytest.fixture
async def store(ledger_url: str) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=2))
    yield store
    await store.close()


@pytest.fixture
def subscriptions(store: RedisStore) -> RedisSubscriptions:
    return RedisSubscriptions(store.client, 2, 5_000)


@pytest.fixture
async def entries(store: RedisStore) -> list[str]:
    """Of partition 1."""
    return await filled(store, 1, 4)


async def a_group_at(subscriptions: RedisSubscriptions, name: str, entry: str, passed: int) -> None:
    """It has passed partition 1 up to `entry`, and partition 0 to its end."""
    ends = await subscriptions.ends(0)
    starts = (Checkpoint(ends.last, "", ends.added), Checkpoint(entry, "", passed))
    await subscriptions.register(name, Group("g1", "epoch", 1, Filters(), starts))


async def told(subscriptions: RedisSubscriptions, hold_ms: int = HOUR_MS) -> Followers:
    return await followers(subscriptions, hold_ms)


def of(found: Followers, name: str) -> GroupStatus:
    return next(status for status in found.groups if status.name == name)


async def test_nobody_follows(subscriptions: RedisSubscriptions, entries: list[str]):
    found = await told(subscriptions)

    assert found.groups == ()
    assert found.bounds[1].up_to == Position(1, entries[-1])


async def test_a_group_is_told_with_its_lag_and_members(
    subscriptions: RedisSubscriptions, entries: list[str]
):
    await a_group_at(subscriptions, "billing", BEGINNING, 0)
    await subscriptions.beat("billing", "m1", HOUR_MS)
    held: Any = await subscriptions.claim(1, "billing/g1", "m1", HOUR_MS, START)
    await subscriptions.keep(
        1, "billing/g1", held.generation, HOUR_MS, Checkpoint(entries[0], "", 1)
    )

    status = of(await told(subscriptions), "billing")

    assert (status.lag_events, status.members, status.halted) == (3, ("m1",), "")
    assert status.partitions[1].position == Position(1, entries[0])
    assert [one.member for one in status.partitions] == ["", "m1"]


async def test_a_group_holds_back_what_it_has_not_passed(
    subscriptions: RedisSubscriptions, entries: list[str]
):
    await a_group_at(subscriptions, "billing", entries[1], 2)
    await a_group_at(subscriptions, "search", entries[2], 3)

    [_, bound] = await trim_bounds(subscriptions, HOUR_MS)

    assert (bound.up_to, bound.held_by) == (Position(1, entries[1]), ("billing",))


async def test_trimming_to_the_bound_takes_nothing_from_the_group(
    store: RedisStore, subscriptions: RedisSubscriptions, entries: list[str]
):
    await a_group_at(subscriptions, "billing", entries[1], 2)
    [_, bound] = await trim_bounds(subscriptions, HOUR_MS)

    await send(store.client, ("XTRIM", EVENTS, "MINID", bound.up_to.entry))

    ends = await subscriptions.ends(1)
    assert ends.first == entries[1], "what it has read last stays, to be compared"
    assert not ends.lost_after(Checkpoint(entries[1], "", 2))
    assert of(await told(subscriptions), "billing").lag_events == 2


async def test_a_group_that_is_too_far_behind_is_not_waited_for(
    subscriptions: RedisSubscriptions, entries: list[str]
):
    await a_group_at(subscriptions, "billing", BEGINNING, 0)

    found = await told(subscriptions, hold_ms=-1_000)

    assert of(found, "billing").overdue
    assert found.bounds[1].overdue == ("billing",)
    assert found.bounds[1].up_to == Position(1, entries[-1])


async def test_groups_that_others_made_hold_back_too(
    store: RedisStore, subscriptions: RedisSubscriptions, entries: list[str]
):
    await send(store.client, ("XGROUP", "CREATE", EVENTS, "theirs", "0"))
    reading = ("XREADGROUP", "GROUP", "theirs", "one", "COUNT", 3, "STREAMS", EVENTS, ">")
    await send(store.client, reading)
    await send(store.client, ("XACK", EVENTS, "theirs", entries[0], entries[2]))

    found = await told(subscriptions)

    assert found.bounds[1].held_by == ("XGROUP theirs",)
    await send(store.client, ("XTRIM", EVENTS, "MINID", found.bounds[1].up_to.entry))
    assert (await subscriptions.ends(1)).first == entries[1], "the oldest pending one stays"
    status = of(found, "XGROUP theirs")
    assert (status.group, status.lag_events) == (None, 1 + 1)


async def test_the_scheduler_says_once_who_is_overdue_or_halted(
    store: RedisStore,
    subscriptions: RedisSubscriptions,
    entries: list[str],
    logged: Logged,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("consumers.followers_watch.LOOK_S", 0)
    await a_group_at(subscriptions, "billing", BEGINNING, 0)
    held: Any = await subscriptions.claim(1, "billing/g1", "m1", HOUR_MS, START)
    await subscriptions.halt(1, "billing/g1", held.generation, "it went back")
    watch = FollowersWatch(subscriptions, hold_ms=-1_000)

    await watch.look()
    await watch.look()

    assert [one["group"] for one in logged.of("subscription_overdue")] == ["billing"]
    assert [one["reason"] for one in logged.of("subscription_halted")] == ["it went back"]
    ends = await subscriptions.ends(1)
    await subscriptions.seek(1, "billing/g1", Checkpoint(ends.last, "", ends.added))
    await watch.look()
    assert len(logged.of("subscription_in_time_again")) == 1
