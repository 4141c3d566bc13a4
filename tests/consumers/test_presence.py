"""How a worker shows itself to others while it lives, and after."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from consumers import Context, PermanentError, RetryLater
from consumers.worker import Worker, WorkerOptions
from ledger.keys import WORKERS
from ledger.redis_store import RedisStore
from ledger.task import Status
from ledger.workers import WorkerSeen, WorkerState
from tests.consumers.working import (
    PATIENCE_S,
    Logged,
    cancel,
    handles,
    signal,
    submit,
    until,
    working,
)


async def seen(store: RedisStore, wanted: Callable[[WorkerSeen], bool]) -> WorkerSeen:
    """The only worker, as soon as it is as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for worker in await store.workers():
                if wanted(worker):
                    return worker
            await asyncio.sleep(0.005)


async def nothing(_context: Context, _payload: Any) -> None:
    return


async def test_a_worker_is_there_from_its_start_to_its_end(store: RedisStore) -> None:
    before = store.now_ms()
    handlers = (handles("work", nothing), handles("other", nothing))
    async with working(store, *handlers, worker_id="w7", concurrency=3, lease_ms=9_000):
        worker = await seen(store, lambda worker: True)
        later = await seen(store, lambda w: w.last_heartbeat > worker.last_heartbeat)

    report = worker.report
    assert (report.id, report.host, report.pid) == ("w7", socket.gethostname(), os.getpid())
    assert (report.task_types, report.concurrency) == (("other", "work"), 3)
    assert (report.lease_ms, worker.state) == (9_000, WorkerState.IDLE)
    assert before - 10 <= report.started_at <= store.now_ms() + 10
    assert later.report == report
    assert await store.workers() == []


async def test_a_worker_tells_what_it_runs_and_how_much_it_has_done(store: RedisStore) -> None:
    go_on = asyncio.Event()

    async def work(context: Context, payload: dict[str, str]) -> None:
        match payload.get("ends"):
            case "badly":
                raise PermanentError("no good")
            case "later":
                raise RetryLater(90)
            case "late":
                await signal(go_on)
            case _:
                await asyncio.sleep(0.01)

    async with working(store, handles("work", work)):
        for ends in ("well", "badly", "later", "well"):
            await submit(store, payload={"ends": ends})
        late = await submit(store, payload={"ends": "late"})
        busy = await seen(store, lambda w: w.report.task_ids == (late,))
        go_on.set()
        idle = await seen(store, lambda w: w.report.succeeded == 3)

    assert (busy.state, busy.report.running) == (WorkerState.BUSY, 1)
    assert (busy.report.succeeded, busy.report.failed, busy.processed) == (2, 1, 3)
    assert busy.average_task_ms is not None
    assert 0 < busy.average_task_ms < PATIENCE_S * 1_000
    assert (idle.state, idle.report.running, idle.report.task_ids) == (WorkerState.IDLE, 0, ())


async def test_a_canceled_task_is_told_until_its_handler_has_stopped(store: RedisStore) -> None:
    started, stopping, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(context: Context, _: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopping.set()
            await signal(go_on)

    async with working(store, handles("work", work)):
        task_id = await submit(store)
        await signal(started)
        await cancel(store, task_id)
        await signal(stopping)
        still = await seen(store, lambda w: w.state is WorkerState.BUSY)
        go_on.set()
        done = await seen(store, lambda w: w.state is WorkerState.IDLE)

    assert still.report.task_ids == (task_id,)
    assert done.processed == 0


async def test_a_worker_that_drains_says_so(store: RedisStore) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def work(context: Context, _: Any) -> None:
        started.set()
        await signal(go_on)

    async with working(store, handles("work", work)) as worker:
        task_id = await submit(store)
        await signal(started)
        worker.stop()
        draining = await seen(store, lambda w: w.state is WorkerState.DRAINING)
        go_on.set()

    assert draining.report.task_ids == (task_id,)
    assert await store.workers() == []


async def test_a_worker_that_does_not_come_to_its_end_is_lost(store: RedisStore) -> None:
    options = WorkerOptions(heartbeat_ms=20, lease_ms=1)
    worker = asyncio.create_task(
        Worker(store, {"work": handles("work", nothing)}, options, worker_id="w1").run()
    )
    await seen(store, lambda worker: True)
    worker.cancel()
    await asyncio.wait([worker])

    lost = await seen(store, lambda w: w.state is WorkerState.LOST)

    assert lost.report.id == "w1"


async def test_a_worker_that_cannot_say_that_it_ended_tells_why(
    store: RedisStore, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unanswered(_worker_id: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("consumers.presence.RETIRE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(store, "retire", unanswered)
    async with working(store, handles("work", nothing)):
        await seen(store, lambda worker: True)

    [told] = logged.of("worker_not_retired")
    assert told["reason"] == "the ledger did not answer within 0.05 s"


async def test_a_worker_that_cannot_show_itself_works_all_the_same(
    store: RedisStore, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = store.client
    await client.set(WORKERS, "not ours")
    async with working(store, handles("work", nothing)):
        task_id = await submit(store)
        await until(store, task_id, Status.COMPLETED)
        await logged.comes("worker_not_announced")

    assert len(logged.of("worker_not_announced")) == 1
