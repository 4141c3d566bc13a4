"""What services do by gRPC: submit, read, list, cancel, retry. The rules are REST's."""

from datetime import UTC, datetime
from typing import Any

import grpc
import msgspec

from api.grpc import task_service_pb2 as pb
from ledger.codec import decode_meta
from ledger.redis_store import RedisStore
from ledger.task import Task
from tests.api.reading import Projection
from tests.api.requests import UNKNOWN_ID, complete, fail
from tests.given import OTHER_TRACE, TRACE
from tests.remote.calls import Remote, refused, submission, task_of


async def test_a_task_is_submitted_and_its_payload_kept_byte_for_byte(remote: Remote):
    payload = b'{"b": 1.50, "a": [ 1 ,2], "\\u00e9": "\xc3\xa9"}'

    task = await remote.submit(payload=payload, metadata=b'{"x":  1}')

    assert (task.status, task.priority) == (pb.TASK_STATUS_QUEUED, pb.PRIORITY_NORMAL)
    assert (task.payload, task.metadata, task.result) == (payload, b'{"x":  1}', b"")
    assert (task.max_retries, task.timeout, task.queue_position, task.version) == (3, 300, 1, 1)


async def test_every_field_of_a_submission_arrives(remote: Remote, store: RedisStore):
    later = datetime(2040, 1, 31, 9, 30, tzinfo=UTC)
    fields: dict[str, Any] = {"max_retries": 0, "timeout": 7, "priority": pb.PRIORITY_CRITICAL}
    url = "http://localhost:8082/done"
    request = submission(**fields, callback_url=url)
    request.task.schedule_for.FromDatetime(later)

    task = (await remote.call("SubmitTask", request)).task

    stored = await store.load(task.id)
    assert stored is not None
    sent = stored.submission
    assert (sent.max_retries, sent.timeout_s, sent.priority.value) == (0, 7, "critical")
    assert (sent.callback_url, sent.schedule_for) == (url, later.timestamp() * 1_000)
    assert task.schedule_for.ToDatetime(tzinfo=UTC) == later


async def test_a_call_says_who_wrote_and_is_answered_with_its_name(
    remote: Remote, store: RedisStore
):
    answer = await remote.call(
        "SubmitTask", submission(), x_request_id="r-1", x_actor="billing", traceparent=TRACE
    )

    [event] = await store.history(answer.task.id)
    meta = msgspec.json.decode(event.meta)
    assert (meta["actor"], meta["request"], meta["trace"]) == ("billing", "r-1", TRACE)
    assert remote.trailing["x-request-id"] == "r-1"
    assert remote.trailing["ledger-position"] == str(event.position)


async def test_a_key_makes_one_task(remote: Remote):
    first = await remote.call("SubmitTask", submission("key-1"))
    again = await remote.call("SubmitTask", submission("key-1"))
    other = await refused(remote.call("SubmitTask", submission("key-1", payload=b"{}")))

    assert (first.replayed, again.replayed) == (False, True)
    assert first.task.id == again.task.id
    assert (other.status, other.code) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")
    assert other.details == {"task_id": first.task.id}


async def test_a_batch_is_whole_or_nothing(remote: Remote, store: RedisStore):
    good = [task_of(payload=b'{"n": %d}' % n) for n in range(3)]
    bad = pb.SubmitBatchRequest(tasks=[*good, task_of(kb_id="")])

    done = await remote.call("SubmitBatch", pb.SubmitBatchRequest(tasks=good))
    error = await refused(remote.call("SubmitBatch", bad))

    assert [task.queue_position for task in done.tasks] == [1, 2, 3]
    assert {task.payload for task in done.tasks} == {b""}
    assert error.status is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.details["index"], error.details["field"]) == (3, "kb_id")
    assert await store.queue_position(await _loaded(store, done.tasks[-1].id)) == 3


async def test_a_batch_with_a_key_is_repeated_safely(remote: Remote):
    batch = pb.SubmitBatchRequest(tasks=[task_of(), task_of(kb_id="kb-2")], idempotency_key="b-1")

    first, again = [await remote.call("SubmitBatch", batch) for _ in range(2)]

    assert (first.replayed, again.replayed) == (False, True)
    assert [t.id for t in first.tasks] == [t.id for t in again.tasks]


async def test_a_task_is_read_as_it_is_and_as_it_was(remote: Remote, store: RedisStore):
    task = await remote.submit()
    await complete(store, task.id, b'{"chunks": 1.0}')

    now, then = await remote.get(task.id), await remote.get(task.id, version=2)
    ended = await remote.get(task.id, wait_ms=10_000)
    never = await refused(remote.get(task.id, version=9))

    assert (now.status, now.result) == (pb.TASK_STATUS_COMPLETED, b'{"chunks": 1.0}')
    assert (then.status, then.worker_id) == (pb.TASK_STATUS_PROCESSING, "worker-1")
    assert ended == now
    assert (never.status, never.code) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_no_such_task(remote: Remote):
    errors = [await refused(remote.get(name)) for name in (UNKNOWN_ID, "nonsense", "")]

    assert {(e.status, e.code) for e in errors} == {(grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")}


async def test_a_task_is_canceled_and_retried(remote: Remote):
    task = await remote.submit()
    too_early = await refused(remote.call("RetryTask", pb.RetryTaskRequest(id=task.id)))

    canceled = await remote.call("CancelTask", pb.CancelTaskRequest(id=task.id))
    stale = pb.RetryTaskRequest(id=task.id, expected_version=1)
    conflict = await refused(remote.call("RetryTask", stale))
    retried = await remote.call("RetryTask", pb.RetryTaskRequest(id=task.id, expected_version=2))

    assert canceled.status == pb.TASK_STATUS_CANCELED
    assert (retried.status, retried.queue_position) == (pb.TASK_STATUS_QUEUED, 1)
    assert (too_early.status, too_early.code) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TASK_NOT_RETRYABLE",
    )
    assert (conflict.status, conflict.code) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")


async def test_a_list_sees_what_its_client_wrote(
    remote: Remote, store: RedisStore, projection: Projection
):
    tasks = [await remote.submit(kb_id=f"kb-{n}") for n in range(3)]
    await fail(store, tasks[0].id, "no such file")
    position = str(await store.last_position(0))
    await projection.catch_up()

    failed = pb.ListTasksRequest(status=[pb.TASK_STATUS_FAILED], q="FILE")
    found = await remote.call("ListTasks", failed, ledger_position=position)
    some = pb.ListTasksRequest(page_size=2, sort_by="created_at", sort_order="asc", with_data=True)
    page = await remote.call("ListTasks", some)
    some.cursor = page.next_cursor
    rest = await remote.call("ListTasks", some)

    assert [(t.id, t.payload) for t in found.tasks] == [(tasks[0].id, b"")]
    assert (page.total, page.total_pages, page.page) == (3, 2, 1)
    assert [t.id for t in (*page.tasks, *rest.tasks)] == [t.id for t in tasks]
    assert {t.payload for t in page.tasks} == {b'{"a": 1.50}'}
    assert (rest.next_cursor, rest.page) == ("", 0)


async def _loaded(store: RedisStore, task_id: str) -> Task:
    task = await store.load(task_id)
    assert task is not None
    return task


async def test_a_retry_in_a_trace_takes_the_task_into_it(remote: Remote, store: RedisStore):
    answer = await remote.call("SubmitTask", submission(), traceparent=TRACE)
    await remote.call("CancelTask", pb.CancelTaskRequest(id=answer.task.id))
    await remote.call("RetryTask", pb.RetryTaskRequest(id=answer.task.id), traceparent=OTHER_TRACE)

    [taken] = await remote.take()

    traces = [decode_meta(event.meta).trace for event in await store.history(answer.task.id)]
    assert traces == [TRACE, TRACE, OTHER_TRACE, OTHER_TRACE]
    assert taken.traceparent == OTHER_TRACE
