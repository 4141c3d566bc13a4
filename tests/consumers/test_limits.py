"""Limits with workers at work: no more than so many run at once, and a change is felt at once."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import pytest

from consumers import Context
from ledger.codec import Meta
from ledger.events import Priority
from ledger.keys import PartitionKeys
from ledger.redis_store import RedisStore, StoreOptions
from ledger.store import Store
from ledger.system.commands import PauseQueue, RemoveLimit, SetLimit
from ledger.system.events import LimitScope
from ledger.system.transact import transact_system
from ledger.task import Status
from tests.checks import check_ledger
from tests.consumers.working import PATIENCE_S, handles, scheduling, submit, until, working
from tests.places import assert_quiescent

TYPE, KB = LimitScope.TYPE, LimitScope.KB
TASKS = 24


class Gauge:
    """Handlers that say how many of them run at once, by type and by kb_id."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.gate = asyncio.Event()
        """Handlers that began with it end once it is set."""
        self._changed = asyncio.Condition()

    async def work(self, context: Context, payload: dict[str, str]) -> None:
        names = (payload["type"], f"kb:{context.kb_id}", "all")
        gate = self.gate
        await self._count(names, 1)
        try:
            await gate.wait()
            await asyncio.sleep(0.01)
        finally:
            await self._count(names, -1)

    async def _count(self, names: tuple[str, ...], by: int) -> None:
        async with self._changed:
            self.running.update(dict.fromkeys(names, by))
            for name in names:
                self.most[name] = max(self.most[name], self.running[name])
            self._changed.notify_all()

    def count_anew(self) -> None:
        """Forget how many ran before."""
        self.most = Counter(self.running)

    async def reaches(self, name: str, count: int) -> None:
        """Return once so many run."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: self.running[name] == count)


async def limit(store: Store, scope: LimitScope, name: str, most: int | None) -> None:
    """As the API does it."""
    command = RemoveLimit(scope, name) if most is None else SetLimit(scope, name, most)
    done = await transact_system(store, command, Meta("ann"))
    await store.spread_limits(done.system, done.before)


@contextlib.asynccontextmanager
async def two_workers(store: RedisStore, gauge: Gauge) -> AsyncGenerator[None]:
    """Workers that have room for everything."""
    handlers = (handles("work", gauge.work), handles("other", gauge.work))
    async with (
        working(store, *handlers, worker_id="w1", concurrency=TASKS),
        working(store, *handlers, worker_id="w2", concurrency=TASKS),
    ):
        yield


async def submitted(store: RedisStore, count: int, task_type: str = "work", **fields: Any):
    payload = {"type": task_type}
    return [await submit(store, task_type, payload, **fields) for _ in range(count)]


async def finished(store: RedisStore, task_ids: list[str]) -> None:
    for task_id in task_ids:
        await until(store, task_id, Status.COMPLETED)
    assert (await check_ledger(store)).in_status(Status.COMPLETED) == len(task_ids)
    await assert_quiescent(store)


async def test_no_more_tasks_of_a_type_run_at_once_than_may(store: RedisStore) -> None:
    gauge = Gauge()
    await limit(store, TYPE, "work", 3)
    task_ids = await submitted(store, TASKS)
    async with two_workers(store, gauge):
        await gauge.reaches("work", 3)
        gauge.gate.set()
        task_ids += await submitted(store, 4)
        await finished(store, task_ids)

    assert gauge.most["work"] == 3
    assert await store.admitted(TYPE, ["work"]) == [0]


async def test_other_types_are_not_held_up_by_a_limit(store: RedisStore) -> None:
    gauge = Gauge()
    await limit(store, TYPE, "work", 1)
    task_ids = await submitted(store, 8)
    async with two_workers(store, gauge):
        await gauge.reaches("work", 1)
        task_ids += await submitted(store, 8, "other")
        await gauge.reaches("other", 8)
        gauge.gate.set()
        await finished(store, task_ids)

    assert gauge.most["work"] == 1


async def test_a_knowledge_base_is_limited_over_all_its_types(store: RedisStore) -> None:
    gauge = Gauge()
    await limit(store, KB, "docs", 2)
    task_ids = await submitted(store, 8, "work", kb_id="docs")
    task_ids += await submitted(store, 8, "other", kb_id="docs")
    async with two_workers(store, gauge):
        await gauge.reaches("kb:docs", 2)
        task_ids += await submitted(store, 8, "work", kb_id="free")
        await gauge.reaches("kb:free", 8)
        gauge.gate.set()
        await finished(store, task_ids)

    assert gauge.most["kb:docs"] == 2
    assert gauge.most["work"] >= 8


async def test_a_limit_that_is_raised_lets_more_run_at_once(store: RedisStore) -> None:
    """Although nothing ends that would make room."""
    gauge = Gauge()
    await limit(store, TYPE, "work", 1)
    task_ids = await submitted(store, TASKS)
    async with two_workers(store, gauge):
        await gauge.reaches("work", 1)
        await limit(store, TYPE, "work", 5)
        await gauge.reaches("work", 5)
        await limit(store, TYPE, "work", None)
        await gauge.reaches("work", TASKS)
        gauge.gate.set()
        await finished(store, task_ids)


async def test_a_limit_that_is_lowered_is_reached_as_tasks_end(store: RedisStore) -> None:
    gauge = Gauge()
    task_ids = await submitted(store, 6)
    async with two_workers(store, gauge):
        await gauge.reaches("work", 6)
        await limit(store, TYPE, "work", 2)
        more = await submitted(store, 10)
        of_the_six, gauge.gate = gauge.gate, asyncio.Event()
        of_the_six.set()
        for task_id in task_ids:
            await until(store, task_id, Status.COMPLETED)
        await gauge.reaches("work", 2)
        gauge.count_anew()
        gauge.gate.set()
        await finished(store, task_ids + more)

    assert gauge.most["work"] == 2


@pytest.fixture
async def wide(ledger_url: str) -> AsyncIterator[RedisStore]:
    """A ledger of two partitions."""
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=2))
    yield store
    await store.close()


async def test_partitions_divide_a_limit_among_them(wide: RedisStore) -> None:
    gauge = Gauge()
    await limit(wide, TYPE, "work", 4)
    task_ids = await submitted(wide, TASKS)
    async with two_workers(wide, gauge), scheduling(wide):
        await gauge.reaches("work", 4)
        gauge.gate.set()
        await finished(wide, task_ids)

    assert gauge.most["work"] == 4


async def test_a_limit_outlasts_a_task_that_is_retried(store: RedisStore) -> None:
    """What an attempt counted for is given back at its end, and not twice."""
    failed = set[str]()
    gauge = Gauge()
    gauge.gate.set()

    async def once(context: Context, payload: dict[str, str]) -> None:
        await gauge.work(context, payload)
        if context.task_id not in failed:
            failed.add(context.task_id)
            raise RuntimeError("the first time")

    await limit(store, KB, "docs", 2)
    task_ids = await submitted(store, 6, kb_id="docs")
    async with working(store, handles("work", once)), scheduling(store):
        await finished(store, task_ids)

    assert gauge.most["kb:docs"] <= 2
    assert await store.admitted(KB, ["docs"]) == [0]


async def test_tasks_that_nobody_takes_keep_no_places_from_others(store: RedisStore) -> None:
    """They stand in line, since a worker for them may come; whoever can run another one goes first,
    and they keep their order for when their turn comes."""
    await limit(store, KB, "small", 2)
    waiting = await submitted(store, 3, "other", kb_id="small")
    wanted = await submitted(store, 3, kb_id="small")
    gauge = Gauge()
    gauge.gate.set()
    async with working(store, handles("work", gauge.work)):
        for task_id in wanted:
            await until(store, task_id, Status.COMPLETED)
    async with working(store, handles("other", gauge.work)):
        done = [await until(store, task_id, Status.COMPLETED) for task_id in waiting]

    assert gauge.most["kb:small"] <= 2
    started = [task.state.started_at or 0 for task in done]
    assert started == sorted(started)
    await assert_quiescent(store)


async def test_a_freed_place_goes_to_the_most_urgent_task_whatever_its_type(
    store: RedisStore,
) -> None:
    await limit(store, KB, "small", 1)
    gauge = Gauge()
    gauge.gate.set()
    waiting = await submitted(store, 20, kb_id="small", priority=Priority.LOW)
    async with (
        working(store, handles("work", gauge.work), worker_id="w1"),
        working(store, handles("other", gauge.work), worker_id="w2"),
    ):
        await until(store, waiting[0], Status.COMPLETED)
        [urgent] = await submitted(store, 1, "other", kb_id="small", priority=Priority.CRITICAL)
        done = await until(store, urgent, Status.COMPLETED)
        rest = [await until(store, task_id, Status.COMPLETED) for task_id in waiting]

    later = [t for t in rest if (t.state.started_at or 0) > (done.state.started_at or 0)]
    assert len(later) > 10
    assert gauge.most["kb:small"] == 1


async def test_what_was_delivered_of_a_paused_type_keeps_no_place(store: RedisStore) -> None:
    await limit(store, KB, "small", 1)
    gauge = Gauge()
    gauge.gate.set()
    handlers = (handles("work", gauge.work), handles("other", gauge.work))
    async with working(store, *handlers, worker_id="w1"):
        [first] = await submitted(store, 1, "other")
        await until(store, first, Status.COMPLETED)
        await transact_system(store, PauseQueue("work"), Meta("ann"))
        await submitted(store, 1, kb_id="small")
        [wanted] = await submitted(store, 1, "other", kb_id="small")
        await until(store, wanted, Status.COMPLETED)


@pytest.mark.parametrize("count", ["7", "garbage"])
async def test_counts_that_were_damaged_are_put_right(store: RedisStore, count: str) -> None:
    """One too high keeps places that nobody has: without this, nothing would ever run again."""
    gauge = Gauge()
    await limit(store, TYPE, "work", 2)
    await cast("Any", store.client).hset(PartitionKeys(0).admitted, "type:work", count)
    tasks = [await submit(store, payload={"type": "work"}) for _ in range(6)]
    gauge.gate.set()
    async with working(store, handles("work", gauge.work)), scheduling(store):
        for task_id in tasks:
            await until(store, task_id, Status.COMPLETED)

    assert gauge.most["work"] <= 2
    assert await store.admitted(TYPE, ["work"]) == [0]
