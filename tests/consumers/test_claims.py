"""What a worker takes, in which order, how much at once, and what becomes of claims left behind."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from consumers import Context
from consumers.scheduler import Scheduler
from consumers.turns import PASSED_OVER_MAX
from ledger.events import Priority
from ledger.keys import GROUP, PartitionKeys
from ledger.placement import STAGED_MAX, Queue
from ledger.redis_connection import send
from ledger.redis_store import RedisStore, StoreOptions
from ledger.task import Status
from tests.checks import check_ledger
from tests.consumers.working import (
    PATIENCE_S,
    Counted,
    Logged,
    handles,
    kinds,
    scheduling,
    signal,
    submit,
    until,
    working,
)

READY_NOTES = PartitionKeys(0).ready(Queue("note", Priority.NORMAL))


class Diary:
    """A handler that notes what it ran, in order, and how much of it at once."""

    def __init__(self, task_type: str = "note") -> None:
        self.ran: list[str] = []
        self.at_once = self.at_once_max = 0
        self.handler = handles(task_type, self._note)

    async def _note(self, context: Context, _: Any) -> None:
        self.ran.append(context.task_id)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        # Others get their turns meanwhile, so that they would overlap if they could.
        for _turn in range(5):
            await asyncio.sleep(0)
        self.at_once -= 1


async def all_done(store: RedisStore, *task_ids: str) -> None:
    for task_id in task_ids:
        await until(store, task_id, Status.COMPLETED)


async def claim_and_die(store: RedisStore, count: int, task_type: str = "note") -> None:
    """What a worker leaves behind that ends between claim and start."""
    queues = [Queue(task_type, priority) for priority in Priority]
    assert len(await store.claim(0, queues, count)) == count


async def test_the_most_urgent_task_is_taken_first(store: RedisStore) -> None:
    diary = Diary()
    by_priority = {
        priority: await submit(store, "note", priority=priority)
        for priority in (Priority.LOW, Priority.HIGH, Priority.NORMAL, Priority.CRITICAL)
    }
    async with working(store, diary.handler, concurrency=1):
        await all_done(store, *by_priority.values())

    order = [Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW]
    assert diary.ran == [by_priority[priority] for priority in order]


async def test_an_urgent_task_goes_before_those_that_waited_longer(store: RedisStore) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    async def first_waits(context: Context, _: Any) -> None:
        ran.append(context.task_id)
        started.set()
        await signal(go_on)

    first, waiting = await submit(store), await submit(store)
    async with working(store, handles("work", first_waits), concurrency=1):
        await signal(started)
        urgent = await submit(store, priority=Priority.CRITICAL)
        go_on.set()
        await all_done(store, urgent, waiting)

    assert ran == [first, urgent, waiting]


async def test_tasks_of_one_queue_are_taken_in_order(store: RedisStore) -> None:
    diary = Diary()
    task_ids = [await submit(store, "note") for _ in range(30)]
    async with working(store, diary.handler, concurrency=1):
        await all_done(store, *task_ids)

    assert diary.ran == task_ids


async def test_task_types_take_turns(store: RedisStore) -> None:
    ran: list[str] = []

    async def note(context: Context, _: Any) -> None:
        ran.append(context.task_type)

    task_ids = [await submit(store, kind) for kind in ("a", "b", "c") for _ in range(4)]
    async with working(store, *(handles(kind, note) for kind in "abc"), concurrency=1):
        await all_done(store, *task_ids)

    rounds = [set(ran[i : i + 3]) for i in range(0, 12, 3)]
    assert rounds == [{"a", "b", "c"}] * 4


async def test_types_without_work_give_their_turns_to_nobody_in_particular(
    store: RedisStore,
) -> None:
    ran: list[str] = []

    async def note(context: Context, _: Any) -> None:
        ran.append(context.task_type)

    task_ids = [await submit(store, kind) for kind in ("c", "d") for _ in range(6)]
    async with working(store, *(handles(kind, note) for kind in "abcd"), concurrency=1):
        await all_done(store, *task_ids)

    rounds = [set(ran[i : i + 2]) for i in range(0, 12, 2)]
    assert rounds == [{"c", "d"}] * 6


async def test_less_urgent_tasks_are_not_starved_by_others_without_end(store: RedisStore) -> None:
    """Nor by one another: there is always another one of each priority but those looked for."""
    ran: list[Priority] = []
    wanted = (Priority.NORMAL, Priority.LOW)

    async def note(context: Context, payload: dict[str, str]) -> None:
        ran.append(Priority(payload["priority"]))
        if not set(wanted) <= set(ran):
            await submit_note(ran[-1])

    async def submit_note(priority: Priority) -> str:
        return await submit(store, "note", {"priority": priority}, priority=priority)

    task_ids = [await submit_note(priority) for priority in Priority for _ in range(5)]
    async with working(store, handles("note", note), concurrency=2):
        await until(store, task_ids[-1], Status.COMPLETED)

    first_of_both = max(ran.index(priority) for priority in wanted)
    assert first_of_both <= 3 * (PASSED_OVER_MAX + 2)


async def test_a_kb_id_with_much_to_do_does_not_delay_the_first_task_of_another(
    store: RedisStore,
) -> None:
    """It waits behind those that stand in line, and behind one of each other kb_id."""
    ran: list[str] = []

    async def note(context: Context, payload: object) -> None:
        ran.append(context.kb_id)

    for _ in range(100):
        await submit(store, "note", kb_id="greedy")
    await submit(store, "note", kb_id="also there")
    modest = await submit(store, "note", kb_id="modest")
    async with working(store, handles("note", note), concurrency=1):
        await until(store, modest, Status.COMPLETED)

    assert ran.index("modest") <= STAGED_MAX + 2
    assert ran.count("greedy") <= STAGED_MAX + 2


async def test_no_more_tasks_run_at_once_than_the_worker_may(store: RedisStore) -> None:
    diary = Diary()
    task_ids = [await submit(store, "note") for _ in range(60)]
    async with working(store, diary.handler, concurrency=3):
        await all_done(store, *task_ids)

    assert diary.at_once_max == 3


async def test_stale_claims_do_not_come_on_top_of_what_a_worker_may(store: RedisStore) -> None:
    diary = Diary()
    task_ids = [await submit(store, "note") for _ in range(60)]
    await claim_and_die(store, 30)
    async with working(store, diary.handler, concurrency=2, pending_idle_ms=1):
        await all_done(store, *task_ids)

    assert diary.at_once_max == 2
    assert sorted(diary.ran) == sorted(task_ids)


async def test_two_workers_share_a_queue_and_each_task_runs_once(store: RedisStore) -> None:
    one, two = Diary(), Diary()
    first = [await submit(store, "note") for _ in range(100)]
    async with (
        working(store, one.handler, worker_id="w1", concurrency=5),
        working(store, two.handler, worker_id="w2", concurrency=5),
    ):
        second = [await submit(store, "note") for _ in range(100)]
        await all_done(store, *first, *second)

    assert sorted(one.ran + two.ran) == sorted(first + second)
    counts = await check_ledger(store)
    assert counts.events["TaskStarted"] == counts.events["TaskCompleted"] == 200


@pytest.fixture
async def store_of_four(ledger_url: str) -> AsyncIterator[RedisStore]:
    """An empty ledger of four partitions."""
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=4))
    yield store
    await store.close()


@pytest.mark.parametrize("concurrency", [1, 10])
async def test_a_busy_worker_serves_all_partitions(
    store_of_four: RedisStore, concurrency: int
) -> None:
    store, diary = store_of_four, Diary()
    task_ids = [await submit(store, "note") for _ in range(60)]
    async with working(store, diary.handler, concurrency=concurrency):
        await all_done(store, *task_ids)

    assert {store.partition_of(task_id) for task_id in task_ids} == {0, 1, 2, 3}
    assert diary.at_once_max == concurrency
    assert (await check_ledger(store)).in_status(Status.COMPLETED) == 60


async def test_an_idle_worker_waits_for_all_partitions(store_of_four: RedisStore) -> None:
    store, diary = store_of_four, Diary()
    async with working(store, diary.handler):
        task_ids: list[str] = []
        while len({store.partition_of(task_id) for task_id in task_ids}) < 4:
            task_ids.append(await submit(store, "note"))
            await all_done(store, task_ids[-1])

    assert diary.ran == task_ids


async def test_a_task_that_nobody_handles_stays_queued(store: RedisStore) -> None:
    diary = Diary()
    foreign = await submit(store, "something_else")
    async with working(store, diary.handler):
        await all_done(store, await submit(store, "note"))

    assert await kinds(store, foreign) == ["TaskSubmitted"]
    assert await store.client.xlen("{ledgerq:0}:ready:something_else:normal") == 1


@pytest.mark.parametrize("worker_id", ["another", "the dead one, started again"])
async def test_a_claim_that_was_never_started_is_taken_again(
    store: RedisStore, worker_id: str
) -> None:
    diary = Diary()
    task_ids = [await submit(store, "note", priority=p) for p in Priority]
    await claim_and_die(store, 4)
    async with working(store, diary.handler, worker_id=worker_id, pending_idle_ms=20):
        await all_done(store, *task_ids)

    for task_id in task_ids:
        assert await kinds(store, task_id) == ["TaskSubmitted", "TaskStarted", "TaskCompleted"]


async def test_a_claim_left_behind_does_not_wait_for_an_idle_worker(store: RedisStore) -> None:
    diary, release = Diary(), asyncio.Event()

    async def next_one(_context: Context, _: Any) -> None:
        # There is always another one waiting: the worker is never idle.
        if not release.is_set():
            await submit(store, "endless")

    left_behind = await submit(store, "note")
    await claim_and_die(store, 1)
    async with working(
        store, diary.handler, handles("endless", next_one), concurrency=1, pending_idle_ms=20
    ):
        await submit(store, "endless")
        await submit(store, "endless")
        await all_done(store, left_behind)
        release.set()


async def test_starts_that_are_refused_for_a_while_are_made_afterwards(
    store: RedisStore, logged: Logged
) -> None:
    diary = Diary()
    task_ids = [await submit(store, "note") for _ in range(50)]
    await send(store.client, ("CONFIG", "SET", "maxmemory", 1))
    try:
        async with working(store, diary.handler, concurrency=5):
            await logged.comes("write_delayed")
            pending = await store.client.xpending(READY_NOTES, GROUP)
            await send(store.client, ("CONFIG", "SET", "maxmemory", 0))
            await all_done(store, *task_ids)
    finally:
        await send(store.client, ("CONFIG", "SET", "maxmemory", 0))

    # What could not be started was not claimed either, beyond the slots that wait for it.
    assert pending["pending"] <= 5
    assert sorted(diary.ran) == sorted(task_ids)


async def test_a_claim_that_is_handed_out_twice_is_run_once(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary = Diary()
    claim = store.claim

    async def claim_twice(*arguments: Any) -> Any:
        claimed = await claim(*arguments)
        return claimed + claimed

    monkeypatch.setattr(store, "claim", claim_twice)
    async with working(store, diary.handler):
        task_ids = [await submit(store, "note") for _ in range(5)]
        await all_done(store, *task_ids)

    assert sorted(diary.ran) == sorted(task_ids)


async def test_a_scheduled_task_is_not_taken_before_its_time(store: RedisStore) -> None:
    diary = Diary()
    due_at = store.now_ms() + 300
    task_id = await submit(store, "note", schedule_for=due_at)
    async with working(store, diary.handler), scheduling(store):
        task = await until(store, task_id, Status.COMPLETED)

    assert await kinds(store, task_id) == [
        "TaskSubmitted",
        "TaskReleased",
        "TaskStarted",
        "TaskCompleted",
    ]
    assert task.state.started_at is not None
    assert task.state.started_at >= due_at


async def test_many_schedulers_release_a_task_once(store: RedisStore) -> None:
    task_ids = [await submit(store, "note", schedule_for=store.now_ms()) for _ in range(20)]
    schedulers = [Scheduler(store, sweep_interval_ms=20, outage_grace_s=0) for _ in range(5)]
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(scheduler.step() for scheduler in schedulers))

    for task_id in task_ids:
        assert await kinds(store, task_id) == ["TaskSubmitted", "TaskReleased"]


async def test_an_idle_worker_waits_and_does_not_poll(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted over three blocking reads, which take their whole time: each may be accompanied by
    one script, which looks into each of the four queues, and by a heartbeat, another script after a
    look at what is paused."""
    monkeypatch.setattr("consumers.claiming.READY_WAIT_MS", 1_000)
    waits = Counted(store.wait_ready)
    monkeypatch.setattr(store, "wait_ready", waits)

    async def commands_so_far() -> dict[str, int]:
        lines = (await send(store.client, ("INFO", "commandstats"))).decode().split()
        stats = [line.removeprefix("cmdstat_").split(":calls=") for line in lines if "=" in line]
        return {name: int(rest.partition(",")[0]) for name, rest in stats}

    diary = Diary()
    async with working(store, diary.handler, heartbeat_ms=1_000):
        await all_done(store, await submit(store, "note"))
        await waits.more(1)
        before = await commands_so_far()
        await waits.more(3)
        after = await commands_so_far()

    sent = {name: count - before.get(name, 0) for name, count in after.items()}
    assert sent["xreadgroup"] >= 3
    heartbeat = ("hget", "evalsha", "time", "zadd", "hget", "zrangebyscore")
    assert sum(sent.values()) <= 4 * (2 + len(Priority) + len(heartbeat)), sent
