"""Workers in processes of their own: seen, killed, stopped, under load, and replaced."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ledger.events import AttemptFailed, ErrorKind, TaskStarted
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from ledger.task import Status
from ledger.workers import WorkerSeen, WorkerState
from tests.checks import check_ledger
from tests.consumers.role_process import ROOT, RoleProcess, role_process
from tests.consumers.test_stopping import until_free
from tests.consumers.working import (
    PATIENCE_S,
    cancel,
    events_of,
    kinds,
    scheduling,
    submit,
    until,
)

WORKER = ("-m", "consumers.roles", "worker", "worker")
POOL = ("-m", "api.cli", "worker")
LEASE_MS = 2_000
FROM_CRASH_TO_RETAKE_MS = LEASE_MS + 2_000


@pytest.fixture
def settings(ledger_url: str) -> Settings:
    return Settings(
        redis_url=ledger_url,
        handlers="tests.consumers.trying_handlers",
        task_types=("hold", "take_time", "hang", "be_quick"),
        lease_ms=LEASE_MS,
    )


@contextlib.contextmanager
def worker(settings: Settings) -> Generator[RoleProcess]:
    with role_process(*WORKER, cwd=ROOT, settings=settings) as process:
        process.wait_for("worker_started")
        yield process


async def seen(
    store: RedisStore, wanted: Callable[[WorkerSeen], bool], count: int = 1
) -> list[Any]:
    """The workers, as soon as so many are as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = [each for each in await store.workers() if wanted(each)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


async def all_of(process: RoleProcess, *events: str) -> list[dict[str, Any]]:
    """The next log record of each event, in whichever order they come."""
    found: dict[str, dict[str, Any]] = {}
    while found.keys() < set(events):
        record = await asyncio.to_thread(process.wait_for, *events)
        found.setdefault(record["event"], record)
    return [found[event] for event in events]


async def wait_for(process: RoleProcess, event: str) -> dict[str, Any]:
    return await asyncio.to_thread(process.wait_for, event)


async def test_a_killed_worker_is_lost_and_its_tasks_retaken_within_the_lease_and_two_seconds(
    store: RedisStore, settings: Settings
) -> None:
    with worker(settings) as victim:
        [before] = await seen(store, lambda worker: True)
        task_ids = [await submit(store, "hold") for _ in range(20)]
        for task_id in task_ids:
            await until(store, task_id, Status.PROCESSING)
        await seen(store, lambda worker: worker.report.running == len(task_ids))
        with worker(settings):
            async with scheduling(store):
                killed_at = store.now_ms()
                victim.signal(signal.SIGKILL)
                [lost] = await seen(store, lambda worker: worker.state is WorkerState.LOST)
                lost_at = store.now_ms()
                done = [await until(store, task_id, Status.COMPLETED) for task_id in task_ids]

    assert lost.report.id == before.report.id
    assert (lost.report.pid, lost.report.running) == (victim.process.pid, len(task_ids))
    assert lost.last_heartbeat <= killed_at
    assert lost_at - killed_at < FROM_CRASH_TO_RETAKE_MS
    assert {task.state.attempt for task in done} == {2}
    retaken = [task.state.started_at for task in done if task.state.started_at is not None]
    assert max(retaken) - killed_at < FROM_CRASH_TO_RETAKE_MS
    await check_ledger(store)


async def test_a_worker_that_was_stopped_for_longer_than_its_lease_is_fenced_and_goes_on(
    store: RedisStore, settings: Settings
) -> None:
    async with scheduling(store):
        with worker(settings) as stopped:
            waits = await submit(store, "hold")
            ends = await submit(store, "take_time", {"seconds": 1.0})
            for task_id in (waits, ends):
                await until(store, task_id, Status.PROCESSING)
            await wait_for(stopped, "begun")
            stopped.signal(signal.SIGSTOP)
            for task_id in (waits, ends):
                await until(store, task_id, lambda task: task.state.retry_count == 1)
            stopped.signal(signal.SIGCONT)
            # Its timer rings as it learns that: the ledger refuses the result, or it is stopped.
            told = ("worker_fenced", "attempt_fenced", "let_go")
            fenced, left, _ = await all_of(stopped, *told)
            done = [await until(store, task_id, Status.COMPLETED) for task_id in (waits, ends)]

    assert fenced["silent_s"] >= LEASE_MS / 1_000
    assert left["attempt"] == 1
    assert left["task_id"] in (waits, ends)
    assert fenced["worker_id"] == left["worker_id"]
    # It is the only worker: what it lost, it has taken again.
    assert {task.state.attempt for task in done} == {2}
    assert {task.state.worker_id for task in done} == {fenced["worker_id"]}
    for task_id in (waits, ends):
        [failed] = await events_of(store, task_id, AttemptFailed)
        assert failed.error_kind is ErrorKind.WORKER_LOST
    await check_ledger(store)


async def test_under_load_a_cancel_comes_through_and_a_long_task_keeps_its_lease(
    store: RedisStore, settings: Settings
) -> None:
    """The long task takes more than twice its lease."""
    async with scheduling(store), loaded(store):
        with worker(settings) as busy:
            long = await submit(store, "take_time", {"seconds": 2.2 * LEASE_MS / 1_000})
            for _ in range(3):
                held = await submit(store, "hold")
                await wait_for(busy, "held")
                await cancel(store, held)
                assert (await wait_for(busy, "let_go"))["task_id"] == held
            await until(store, long, Status.COMPLETED)

    assert await kinds(store, long) == ["TaskSubmitted", "TaskStarted", "TaskCompleted"]


@contextlib.asynccontextmanager
async def loaded(store: RedisStore) -> AsyncGenerator[None]:
    """As many quick tasks meanwhile as a few callers can submit."""

    async def submit_on() -> None:
        while True:
            await until(store, await submit(store, "be_quick"), Status.COMPLETED)

    callers = [asyncio.create_task(submit_on()) for _ in range(8)]
    try:
        yield
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)


async def test_a_worker_whose_loop_is_blocked_loses_its_tasks_and_then_its_process(
    store: RedisStore, settings: Settings
) -> None:
    pooled = replace(settings, silence_timeout_ms=1_500, concurrency=1)
    with role_process(*POOL, cwd=ROOT, settings=pooled) as pool:
        async with scheduling(store):
            [first] = await seen(store, lambda worker: True)
            task_id = await submit(store, "hang", {"seconds": 600.0})
            blocked = await wait_for(pool, "event_loop_blocked")
            silent = await wait_for(pool, "process_silent")
            task = await until(store, task_id, Status.COMPLETED)

    assert (blocked["task_id"], blocked["task_type"]) == (task_id, "hang")
    assert "in hang: time.sleep" in blocked["at"]
    assert "in hang" in silent["stack"]
    assert silent["pid"] == first.report.pid
    assert [event.attempt for event in await events_of(store, task_id, TaskStarted)] == [1, 2]
    assert task.state.worker_id != first.report.id


async def test_a_worker_that_lost_its_supervisor_ends_though_its_loop_is_blocked(
    store: RedisStore, settings: Settings
) -> None:
    with role_process(*POOL, cwd=ROOT, settings=settings) as pool:
        [worker] = await seen(store, lambda worker: True)
        await submit(store, "hang", {"seconds": 600.0})
        await wait_for(pool, "event_loop_blocked")
        pool.signal(signal.SIGKILL)
        await until_gone(worker.report.pid)


@pytest.mark.parametrize("task_type", ["process_linger", "process_compute"])
async def test_a_killed_worker_takes_along_what_its_handlers_started(
    store: RedisStore, settings: Settings, tmp_path: Path, task_type: str
) -> None:
    lock = tmp_path / "lock"
    served = replace(settings, handlers="tests.consumers.process_handlers", task_types=(task_type,))
    with worker(served) as victim:
        task_id = await submit(store, task_type, {"lock": str(lock)})
        await until(store, task_id, lambda task: task.state.progress == 1)
        victim.signal(signal.SIGKILL)
        await until_free(lock)


async def until_gone(pid: int) -> None:
    """Return once there is no such process, or nothing left of it than that nobody asked."""
    async with asyncio.timeout(PATIENCE_S):
        while (await asyncio.to_thread(state_of, pid)) not in ("", "Z"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def state_of(pid: int) -> str:
    """As ps tells it; empty when there is no such process."""
    ps = ("ps", "-o", "state=", "-p", str(pid))
    return subprocess.run(ps, capture_output=True, text=True).stdout.strip()[:1]


async def test_a_pool_shares_its_concurrency_replaces_its_processes_and_takes_them_along(
    store: RedisStore, settings: Settings
) -> None:
    pooled = replace(settings, workers=2, concurrency=5, max_tasks=10)
    with role_process(*POOL, cwd=ROOT, settings=pooled) as pool:
        first = await seen(store, lambda worker: True, count=2)
        for task_id in [await submit(store, "be_quick") for _ in range(100)]:
            await until(store, task_id, Status.COMPLETED)
        await wait_for(pool, "process_leaving")
        firsts = {worker.report.id for worker in first}
        others = await seen(store, lambda worker: worker.report.id not in firsts)
        pool.signal(signal.SIGKILL)
        # With the supervisor its workers end, those too that have just come, and say so.
        async with asyncio.timeout(PATIENCE_S):
            while await store.workers():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        for pid in {worker.report.pid for worker in (*first, *others)}:
            await until_gone(pid)

    assert sorted(worker.report.concurrency for worker in first) == [2, 3]
