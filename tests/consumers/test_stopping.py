"""Handlers that are stopped from outside: by a time-out, a cancel, or the end of their worker."""

import asyncio
import fcntl
import threading
from pathlib import Path
from typing import Any

import pytest

from consumers import Context, executors, worker
from consumers.meters import Meter
from ledger.commands import StartTask
from ledger.events import AttemptFailed, ErrorKind, RetryScheduled
from ledger.keys import PartitionKeys
from ledger.redis_store import RedisStore
from ledger.task import Status
from ledger.transact import transact
from tests.consumers.test_executors import MODULE, in_process
from tests.consumers.working import (
    PATIENCE_S,
    Counted,
    Logged,
    cancel,
    events_of,
    handles,
    kinds,
    scheduling,
    signal,
    submit,
    until,
    working,
)


class Patient:
    """An async handler that waits to be stopped, and says when it starts and when it is."""

    def __init__(self) -> None:
        self.started, self.stopped = asyncio.Event(), asyncio.Event()
        self.finish = asyncio.Event()
        self.was_canceled = False

    async def __call__(self, context: Context, _: Any) -> str:
        self.started.set()
        try:
            await self.finish.wait()
            return "finished"
        except asyncio.CancelledError:
            self.was_canceled = bool(context.canceled)
            self.stopped.set()
            raise

    @property
    def handler(self) -> Any:
        async def wait(context: Context, payload: Any) -> str:
            return await self(context, payload)

        return handles("wait", wait)


class Stubborn:
    """An async handler that does not end when it is told to, only when the test lets it."""

    def __init__(self, answer: str = "ended after all") -> None:
        self.started, self.told, self.finish = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.ended = asyncio.Event()
        self._answer = answer

    @property
    def handler(self) -> Any:
        async def resist(context: Context, _: Any) -> str:
            self.started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.told.set()
                await self.finish.wait()
            self.ended.set()
            return self._answer

        return handles("resist", resist)


async def until_free(lock: Path) -> None:
    """Wait until no process holds the lock any more."""
    with lock.open() as file:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)


async def leased_until(store: RedisStore, task_id: str) -> float:
    """When the lease of the first attempt ends, by the server's clock in ms."""
    until = await store.client.zscore(PartitionKeys(0).leases, f"{task_id}:1")
    assert until is not None
    return until


# -- time-outs --------------------------------------------------------------------------------


async def test_a_coroutine_is_cancelled_when_its_time_is_up(store: RedisStore) -> None:
    patient = Patient()
    async with working(store, patient.handler):
        task_id = await submit(store, "wait", timeout_s=1, max_retries=0)
        task = await until(store, task_id, Status.FAILED)

    assert patient.stopped.is_set()
    assert patient.was_canceled
    assert task.state.error_message == "the attempt took longer than 1 s"
    assert task.state.error_kind is ErrorKind.TIMEOUT


async def test_a_time_out_is_retried(store: RedisStore) -> None:
    async def slow_at_first(context: Context, _: Any) -> int:
        if context.attempt == 1:
            await asyncio.Event().wait()
        return context.attempt

    async with working(store, handles("slow", slow_at_first)), scheduling(store):
        task_id = await submit(store, "slow", timeout_s=1)
        task = await until(store, task_id, Status.COMPLETED)

    assert bytes(task.state.result) == b"2"
    (failed,) = await events_of(store, task_id, AttemptFailed)
    assert failed.error_kind is ErrorKind.TIMEOUT


async def test_a_process_is_killed_with_all_that_it_started_when_its_time_is_up(
    store: RedisStore, tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    async with working(store, in_process("process_linger"), module=MODULE):
        task_id = await submit(
            store, "process_linger", {"lock": str(lock)}, timeout_s=4, max_retries=0
        )
        await until(store, task_id, lambda task: task.state.progress == 1)
        task = await until(store, task_id, Status.FAILED)
        await until_free(lock)

    assert task.state.error_kind is ErrorKind.TIMEOUT


async def test_a_thread_is_told_and_abandoned_when_its_time_is_up(
    store: RedisStore, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "THREAD_END_GRACE_S", 0.0)
    told, go_on = list[bool](), threading.Event()

    def block(context: Context, _: Any) -> None:
        go_on.wait(PATIENCE_S)
        told.append(bool(context.canceled))
        context.progress(90, "for nobody")

    meter = Meter()
    async with working(store, handles("block", block), meter=meter):
        task_id = await submit(store, "block", timeout_s=1, max_retries=0)
        task = await until(store, task_id, Status.FAILED)
        await logged.comes("thread_abandoned")
        counted = meter.meters.threads_abandoned
        go_on.set()
        (thread,) = [t for t in threading.enumerate() if t.name == f"handler-{task_id}"]
        await asyncio.to_thread(thread.join, PATIENCE_S)

    assert (counted, meter.meters.threads_abandoned) == (1, 0)
    assert told == [True]
    assert task.state.error_kind is ErrorKind.TIMEOUT
    assert [r["task_id"] for r in logged.of("thread_abandoned")] == [task_id]
    assert (await kinds(store, task_id))[-1] == "TaskFailed"


async def test_a_thread_that_ends_when_it_is_told_is_not_abandoned(
    store: RedisStore, logged: Logged
) -> None:
    go_on = threading.Event()

    def watch(context: Context, _: Any) -> None:
        context.progress(1, "begun")
        while not context.canceled:
            go_on.wait(0.01)

    def block(context: Context, _: Any) -> None:
        context.progress(1, "begun")
        go_on.wait(PATIENCE_S)

    async with working(store, handles("watch", watch), handles("block", block)):
        good, bad = await submit(store, "watch"), await submit(store, "block")
        for task_id in (good, bad):
            await until(store, task_id, lambda task: task.state.progress == 1)
            await cancel(store, task_id)
        # The other one was told before, so that its grace is over too.
        await logged.comes("thread_abandoned")
        go_on.set()

    assert [r["task_id"] for r in logged.of("thread_abandoned")] == [bad]


async def test_a_worker_with_too_many_abandoned_threads_ends(
    store: RedisStore, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "THREAD_END_GRACE_S", 0.0)
    monkeypatch.setattr(worker, "ABANDONED_THREADS_MAX", 2)
    rounds = [threading.Event() for _ in range(3)]

    def block(context: Context, payload: dict[str, int]) -> None:
        context.progress(1, "begun")
        rounds[payload["round"]].wait(PATIENCE_S)

    async def abandon(number: int) -> str:
        task_id = await submit(store, "block", {"round": number})
        await until(store, task_id, lambda task: task.state.progress == 1)
        await cancel(store, task_id)
        await logged.comes("thread_abandoned", number + 1)
        return task_id

    async with working(store, handles("block", block)) as blocked:
        first = await abandon(0)
        (thread,) = [t for t in threading.enumerate() if t.name == f"handler-{first}"]
        rounds[0].set()
        await asyncio.to_thread(thread.join, PATIENCE_S)
        # One that ended after all does not count any more.
        await abandon(1)
        assert not blocked.stopping
        await abandon(2)
        assert blocked.stopping
        for go_on in rounds:
            go_on.set()


async def test_a_coroutine_that_ignores_its_end_is_left_behind(
    store: RedisStore, logged: Logged
) -> None:
    stubborn = Stubborn()
    async with working(store, stubborn.handler, concurrency=1):
        task_id = await submit(store, "resist", timeout_s=1, max_retries=0)
        task = await until(store, task_id, Status.FAILED)
        # Its slot is free again: the worker goes on.
        stubborn.started.clear()
        other = await submit(store, "resist")
        await signal(stubborn.started)
        await cancel(store, other)
        await until(store, other, Status.CANCELED)
        stubborn.finish.set()
        await signal(stubborn.ended)

    assert task.state.error_kind is ErrorKind.TIMEOUT
    assert logged.of("handler_ignores_its_end")[0]["task_id"] == task_id
    assert (await kinds(store, task_id))[-1] == "TaskFailed"


async def test_a_worker_does_not_wait_for_a_handler_that_was_left_behind(
    store: RedisStore, logged: Logged
) -> None:
    stubborn = Stubborn()
    async with asyncio.timeout(PATIENCE_S):
        async with working(store, stubborn.handler, drain_timeout_ms=600_000) as worker:
            await submit(store, "resist", timeout_s=1, max_retries=0)
            await signal(stubborn.started)
            worker.stop()
        stubborn.finish.set()
        await signal(stubborn.ended)

    assert logged.of("handler_ignores_its_end")


# -- cancels ----------------------------------------------------------------------------------


async def test_a_cancel_stops_a_running_coroutine(store: RedisStore) -> None:
    patient = Patient()
    async with working(store, patient.handler):
        task_id = await submit(store, "wait")
        await signal(patient.started)
        await cancel(store, task_id)
        await signal(patient.stopped)

    assert patient.was_canceled
    assert await kinds(store, task_id) == ["TaskSubmitted", "TaskStarted", "TaskCanceled"]


async def test_a_cancel_kills_a_running_process_with_all_that_it_started(
    store: RedisStore, tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    async with working(store, in_process("process_linger"), module=MODULE):
        task_id = await submit(store, "process_linger", {"lock": str(lock)})
        await until(store, task_id, lambda task: task.state.progress == 1)
        await cancel(store, task_id)
        await until_free(lock)

    assert (await kinds(store, task_id))[-1] == "TaskCanceled"


async def test_a_cancel_is_seen_by_a_running_thread(store: RedisStore) -> None:
    seen = threading.Event()

    def look_often(context: Context, _: Any) -> None:
        while not context.canceled:
            threading.Event().wait(0.001)
        seen.set()

    async with working(store, handles("look", look_often)):
        task_id = await submit(store, "look")
        await until(store, task_id, Status.PROCESSING)
        await cancel(store, task_id)
        assert await asyncio.to_thread(seen.wait, PATIENCE_S)

    assert (await kinds(store, task_id))[-1] == "TaskCanceled"


async def test_what_a_canceled_handler_returns_all_the_same_is_not_kept(
    store: RedisStore, logged: Logged
) -> None:
    stubborn = Stubborn()
    stubborn.finish.set()
    async with working(store, stubborn.handler):
        task_id = await submit(store, "resist")
        await signal(stubborn.started)
        await cancel(store, task_id)
        await signal(stubborn.ended)

    task = await store.load(task_id)
    assert task is not None
    assert (task.status, bytes(task.state.result)) == (Status.CANCELED, b"")


async def test_a_task_that_is_canceled_while_it_waits_is_never_run(store: RedisStore) -> None:
    patient = Patient()
    canceled = await submit(store, "wait")
    await cancel(store, canceled)
    wanted = await submit(store, "wait")
    patient.finish.set()
    async with working(store, patient.handler, concurrency=1):
        await until(store, wanted, Status.COMPLETED)

    assert await kinds(store, canceled) == ["TaskSubmitted", "TaskCanceled"]


async def test_a_cancel_needs_no_worker_to_be_there(store: RedisStore) -> None:
    patient = Patient()
    task_id = await submit(store, "wait")
    await transact(store, task_id, StartTask(1, "a worker that is gone", 60_000))
    await cancel(store, task_id)
    patient.finish.set()
    async with working(store, patient.handler):
        await until(store, await submit(store, "wait"), Status.COMPLETED)

    assert await kinds(store, task_id) == ["TaskSubmitted", "TaskStarted", "TaskCanceled"]


async def test_a_task_that_is_canceled_between_claim_and_start_is_dropped(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    ran: list[str] = []

    async def run(context: Context, _: Any) -> None:
        ran.append(context.task_id)

    claim = store.claim

    async def claim_and_cancel(*arguments: Any) -> Any:
        claimed = await claim(*arguments)
        for each in claimed:
            if each.delivery.task_id == unwanted:
                await cancel(store, unwanted)
        return claimed

    unwanted, wanted = await submit(store, "run"), await submit(store, "run")
    monkeypatch.setattr(store, "claim", claim_and_cancel)
    async with working(store, handles("run", run)):
        await until(store, wanted, Status.COMPLETED)
        await logged.comes("claim_dropped")

    assert ran == [wanted]
    assert await kinds(store, unwanted) == ["TaskSubmitted", "TaskCanceled"]


# -- the end of the worker --------------------------------------------------------------------


async def test_a_worker_that_is_stopped_finishes_what_runs_and_takes_nothing_new(
    store: RedisStore,
) -> None:
    patient = Patient()
    async with working(store, patient.handler, concurrency=1) as worker:
        running = await submit(store, "wait")
        await signal(patient.started)
        waiting = await submit(store, "wait")
        worker.stop()
        patient.finish.set()

    assert (await kinds(store, running))[-1] == "TaskCompleted"
    assert await kinds(store, waiting) == ["TaskSubmitted"]


async def test_what_a_worker_claimed_and_did_not_start_is_others_at_once(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop comes while the claim is answered: its tasks are neither begun nor left to grow
    stale."""
    patient, second = Patient(), Patient()
    second.finish.set()
    claim = store.claim
    claimed_by_first = asyncio.Event()

    async def claim_and_stop(*arguments: Any) -> Any:
        claimed = await claim(*arguments)
        if claimed and not claimed_by_first.is_set():
            claimed_by_first.set()
            first.stop()
        return claimed

    task_ids = [await submit(store, "wait") for _ in range(3)]
    monkeypatch.setattr(store, "claim", claim_and_stop)
    never: dict[str, Any] = {"pending_idle_ms": 3_600_000}
    async with working(store, patient.handler, **never) as first:
        await signal(claimed_by_first)
    async with working(store, second.handler, worker_id="w2", **never):
        done = [await until(store, task_id, Status.COMPLETED) for task_id in task_ids]

    assert not patient.started.is_set()
    assert {(task.state.attempt, task.state.worker_id) for task in done} == {(1, "w2")}


async def test_what_was_delivered_to_a_worker_as_it_stopped_is_others_at_once(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient, second = Patient(), Patient()
    second.finish.set()
    wait_ready = store.wait_ready
    sleeps, delivered = asyncio.Event(), asyncio.Event()

    async def deliver_and_stop(*arguments: Any) -> Any:
        sleeps.set()
        found = await wait_ready(*arguments)
        if found and not delivered.is_set():
            delivered.set()
            first.stop()
        return found

    monkeypatch.setattr(store, "wait_ready", deliver_and_stop)
    never: dict[str, Any] = {"pending_idle_ms": 3_600_000}
    async with working(store, patient.handler, **never) as first:
        # What it finds before it sleeps it claims without being woken.
        await signal(sleeps)
        task_id = await submit(store, "wait")
        await signal(delivered)
    async with working(store, second.handler, worker_id="w2", **never):
        task = await until(store, task_id, Status.COMPLETED)

    assert not patient.started.is_set()
    assert (task.state.attempt, task.state.worker_id) == (1, "w2")


async def test_heartbeats_go_on_while_a_worker_drains(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = Counted(store.renew)
    monkeypatch.setattr(store, "renew", beats)
    patient = Patient()
    async with working(store, patient.handler) as worker:
        task_id = await submit(store, "wait")
        await signal(patient.started)
        worker.stop()
        before = await leased_until(store, task_id)
        await beats.more(3)
        after = await leased_until(store, task_id)
        patient.finish.set()

    assert after > before
    assert (await kinds(store, task_id))[-1] == "TaskCompleted"


@pytest.mark.parametrize("kind", ["async", "thread", "process", "stubborn"])
async def test_what_does_not_end_in_time_is_given_back_without_counting_a_retry(
    store: RedisStore, tmp_path: Path, kind: str
) -> None:
    finish = threading.Event()

    def block(context: Context, _: Any) -> None:
        finish.wait(PATIENCE_S)

    stubborn = Stubborn()
    lock = tmp_path / "lock"
    handler = {
        "async": Patient().handler,
        "thread": handles("block", block),
        "process": in_process("process_linger"),
        "stubborn": stubborn.handler,
    }[kind]

    task_id = await submit(store, handler.task_type, {"lock": str(lock)})
    async with working(store, handler, module=MODULE, drain_timeout_ms=0) as worker:
        await until(store, task_id, Status.PROCESSING)
        if kind == "process":
            await until(store, task_id, lambda task: task.state.progress == 1)
        worker.stop()
    finish.set()
    stubborn.finish.set()
    if kind == "process":
        await until_free(lock)

    task = await store.load(task_id)
    assert task is not None
    assert (task.status, task.state.retry_count, task.state.worker_id) == (Status.RETRYING, 0, None)
    (failed,) = await events_of(store, task_id, AttemptFailed)
    assert failed == AttemptFailed(1, "the worker was stopped", ErrorKind.WORKER_LOST)
    (retry,) = await events_of(store, task_id, RetryScheduled)
    assert retry.retry_at <= task.state.updated_at


async def test_a_task_that_was_given_back_is_done_by_another_worker(store: RedisStore) -> None:
    patient, second = Patient(), Patient()
    second.finish.set()
    async with working(store, patient.handler, drain_timeout_ms=0) as worker:
        task_id = await submit(store, "wait")
        await signal(patient.started)
        worker.stop()
    async with working(store, second.handler, worker_id="w2"), scheduling(store):
        task = await until(store, task_id, Status.COMPLETED)

    assert (task.state.attempt, task.state.retry_count, task.state.worker_id) == (2, 0, "w2")
