"""Subscriptions on a real server: what a member is given, and what becomes of it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import consumers
from consumers.joining import member_id
from consumers.known_tasks import KnownTasks
from consumers.remembered import Remembered
from consumers.subscribed_event import SubscribedEvent, Wanted
from consumers.subscribed_partition import SubscribedPartition, Terms
from consumers.subscription import Subscription, subscribe
from ledger.commands import CancelTask
from ledger.foreign import ForeignEntries
from ledger.identity import SYSTEM
from ledger.keys import LEDGER, PartitionKeys
from ledger.redis_connection import send
from ledger.redis_store import RedisStore, StoreOptions
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.store import Position
from ledger.subscriptions import Checkpoint, Filters, Held
from ledger.system.events import SubscriptionHalted
from ledger.task import Task
from ledger.transact import transact
from tests.consumers.working import PATIENCE_S, Logged
from tests.contracts.store import submit

LEASE_MS = 1_000


def following(store: RedisStore, group: str = "billing", **options: Any) -> Subscription:
    """A member that reads from the beginning, unless told otherwise."""
    options = {"start": "beginning", "lease_ms": LEASE_MS, **options}
    return subscribe(group, store=store, **options)


@contextlib.asynccontextmanager
async def events_of(subscription: Subscription) -> AsyncGenerator[AsyncIterator[SubscribedEvent]]:
    """What it is given, within the test's patience."""
    async with asyncio.timeout(PATIENCE_S), subscription as entered:
        yield aiter(entered)


async def first(subscription: Subscription, count: int) -> list[SubscribedEvent]:
    """The first events that it is given; none is acknowledged."""
    async with events_of(subscription) as events:
        return [await anext(events) for _ in range(count)]


async def submitted(store: RedisStore, count: int, **fields: Any) -> list[Task]:
    return [await submit(store, **fields) for _ in range(count)]


async def group_at(store: RedisStore, name: str = "billing", partition: int = 0) -> Checkpoint:
    subscriptions = RedisSubscriptions(store.client, store.partitions, 5_000)
    group = await subscriptions.group(name)
    assert group is not None
    return (await subscriptions.view(partition)).readings[group.tag(name)].checkpoint


@pytest.fixture(autouse=True)
def _quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.membership.BEAT_S", 0.05)


@pytest.fixture
async def spread(ledger_url: str) -> AsyncIterator[RedisStore]:
    """A ledger of four partitions."""
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=4))
    yield store
    await store.close()


# -- what is given ---------------------------------------------------------------------------------


async def test_a_group_is_given_everything_in_order(store: RedisStore):
    tasks = await submitted(store, 3)
    await transact(store, tasks[0].id, CancelTask("no"))

    events = await first(following(store), 4)

    assert [event.type for event in events] == ["TaskSubmitted"] * 3 + ["TaskCanceled"]
    assert [event.task_id for event in events] == [task.id for task in (*tasks, tasks[0])]
    last = events[-1]
    assert (last.kb_id, last.task_type) == ("kb", "document_processing")
    assert (last.data, last.version) == ({"reason": "no"}, 2)
    assert last.event == last.recorded.event()
    assert abs(datetime.now(UTC) - last.at) < timedelta(hours=1)


async def test_it_waits_for_what_is_yet_to_come(store: RedisStore):
    async with events_of(following(store, start="now")) as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        task = await submit(store)

        assert (await waiting).task_id == task.id


async def test_what_was_not_acknowledged_is_given_again(store: RedisStore):
    tasks = await submitted(store, 3)
    async with events_of(following(store)) as events:
        await (await anext(events)).ack()
        await anext(events)

    again = await first(following(store), 2)

    assert [event.task_id for event in again] == [task.id for task in tasks[1:]]


async def test_an_event_acknowledged_before_an_older_one_is_given_again(store: RedisStore):
    await submitted(store, 3)
    async with events_of(following(store)) as events:
        one, two, three = [await anext(events) for _ in range(3)]
        await three.ack()
        await one.ack()
        assert (await group_at(store)).entry == one.position.entry

    again = await first(following(store), 2)
    assert [event.position for event in again] == [two.position, three.position]


async def test_a_position_acknowledges_everything_before_it(store: RedisStore):
    await submitted(store, 5)
    subscription = following(store)
    async with events_of(subscription) as events:
        given = [await anext(events) for _ in range(4)]
        await subscription.ack(given[2].position, given[1].position)

    [again] = await first(following(store), 1)

    assert again.position == given[3].position


async def test_a_position_may_be_acknowledged_as_it_is_written(store: RedisStore):
    await submitted(store, 3)
    subscription = following(store)
    async with events_of(subscription) as events:
        given = [await anext(events) for _ in range(2)]
        await subscription.ack(str(given[1].position))
        with pytest.raises(ValueError, match="expected a position such as"):
            await subscription.ack("the last one")

    [again] = await first(following(store), 1)

    assert again.position > given[1].position


async def test_batches_hold_what_is_there(store: RedisStore):
    await submitted(store, 5)
    subscription = following(store)
    async with asyncio.timeout(PATIENCE_S), subscription:
        batches = subscription.batches(3)
        sizes = [len(await anext(batches)), len(await anext(batches))]
        await batches.aclose()

    assert sizes == [3, 2]


async def test_leaving_the_loop_gives_everything_back(store: RedisStore):
    await submitted(store, 2)
    async with asyncio.timeout(PATIENCE_S):
        async for event in following(store, lease_ms=600_000):
            await event.ack()
            break

    [second] = await first(following(store), 1)

    assert second.version == 1


async def test_what_is_being_claimed_as_a_member_leaves_is_given_back(
    spread: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    granted, answered = asyncio.Event(), asyncio.Event()
    claim = RedisSubscriptions.claim

    async def claim_slowly(*arguments: Any) -> Any:
        claimed = await claim(*arguments)
        granted.set()
        await answered.wait()
        return claimed

    monkeypatch.setattr(RedisSubscriptions, "claim", claim_slowly)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        async with following(spread):
            await granted.wait()
            # Once it has begun to leave.
            group.create_task(asyncio.sleep(0)).add_done_callback(lambda _: answered.set())

    subscriptions = RedisSubscriptions(spread.client, spread.partitions, 5_000)
    views = [await subscriptions.view(partition) for partition in range(spread.partitions)]
    owners = {reading.owner for view in views for reading in view.readings.values()}
    assert owners == {""}


# -- from where ------------------------------------------------------------------------------------


async def test_a_group_begins_now(store: RedisStore):
    await submitted(store, 2)
    async with events_of(following(store, start="now")) as events:
        await asyncio.sleep(0)
        task = await submit(store)
        assert (await anext(events)).task_id == task.id


@pytest.mark.parametrize("as_text", [True, False])
async def test_a_group_begins_at_a_position(store: RedisStore, as_text: bool):
    tasks = await submitted(store, 4)
    second = (await store.events_after(Position(0, "0-0"), 4, 1))[1].position

    [event] = await first(following(store, start=str(second) if as_text else second), 1)

    assert event.task_id == tasks[2].id


async def test_a_group_begins_at_a_time(store: RedisStore):
    await submitted(store, 2)
    events = await store.events_after(Position(0, "0-0"), 2, 1)
    time = datetime.fromtimestamp(events[1].position.order[0] / 1_000, UTC)

    [event] = await first(following(store, start=time.isoformat()), 1)

    assert event.position.order[0] == events[1].position.order[0]


async def test_a_group_that_exists_goes_on_where_it_was(store: RedisStore):
    await submitted(store, 3)
    async with events_of(following(store)) as events:
        await (await anext(events)).ack()

    [event] = await first(following(store, start="now"), 1)

    assert event.version == 1


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("yesterday", "expected 'beginning', 'now', a position"),
        ("0:99999999999999-0", "yet to come"),
        ("2999-01-01T00:00:00Z", "yet to come"),
        (datetime(2026, 1, 1), "zone"),  # noqa: DTZ001 - that is what is wrong with it
        ("7:1-0", "partition from 0 to 0"),
    ],
)
async def test_a_start_that_is_none_is_refused(store: RedisStore, start: Any, told: str):
    with pytest.raises(ValueError, match=told):
        await first(following(store, start=start), 1)


# -- which events ----------------------------------------------------------------------------------


async def test_only_wanted_events_are_given(store: RedisStore):
    one = await submit(store, kb_id="a", task_type="vector_storage")
    two = await submit(store, kb_id="b")
    for task in (one, two):
        await transact(store, task.id, CancelTask())

    wanted = {
        "types": {"types": ["TaskCanceled"]},
        "kb": {"kb_ids": ["b"]},
        "task-type": {"task_types": ["vector_storage"]},
        "task": {"task_ids": [two.id]},
    }
    given = {
        name: {(event.task_id, event.type) for event in await first(following(store, name, **f), 2)}
        for name, f in wanted.items()
    }

    both = {"TaskSubmitted", "TaskCanceled"}
    assert given["types"] == {(one.id, "TaskCanceled"), (two.id, "TaskCanceled")}
    assert given["kb"] == given["task"] == {(two.id, kind) for kind in both}
    assert given["task-type"] == {(one.id, kind) for kind in both}


async def test_what_nobody_wants_is_passed(store: RedisStore):
    subscription = following(store, types=["TaskCanceled"])
    task = await submit(store)
    await transact(store, task.id, CancelTask())
    await submitted(store, 5)
    last = await store.last_position(0)
    async with events_of(subscription) as events:
        await (await anext(events)).ack()

    assert (await group_at(store)).entry == last.entry
    assert (await group_at(store)).passed == 7


async def test_entries_that_are_no_events_are_passed(store: RedisStore):
    await send(store.client, ("XADD", PartitionKeys(0).events, "*", "hello", "world"))
    task = await submit(store)

    [event] = await first(following(store), 1)

    assert event.task_id == task.id


async def test_members_of_a_group_want_the_same(store: RedisStore):
    await submit(store)
    await first(following(store, types=["TaskSubmitted"]), 1)

    with pytest.raises(consumers.GroupMismatch, match="wants types TaskSubmitted, this member all"):
        await first(following(store), 1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"group": "a b"}, "group: expected"),
        ({"group": 7}, "group: expected"),
        ({"start": 7}, "start: expected 'beginning'"),
        ({"kb_ids": [7]}, "kb_ids: expected texts of 1 to 255 characters, got 7"),
        ({"kb_ids": [""]}, "kb_ids: expected texts"),
        ({"task_types": ["x" * 256]}, "task_types: expected texts"),
        ({"kb_ids": ["\ud800"]}, "kb_ids: expected texts"),
        ({"kb_ids": map(str, range(10**12))}, "kb_ids: expected at most 1000 values"),
        ({"lease_ms": 10**9}, "lease_ms: expected 1000 to 600000"),
        ({"lease_ms": "1000"}, "lease_ms: expected 1000 to 600000"),
        ({"unacked_max": None}, "unacked_max: expected"),
        ({"types": ["TaskCompletd"]}, "there is no event 'TaskCompletd'"),
        ({"types": "TaskCompleted"}, "types: expected a list"),
        ({"task_ids": ["7"]}, "task_ids: expected lower-case UUIDs"),
        ({"lease_ms": 10}, "lease_ms: expected"),
        ({"unacked_max": 0}, "unacked_max: expected"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        subscribe(**dict[str, Any](group="billing") | options)


# -- bounds ----------------------------------------------------------------------------------------


async def test_no_more_is_given_than_may_be_unacknowledged(store: RedisStore):
    await submitted(store, 5)
    async with events_of(following(store, unacked_max=2)) as events:
        one, _ = await anext(events), await anext(events)
        third = asyncio.ensure_future(anext(events))
        done, _ = await asyncio.wait([third], timeout=0.05)
        assert not done

        await one.ack()

        assert (await third).version == 1


async def test_a_member_that_acknowledges_nothing_is_told(
    store: RedisStore, logged: Logged, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("consumers.subscription.STALLED_S", 0.01)
    await submitted(store, 3)
    async with events_of(following(store, unacked_max=1)) as events:
        one = await anext(events)
        second = asyncio.ensure_future(anext(events))

        told = await logged.comes("subscription_waits_for_acks")

        assert told["group"] == "billing"
        await one.ack()
        await second


# -- several members -------------------------------------------------------------------------------


async def test_members_share_the_partitions(spread: RedisStore, logged: Logged):
    one, two = following(spread), following(spread)
    async with one:
        await logged.comes("partition_taken", 4)
        async with two:
            await logged.comes("partition_taken", 6)
            assert {*one.partitions, *two.partitions} == {0, 1, 2, 3}
            assert len(two.partitions) == 2
        await logged.comes("partition_taken", 8)
        assert one.partitions == (0, 1, 2, 3)


def test_members_are_sorted_by_when_they_came():
    ids = [member_id(now_ms) for now_ms in (9, 10, 1_763_811_000_123, 1_763_811_000_124)]
    assert sorted(ids) == ids


async def test_a_member_that_comes_takes_nothing_that_it_is_not_due(
    store: RedisStore, logged: Logged
):
    subscriptions = RedisSubscriptions(store.client, 1, 5_000)
    one, two = following(store), following(store)
    async with asyncio.timeout(PATIENCE_S), one:
        await logged.comes("partition_taken")
        async with two:
            while len(await subscriptions.members("billing")) < 2:
                pass
            await submit(store)
            await (await anext(aiter(one))).ack()

    assert not logged.of("partition_handed_over")


async def test_a_late_member_is_refused(store: RedisStore):
    await submitted(store, 2)
    subscriptions = RedisSubscriptions(store.client, 1, 5_000)
    async with events_of(following(store, lease_ms=600_000)) as events:
        late = await anext(events)
        group = await subscriptions.group("billing")
        assert group is not None
        await subscriptions.seek(0, group.tag("billing"), Checkpoint())

        with pytest.raises(consumers.AckRefused, match=str(late.position)):
            await late.ack()

        assert (await group_at(store)).entry == "0-0"
        assert (await anext(events)).position == late.position


async def test_what_was_given_out_may_be_acknowledged_before_it_is_handed_over(
    spread: RedisStore, logged: Logged
):
    await submitted(spread, 40)
    one, two = following(spread, lease_ms=600_000), following(spread, lease_ms=600_000)
    async with asyncio.timeout(PATIENCE_S), one:
        events = aiter(one)
        given = [await anext(events) for _ in range(40)]
        async with two:
            await logged.comes("partition_handed_over", 2)
            assert two.partitions == ()

            for event in given:
                await event.ack()

            await logged.comes("partition_taken", 6)
            assert len(two.partitions) == 2


async def test_a_group_that_is_removed_ends_its_members(store: RedisStore):
    async with events_of(following(store)) as events:
        await RedisSubscriptions(store.client, 1, 5_000).remove("billing")

        with pytest.raises(consumers.GroupRemoved, match="billing was removed"):
            await anext(events)


async def test_a_lease_that_was_in_doubt_while_its_renewal_was_out_wakes_who_waits(
    store: RedisStore,
):
    woken, subscriptions = asyncio.Event(), RedisSubscriptions(store.client, 1, 5_000)
    claimed = await subscriptions.claim(0, "billing/1", "m1", 60_000, Checkpoint())
    assert isinstance(claimed, Held)

    class Slow(RedisSubscriptions):
        async def keep(self, *arguments: Any, **more: Any) -> bool:
            await asyncio.sleep(LEASE_MS / 1_000 + 0.01)
            return await super().keep(*arguments, **more)

    partition = SubscribedPartition(
        store,
        Slow(store.client, 1, 5_000),
        0,
        claimed,
        Terms("billing", "billing/1", LEASE_MS, 10),
        Wanted(Filters()),
        KnownTasks(store),
        ForeignEntries(),
        Remembered(store, subscriptions, 0, "billing", await store.epoch()),
        woken.set,
    )

    await partition.keep()

    assert woken.is_set()


# -- a ledger that is not what it was --------------------------------------------------------------


async def put_in_place(store: RedisStore, entries: list[Any]) -> None:
    """Let the ledger hold these entries alone."""
    events = PartitionKeys(0).events
    await send(store.client, ("DEL", events))
    for entry_id, values in entries:
        await send(store.client, ("XADD", events, entry_id, *values))


async def test_another_event_in_the_place_of_the_last_one_halts_the_group(
    store: RedisStore, logged: Logged
):
    await submitted(store, 2)
    async with events_of(following(store)) as events:
        one = await anext(events)
        await one.ack()
    names = PartitionKeys(0)
    entries = await send(store.client, ("XRANGE", names.events, "-", "+"))
    entries[0][1][9] = b'{"task_type":"another"}'
    await put_in_place(store, entries)

    lost = f"{one.position} is gone, or is another"
    with pytest.raises(consumers.LedgerWentBack, match=lost) as caught:
        await first(following(store), 1)

    assert logged.of("subscription_halted")[0]["group"] == "billing"
    [recorded] = await store.history(SYSTEM)
    assert recorded.system_event() == SubscriptionHalted("billing", 0, str(caught.value))
    with pytest.raises(consumers.SubscriptionHalted, match="subscriptions seek billing"):
        await first(following(store), 1)


async def test_a_ledger_that_ends_earlier_halts_the_group(store: RedisStore):
    await submitted(store, 3)
    async with events_of(following(store)) as events:
        for _ in range(3):
            await (await anext(events)).ack()
    names = PartitionKeys(0)
    entries = await send(store.client, ("XRANGE", names.events, "-", "+", "COUNT", 2))
    await put_in_place(store, entries)

    with pytest.raises(consumers.LedgerWentBack, match="the ledger ends at"):
        await first(following(store), 1)


async def test_a_partition_that_lost_everything_and_grew_again_halts_the_group(store: RedisStore):
    await submitted(store, 1)
    async with events_of(following(store)) as events:
        one = await anext(events)
        await one.ack()
    await put_in_place(store, [])
    await submitted(store, 1)

    with pytest.raises(consumers.LedgerWentBack, match=f"{one.position} is gone"):
        await first(following(store), 1)


async def test_events_that_were_trimmed_behind_the_checkpoint_are_not_missed(store: RedisStore):
    await submitted(store, 3)
    async with events_of(following(store)) as events:
        for _ in range(2):
            await (await anext(events)).ack()
    await send(store.client, ("XTRIM", PartitionKeys(0).events, "MAXLEN", "1"))

    [last] = await first(following(store), 1)

    assert last.position == await store.last_position(0)


async def test_another_ledger_halts_the_group(store: RedisStore):
    await submitted(store, 2)
    await first(following(store), 1)
    await send(store.client, ("HSET", LEDGER, "epoch", "another"))

    with pytest.raises(consumers.LedgerWentBack, match="another ledger"):
        await first(following(store), 1)


async def test_events_that_were_taken_away_halt_the_group(store: RedisStore):
    await submitted(store, 4)
    async with events_of(following(store)) as events:
        await (await anext(events)).ack()
    await send(store.client, ("XTRIM", PartitionKeys(0).events, "MAXLEN", "2"))

    with pytest.raises(consumers.EventsGone, match="were taken away, the oldest one left is at"):
        await first(following(store), 1)


async def test_events_that_are_taken_away_before_a_reader_gets_there_halt_the_group(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("consumers.subscribed_partition.TRIMMED_AGE_MS", -1_000)
    await submitted(store, 6)
    async with events_of(following(store, unacked_max=2)) as events:
        given = [await anext(events), await anext(events)]
        await send(store.client, ("XTRIM", PartitionKeys(0).events, "MAXLEN", "1"))
        for event in given:
            await event.ack()

        with pytest.raises(consumers.EventsGone):
            await anext(events)


async def test_what_the_group_has_passed_may_be_taken_away(store: RedisStore):
    tasks = await submitted(store, 4)
    async with events_of(following(store)) as events:
        await (await anext(events)).ack()
        second = await anext(events)
        await second.ack()
    entry = second.position.entry
    await send(store.client, ("XTRIM", PartitionKeys(0).events, "MINID", entry))

    [event] = await first(following(store), 1)

    assert event.task_id == tasks[2].id
