"""Worker processes that have served long enough: when they leave, and what they still finish."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from consumers import Context
from consumers.recycling import Recycling, resident_kib
from consumers.worker import Worker
from ledger.redis_store import RedisStore
from ledger.task import Status
from tests.consumers.working import (
    QUICK,
    handles,
    kinds,
    running,
    signal,
    submit,
    until,
)


def test_a_process_leaves_after_its_tasks():
    recycling = Recycling(tasks_max=3)

    assert [recycling.after_task(count) is None for count in (2, 3, 4)] == [True, False, False]


def test_a_process_leaves_that_holds_too_much_but_not_before_its_first_task():
    recycling = Recycling(memory_max_mib=100, resident=lambda: 101 * 1024)

    assert recycling.now_and_then(0) is None
    assert recycling.now_and_then(1) == "101 MiB are resident, more than 100 (max_memory_mib)"
    assert Recycling(memory_max_mib=101, resident=lambda: 101 * 1024).now_and_then(1) is None


def test_without_bounds_a_process_stays():
    assert Recycling().after_task(10**9) is None
    assert Recycling(resident=lambda: 10**9).now_and_then(10**9) is None


def test_resident_memory_is_what_this_process_holds():
    before = resident_kib()
    ballast = b"x" * (64 << 20)

    assert 60 << 10 < resident_kib() - before < 80 << 10
    assert ballast


@pytest.mark.parametrize("bound", [{"max_tasks": 2}, {"max_memory_mib": 1}])
async def test_a_worker_that_leaves_lets_its_tasks_finish_however_long_they_take(
    store: RedisStore, bound: dict[str, int]
) -> None:
    begun, go_on, left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(context: Context, payload: dict[str, bool]) -> None:
        if payload.get("long"):
            begun.set()
            await signal(go_on)

    worker = leaving_worker(store, {"work": handles("work", work)}, left, bound)
    async with running(worker):
        long = await submit(store, payload={"long": True})
        await signal(begun)
        for _ in range(bound.get("max_tasks", 1)):
            await until(store, await submit(store), Status.COMPLETED)
        await signal(left)
        waiting = await submit(store)
        # Its drain time-out is 0, and is not applied: that is what SIGTERM would do.
        task = await store.load(long)
        assert task is not None
        assert task.status is Status.PROCESSING
        go_on.set()
        await until(store, long, Status.COMPLETED)

    assert await kinds(store, waiting) == ["TaskSubmitted"]


async def test_a_worker_that_leaves_can_still_be_told_to_end(store: RedisStore) -> None:
    left = asyncio.Event()

    async def work(context: Context, payload: dict[str, bool]) -> None:
        if payload.get("long"):
            await asyncio.Event().wait()

    worker = leaving_worker(store, {"work": handles("work", work)}, left, {"max_tasks": 1})
    async with running(worker):
        long = await submit(store, payload={"long": True})
        await until(store, long, Status.PROCESSING)
        await submit(store)
        await signal(left)
        worker.stop()
        task = await until(store, long, Status.RETRYING)

    assert task.state.retry_count == 0


def leaving_worker(
    store: RedisStore, handlers: Any, left: asyncio.Event, bound: dict[str, int]
) -> Worker:
    options = replace(QUICK, drain_timeout_ms=0, **bound)
    return Worker(store, handlers, options, on_leaving=lambda _: left.set())
