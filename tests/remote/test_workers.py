"""Workers elsewhere: they take tasks, work on them under a lease, and report."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import msgspec
import pytest

from api.grpc import task_service_pb2 as pb
from consumers import remote_workers
from ledger.batching import Coalescer
from ledger.codec import Meta, decode_meta
from ledger.commands import Command, ReportProgress
from ledger.events import ErrorKind
from ledger.redis_store import RedisStore
from ledger.script_format import EncodedAppend
from ledger.task import Status, Task
from ledger.transact import transact
from ledger.workers import WorkerState
from tests.given import OTHER_TRACE, TRACE
from tests.remote.calls import (
    TYPE,
    WORKER,
    Remote,
    refused,
    submission,
    update_of,
    update_request,
)


async def test_a_task_is_taken_worked_on_and_completed(remote: Remote, store: RedisStore):
    payload = b'{"b": 1.50}'
    await remote.submit(payload=payload, metadata=b'{"x": 1}', timeout=9)

    [task] = await remote.take()
    halfway = await remote.report(task, progress=pb.Progress(percent=50, message="parsing"))
    done = await remote.report(task, completed=pb.Completed(result=b'{"chunks": 1.0}'))

    assert (task.payload, task.metadata, task.attempt) == (payload, b'{"x": 1}', 1)
    assert (task.timeout, task.max_retries, task.priority) == (9, 3, pb.PRIORITY_NORMAL)
    assert halfway.status == pb.TASK_STATUS_PROCESSING
    assert done.status == pb.TASK_STATUS_COMPLETED
    events = await store.history(task.id)
    assert [event.type for event in events] == [
        "TaskSubmitted",
        "TaskStarted",
        "TaskProgressed",
        "TaskCompleted",
    ]
    assert {msgspec.json.decode(event.meta)["actor"] for event in events[1:]} == {WORKER}
    assert bytes((await _loaded(store, task.id)).state.result) == b'{"chunks": 1.0}'


async def test_a_worker_is_told_the_trace_of_its_task_and_writes_in_it(
    remote: Remote, store: RedisStore
):
    await remote.call("SubmitTask", submission(), traceparent=TRACE)
    asked = pb.GetPendingTasksRequest(worker_id=WORKER, task_types=[TYPE], wait_ms=10_000)
    answer = await remote.call("GetPendingTasks", asked, traceparent=OTHER_TRACE)
    [task] = answer.tasks
    report = update_request(task, completed=pb.Completed())
    await remote.call("UpdateStatus", report, traceparent=OTHER_TRACE, x_request_id="r-9")

    metas = [decode_meta(event.meta) for event in await store.history(task.id)]
    assert task.traceparent == TRACE
    assert [meta.trace for meta in metas] == [TRACE] * 3
    assert metas[-1].request == "r-9"


async def test_a_task_without_a_trace_is_given_to_a_worker_without_one(remote: Remote):
    await remote.submit()

    [task] = await remote.take()

    assert task.traceparent == ""


async def test_who_waits_is_given_a_task_as_it_comes(remote: Remote):
    waiting = asyncio.create_task(remote.take())
    await asyncio.sleep(0)

    task = await remote.submit()

    assert [taken.id for taken in await waiting] == [task.id]


async def test_no_task_is_an_empty_answer(remote: Remote):
    assert await remote.take(wait_ms=0) == []


async def test_many_are_taken_at_once_the_most_urgent_first(remote: Remote):
    low, high = pb.PRIORITY_LOW, pb.PRIORITY_HIGH
    for priority in (low, high, low, high):
        await remote.submit(priority=priority)

    first = await remote.take(3)
    rest = await remote.take(3)

    assert [task.priority for task in (*first, *rest)] == [high, high, low, low]


async def test_tasks_come_in_order_and_are_started_once_however_they_were_started(
    remote: Remote, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    """Of many, most are written together; those that could not be are tried by themselves."""
    submitted = [(await remote.submit()).id for _ in range(2 * remote_workers.WRITTEN_APART_MIN)]
    together = remote_workers.transact_known

    async def every_other(
        store: RedisStore, wishes: Sequence[tuple[Task, Command]], meta: Meta
    ) -> list[Task | None]:
        started = await together(store, wishes[::2], meta)
        return [started[index // 2] if index % 2 == 0 else None for index in range(len(wishes))]

    monkeypatch.setattr(remote_workers, "transact_known", every_other)
    taken: list[str] = []
    while len(taken) < len(submitted) and (tasks := await remote.take(len(submitted))):
        taken += [task.id for task in tasks]

    assert taken == submitted
    histories = [await store.history(task_id) for task_id in taken]
    assert {tuple(event.type for event in each) for each in histories} == {
        ("TaskSubmitted", "TaskStarted")
    }


async def test_two_workers_share_what_there_is(remote: Remote):
    waits = [asyncio.create_task(remote.take(worker_id=name)) for name in ("a", "b")]

    tasks = [await remote.submit() for _ in range(2)]

    taken = [task.id for answer in await asyncio.gather(*waits) for task in answer]
    assert sorted(taken) == sorted(task.id for task in tasks)


async def test_reports_may_wait_for_others_and_nothing_else_does(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
):
    asked: list[bool] = []
    submit = Coalescer[Any, Any].submit

    def noted(
        coalescer: Coalescer[Any, Any], item: Any, size_bytes: int, *, patient: bool = False
    ) -> asyncio.Future[Any]:
        if isinstance(item, EncodedAppend):
            asked.append(patient)
        return submit(coalescer, item, size_bytes, patient=patient)

    monkeypatch.setattr(Coalescer, "submit", noted)
    await remote.submit()
    [task] = await remote.take()
    await remote.report(task, completed=pb.Completed(result=b"1"))

    assert asked == [False, False, True]


async def test_a_report_that_is_sent_again_is_done_once(remote: Remote, store: RedisStore):
    await remote.submit()
    await remote.submit()
    first, second = await remote.take(2)
    failed = pb.Failed(error_message="no such file")

    done = [await remote.report(first, completed=pb.Completed()) for _ in range(2)]
    retried = [await remote.report(second, failed=failed) for _ in range(2)]

    assert done[0] == done[1]
    assert (done[0].status, done[0].version) == (pb.TASK_STATUS_COMPLETED, 3)
    assert retried[0] == retried[1]
    assert (retried[0].status, retried[0].version) == (pb.TASK_STATUS_RETRYING, 4)
    assert bytes((await _loaded(store, first.id)).state.result) == b"null"


async def test_a_failure_is_retried_unless_it_is_permanent(remote: Remote, store: RedisStore):
    await remote.submit()
    await remote.submit()
    await remote.submit(max_retries=0)
    first, second, third = await remote.take(3)
    permanent = pb.Failed(error_message="no", kind=pb.ERROR_KIND_PERMANENT)

    retried = await remote.report(first, failed=pb.Failed(error_message="later"))
    failed = await remote.report(second, failed=permanent)
    spent = await remote.report(third, failed=pb.Failed(kind=pb.ERROR_KIND_TIMEOUT))

    assert (retried.status, failed.status) == (pb.TASK_STATUS_RETRYING, pb.TASK_STATUS_FAILED)
    assert spent.status == pb.TASK_STATUS_FAILED
    assert (await _loaded(store, second.id)).state.error_kind is ErrorKind.PERMANENT


async def test_a_failure_may_say_when_to_try_again(remote: Remote, store: RedisStore):
    await remote.submit()
    [task] = await remote.take()

    await remote.report(task, failed=pb.Failed(error_message="busy", retry_after_ms=3_600_000))

    state = (await _loaded(store, task.id)).state
    assert (state.retry_count, state.postponements) == (0, 1)
    assert state.waiting_until is not None
    assert state.waiting_until - state.updated_at == 3_600_000


async def test_a_task_is_given_back_without_counting_a_retry(remote: Remote, store: RedisStore):
    await remote.submit()
    [task] = await remote.take()

    answer = await remote.report(task, released=pb.Released(reason="shutting down"))

    state = (await _loaded(store, task.id)).state
    assert answer.status == pb.TASK_STATUS_RETRYING
    assert (state.retry_count, state.error_message) == (0, "shutting down")


async def test_a_report_on_somebody_elses_task_is_refused(remote: Remote, store: RedisStore):
    await remote.submit()
    [task] = await remote.take()
    before = await _loaded(store, task.id)
    completed = pb.Completed(result=b"1")

    errors = [
        await refused(remote.report(task, worker_id="worker-b", completed=completed)),
        await refused(remote.report(task, worker_id="worker-b", progress=pb.Progress(percent=1))),
        await refused(remote.report(task, worker_id="worker-b", failed=pb.Failed())),
        await refused(remote.report(task, worker_id="worker-b", released=pb.Released())),
    ]

    assert {(error.status, error.code) for error in errors} == {
        (grpc.StatusCode.FAILED_PRECONDITION, "STALE_ATTEMPT")
    }
    assert errors[0].details == {"task_id": task.id, "attempt": 1}
    assert await _loaded(store, task.id) == before


async def test_an_attempt_that_is_over_reports_in_vain(remote: Remote):
    submitted = await remote.submit()
    [task] = await remote.take()
    await remote.call("CancelTask", pb.CancelTaskRequest(id=submitted.id))

    error = await refused(remote.report(task, completed=pb.Completed()))
    [ended] = await remote.beat(task)

    assert (error.status, error.code) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TASK_NOT_PROCESSING",
    )
    assert (ended.task_id, ended.attempt) == (task.id, 1)
    assert ended.reason == pb.EndedLease.REASON_CANCELED


async def test_a_report_on_a_task_that_has_changed_since_is_carried_out(
    remote: Remote, store: RedisStore
):
    await remote.submit()
    [task] = await remote.take()
    elsewhere = ReportProgress(50, "told to another process", task.attempt)
    await transact(store, task.id, elsewhere)

    done = await remote.report(task, completed=pb.Completed())

    assert (done.status, done.version) == (pb.TASK_STATUS_COMPLETED, 4)


async def test_progress_that_was_reported_before_is_refused_once_the_task_was_canceled(
    remote: Remote,
):
    await remote.submit()
    [task] = await remote.take()
    halfway = pb.Progress(percent=50)
    await remote.report(task, progress=halfway)
    await remote.call("CancelTask", pb.CancelTaskRequest(id=task.id))

    error = await refused(remote.report(task, progress=halfway))

    assert error.code == "TASK_NOT_PROCESSING"


async def test_what_a_worker_was_given_is_not_loaded_for_its_reports(
    remote: Remote, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    await remote.submit()
    [task] = await remote.take()
    loaded: list[str] = []
    load = store.load

    async def noted(task_id: str) -> Task | None:
        loaded.append(task_id)
        return await load(task_id)

    monkeypatch.setattr(store, "load", noted)

    await remote.report(task, progress=pb.Progress(percent=50))
    await remote.report(task, completed=pb.Completed())

    assert loaded == []


async def test_in_a_batch_reports_fail_alone(remote: Remote):
    for _ in range(3):
        await remote.submit()
    first, second, third = await remote.take(3)
    await remote.report(third, completed=pb.Completed())
    updates = [
        update_of(first, progress=pb.Progress(percent=10)),
        update_of(second, completed=pb.Completed(result=b"{")),
        update_of(first, completed=pb.Completed(result=b"1")),
        update_of(third, failed=pb.Failed()),
    ]

    answer = await remote.call(
        "UpdateStatusBatch", pb.UpdateStatusBatchRequest(worker_id=WORKER, updates=updates)
    )

    assert [result.error.code for result in answer.results] == [
        "",
        "INVALID_REQUEST",
        "",
        "TASK_NOT_PROCESSING",
    ]
    assert answer.results[2].status == pb.TASK_STATUS_COMPLETED
    assert answer.results[3].error.status == grpc.StatusCode.FAILED_PRECONDITION.value[0]


async def test_a_heartbeat_renews_what_the_worker_holds_and_nothing_else(
    remote: Remote, store: RedisStore
):
    await remote.submit()
    [task] = await remote.take()
    before = await store.lease_until(await _loaded(store, task.id))

    assert await remote.beat(task) == []
    [ended] = await remote.beat(task, worker_id="worker-b")

    after = await store.lease_until(await _loaded(store, task.id))
    assert before is not None
    assert after is not None
    assert after >= before
    assert ended.reason == pb.EndedLease.REASON_LOST


async def test_a_heartbeat_ends_an_attempt_whose_time_is_up(remote: Remote, store: RedisStore):
    await remote.submit(timeout=1)
    [task] = await remote.take()
    await asyncio.sleep(1.1)

    [ended] = await remote.beat(task)

    state = (await _loaded(store, task.id)).state
    assert ended.reason == pb.EndedLease.REASON_TIMED_OUT
    assert (state.status, state.error_kind) == (Status.RETRYING, ErrorKind.TIMEOUT)


async def test_workers_are_seen_until_they_leave(remote: Remote, store: RedisStore):
    await remote.submit()
    [task] = await remote.take(host="crunch-7", pid=4711, concurrency=8)

    async with asyncio.timeout(10):
        while not (  # noqa: ASYNC110 - its next heartbeat
            seen := [w for w in await store.workers() if w.report.running]
        ):
            await asyncio.sleep(0.02)
    await remote.report(task, completed=pb.Completed())
    await remote.beat(leaving=True)

    [worker] = seen
    report = worker.report
    assert (report.id, report.host, report.pid, report.concurrency) == (WORKER, "crunch-7", 4711, 8)
    assert (report.task_types, report.task_ids) == ((TYPE,), (task.id,))
    assert worker.state is WorkerState.BUSY
    assert await store.workers() == []


async def _loaded(store: RedisStore, task_id: str) -> Task:
    task = await store.load(task_id)
    assert task is not None
    return task
