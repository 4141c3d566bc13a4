"""Who holds a task: leases, heartbeats, lost workers, and workers that come back too late."""

import asyncio
from typing import Any

import pytest

from consumers import Context
from consumers.reaper import fail_lost_attempt
from consumers.worker import Worker, WorkerOptions
from ledger.commands import StartTask
from ledger.events import AttemptFailed, ErrorKind, RetryScheduled
from ledger.keys import PartitionKeys
from ledger.redis_store import RedisStore
from ledger.retry_policy import DEFAULT_RETRY_POLICY, RetryPolicy
from ledger.task import Status
from ledger.transact import transact
from tests.checks import check_ledger
from tests.consumers.working import (
    PATIENCE_S,
    Counted,
    Logged,
    events_of,
    handles,
    kinds,
    scheduling,
    signal,
    submit,
    until,
    working,
)


async def test_the_task_of_a_lost_worker_is_done_by_another(store: RedisStore) -> None:
    async def well(context: Context, _: Any) -> int:
        return context.attempt

    task_id = await submit(store)
    await transact(store, task_id, StartTask(1, "a worker that is gone", 1))
    async with working(store, handles("work", well)), scheduling(store):
        task = await until(store, task_id, Status.COMPLETED)

    assert (task.state.attempt, task.state.retry_count, task.state.worker_id) == (2, 1, "w1")
    (failed,) = await events_of(store, task_id, AttemptFailed)
    assert failed.error_kind is ErrorKind.WORKER_LOST
    assert failed.error_message == "the worker was lost: its lease ran out without a heartbeat"


async def test_a_lost_task_is_tried_again_within_half_a_second_however_patient_the_policy(
    store: RedisStore,
) -> None:
    patient = RetryPolicy(base_ms=60_000, cap_ms=600_000, spread=0)
    task_id = await submit(store)
    await transact(store, task_id, StartTask(1, "a worker that is gone", 1))

    await fail_lost_attempt(store, task_id, 1, patient)

    task = await store.load(task_id)
    assert task is not None
    (retry,) = await events_of(store, task_id, RetryScheduled)
    assert retry.retry_at == task.state.updated_at + 500


async def test_a_task_whose_workers_are_lost_each_time_fails_in_the_end(store: RedisStore) -> None:
    task_id = await submit(store, max_retries=0)
    await transact(store, task_id, StartTask(1, "a worker that is gone", 1))
    async with scheduling(store):
        task = await until(store, task_id, Status.FAILED)

    assert task.state.error_kind is ErrorKind.WORKER_LOST


async def test_heartbeats_keep_a_task_that_takes_longer_than_its_lease(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = Counted(store.renew)
    monkeypatch.setattr(store, "renew", beats)

    async def long(context: Context, _: Any) -> int:
        await beats.more(50)
        return context.attempt

    options: dict[str, Any] = {"lease_ms": 1_500, "heartbeat_ms": 40}
    async with working(store, handles("work", long), **options), scheduling(store):
        task = await until(store, await submit(store), Status.COMPLETED)

    assert task.state.completed_at is not None
    assert task.state.started_at is not None
    assert task.state.completed_at - task.state.started_at > 1_500
    assert bytes(task.state.result) == b"1"


async def test_heartbeats_cease_with_the_task(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[Any] = []
    renew = store.renew

    async def note(partition: int, leases: Any, lease_ms: int) -> Any:
        renewed.extend(leases)
        return await renew(partition, leases, lease_ms)

    beats = Counted(note)
    monkeypatch.setattr(store, "renew", beats)
    go_on = asyncio.Event()

    async def work(context: Context, payload: dict[str, bool]) -> None:
        if payload.get("waits"):
            await signal(go_on)

    async with working(store, handles("work", work)):
        waits = await submit(store, payload={"waits": True})
        await until(store, await submit(store), Status.COMPLETED)
        renewed.clear()
        await beats.more(2)
        go_on.set()

    assert set(renewed) == {(waits, 1)}
    assert await store.client.zcard(PartitionKeys(0).leases) == 0


@pytest.mark.parametrize("end", ["CompleteTask", "FailAttempt"])
async def test_a_worker_that_comes_back_too_late_changes_nothing(
    store: RedisStore, logged: Logged, end: str
) -> None:
    """Its heartbeats do not come through, so its lease runs out while it works."""
    second_done, attempts = asyncio.Event(), list[tuple[bool, int]]()

    async def work(context: Context, _: Any) -> str:
        attempts.append((context.task_id == task_id, context.attempt))
        if attempts[-1] == (True, 1):
            await signal(second_done)
            await context.progress(99, "too late")
            if end == "FailAttempt":
                raise ValueError("too late")
        return f"of attempt {context.attempt}"

    task_id = await submit(store)
    deaf: dict[str, Any] = {"lease_ms": 1, "heartbeat_ms": 60_000}
    async with working(store, handles("work", work), worker_id="late", **deaf):
        async with scheduling(store):
            await until(store, task_id, lambda task: task.state.attempt == 1)
            await until(store, task_id, Status.RETRYING)
            async with working(store, handles("work", work), worker_id="other"):
                await until(store, task_id, lambda task: task.state.attempt == 2)
                task = await until(store, task_id, lambda task: task.finished)
        second_done.set()
        refused = await logged.comes("outcome_refused")
        # It goes on with other work.
        await until(store, await submit(store), Status.COMPLETED)

    assert attempts == [(True, 1), (True, 2), (False, 1)]
    assert (refused["attempt"], refused["outcome"]) == (1, end)
    assert logged.of("progress_not_written")[0]["task_id"] == task_id
    assert bytes(task.state.result) == b'"of attempt 2"'
    assert await store.load(task_id) == task
    assert (await kinds(store, task_id))[-1] == "TaskCompleted"
    await check_ledger(store)


async def test_a_worker_learns_from_its_heartbeat_that_it_lost_a_task(store: RedisStore) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def work(context: Context, _: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with working(store, handles("work", work)):
        task_id = await submit(store)
        await signal(started)
        await fail_lost_attempt(
            store, task_id, 1, DEFAULT_RETRY_POLICY
        )  # as when the lease has run out
        await signal(stopped)

    assert (await kinds(store, task_id))[-2:] == ["AttemptFailed", "RetryScheduled"]


async def test_a_worker_that_cannot_heartbeat_ends_rather_than_lose_its_tasks_unseen(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("a fault of ours")

    async def forever(context: Context, _: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(store, "renew", broken)
    options = WorkerOptions(heartbeat_ms=20, drain_timeout_ms=0)
    worker = Worker(store, {"work": handles("work", forever)}, options)
    task_id = await submit(store)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ExceptionGroup) as raised:
            await worker.run()

    assert raised.group_contains(RuntimeError, match="a fault of ours")
    assert (await kinds(store, task_id))[-1] == "RetryScheduled"
