"""What must not be sent: each is a clear status that names what was wrong, and changes nothing."""

from typing import Any

import grpc
import msgspec
import pytest

from api.grpc import task_service_pb2 as pb
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.api.requests import UNKNOWN_ID, state_of
from tests.remote.calls import TYPE, WORKER, Remote, refused, submission, task_of

INVALID = grpc.StatusCode.INVALID_ARGUMENT
DEEP = b'{"a":' + b"[" * 1_000 + b"]" * 1_000 + b"}"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(
        settings, payload_bytes_max=1_024, result_bytes_max=1_024, grpc_message_bytes_max=65_536
    )


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("task_type", {"task_type": ""}),
        ("task_type", {"task_type": "no_such_type"}),
        ("kb_id", {"kb_id": ""}),
        ("kb_id", {"kb_id": "x" * 256}),
        ("payload", {"payload": b""}),
        ("payload", {"payload": b"[1]"}),
        ("payload", {"payload": b'{"a": 1'}),
        ("payload", {"payload": b'{"a": 1} {}'}),
        ("payload", {"payload": b'{}, "priority": "critical"'}),
        ("payload", {"payload": b'{"a": "\xff"}'}),
        ("payload", {"payload": DEEP}),
        ("payload", {"payload": b'{"a": 1e999}'}),
        ("payload", {"payload": b'{"a": "' + b"x" * 1_024 + b'"}'}),
        ("metadata", {"metadata": b"1"}),
        ("metadata", {"metadata": b"{"}),
        ("priority", {"priority": 9}),
        ("max_retries", {"max_retries": 101}),
        ("max_retries", {"max_retries": -1}),
        ("timeout", {"timeout": 0}),
        ("callback_url", {"callback_url": "http://example.org/"}),
        ("schedule_for", {"schedule_for": {"seconds": 1, "nanos": -1}}),
        ("schedule_for", {"schedule_for": {"seconds": 1 << 60}}),
    ],
)
async def test_a_submission_that_is_refused_names_its_field(
    remote: Remote, store: RedisStore, field: str, fields: dict[str, Any]
):
    before = await state_of(store)

    alone = await refused(remote.call("SubmitTask", submission("key", **fields)))
    batch = pb.SubmitBatchRequest(tasks=[task_of(), task_of(**fields)])
    among = await refused(remote.call("SubmitBatch", batch))

    assert alone.status is among.status is INVALID
    assert alone.details["field"] == among.details["field"] == field
    assert among.details["index"] == 1
    assert alone.details["expected"]
    assert await state_of(store) == before


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("SubmitTask", pb.SubmitTaskRequest(), "task"),
        ("SubmitTask", submission("x" * 256), "idempotency_key"),
        ("SubmitTask", submission("a\nb"), "idempotency_key"),
        ("SubmitBatch", pb.SubmitBatchRequest(), "tasks"),
        ("GetTask", pb.GetTaskRequest(id=UNKNOWN_ID, version=1, as_of="1h"), "version and as_of"),
        ("GetTask", pb.GetTaskRequest(id=UNKNOWN_ID, version=-1), "version"),
        ("GetTask", pb.GetTaskRequest(id=UNKNOWN_ID, as_of="yesterday"), "as_of"),
        ("GetTask", pb.GetTaskRequest(id=UNKNOWN_ID, wait_ms=60_001), "wait_ms"),
        ("GetTask", pb.GetTaskRequest(id=UNKNOWN_ID, wait_ms=-1), "wait_ms"),
        ("ListTasks", pb.ListTasksRequest(page_size=101), "page_size"),
        ("ListTasks", pb.ListTasksRequest(page=-1), "page"),
        ("ListTasks", pb.ListTasksRequest(sort_by="colour"), "sort_by"),
        ("ListTasks", pb.ListTasksRequest(cursor="x"), "cursor"),
        ("ListTasks", pb.ListTasksRequest(task_type=["no_such_type"]), "task_type"),
        ("ListTasks", pb.ListTasksRequest(created_after="soon"), "created_after"),
    ],
)
async def test_a_request_that_is_refused_names_its_field(
    remote: Remote, method: str, request_: Any, field: str
):
    error = await refused(remote.call(method, request_))

    assert (error.status, error.code, error.details["field"]) == (INVALID, "INVALID_REQUEST", field)


@pytest.mark.parametrize("field", ["status", "priority"])
async def test_an_unknown_enum_value_is_refused(remote: Remote, field: str):
    asked = pb.ListTasksRequest()
    getattr(asked, field).append(99)

    error = await refused(remote.call("ListTasks", asked))

    assert (error.status, error.details["field"]) == (INVALID, field)
    assert "got 99" in error.message


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("worker_id", {"worker_id": ""}),
        ("worker_id", {"worker_id": "x" * 256}),
        ("worker_id", {"worker_id": "a\tb"}),
        ("task_types", {"task_types": []}),
        ("task_type", {"task_types": ["no_such_type"]}),
        ("task_types", {"task_types": [TYPE] * 101}),
        ("max_tasks", {"count": 257}),
        ("max_tasks", {"count": -1}),
        ("wait_ms", {"wait_ms": 60_001}),
        ("concurrency", {"concurrency": -1}),
        ("pid", {"pid": -1}),
    ],
)
async def test_a_worker_that_asks_wrongly_is_given_nothing(
    remote: Remote, store: RedisStore, field: str, fields: dict[str, Any]
):
    task = await remote.submit()

    error = await refused(remote.take(**fields))

    assert (error.status, error.details["field"]) == (INVALID, field)
    assert (await remote.get(task.id)).status == pb.TASK_STATUS_QUEUED


@pytest.mark.parametrize(
    ("field", "report"),
    [
        ("report", {}),
        ("percent", {"progress": pb.Progress(percent=101)}),
        ("percent", {"progress": pb.Progress(percent=-1)}),
        ("message", {"progress": pb.Progress(message="x" * 4_097)}),
        ("result", {"completed": pb.Completed(result=b"{")}),
        ("result", {"completed": pb.Completed(result=b'"\xff"')}),
        ("result", {"completed": pb.Completed(result=b"NaN")}),
        ("result", {"completed": pb.Completed(result=DEEP)}),
        ("result", {"completed": pb.Completed(result=b'"' + b"x" * 1_024 + b'"')}),
        ("kind", {"failed": pb.Failed(kind=pb.ERROR_KIND_WORKER_LOST)}),
        ("retry_after_ms", {"failed": pb.Failed(retry_after_ms=-1)}),
    ],
)
async def test_a_report_that_is_refused_leaves_the_task_with_its_worker(
    remote: Remote, store: RedisStore, field: str, report: dict[str, Any]
):
    await remote.submit()
    [task] = await remote.take()
    before = await state_of(store)

    error = await refused(remote.report(task, **report))

    assert (error.status, error.details["field"]) == (INVALID, field)
    assert (await state_of(store))[0] == before[0]
    assert (await remote.report(task, completed=pb.Completed())).version == 3


async def test_an_unknown_kind_of_error_is_refused(remote: Remote):
    await remote.submit()
    [task] = await remote.take()
    failed = pb.Failed()
    failed.MergeFromString(b"\x10\x63")  # kind = 99

    error = await refused(remote.report(task, failed=failed))

    assert (error.status, error.details["field"]) == (INVALID, "kind")


async def test_reports_on_what_is_no_task_are_not_found(remote: Remote):
    for name in (UNKNOWN_ID, "nonsense", ""):
        task = pb.PendingTask(id=name, attempt=1)
        error = await refused(remote.report(task, completed=pb.Completed()))
        [ended] = await remote.beat(task)

        assert (error.status, error.code) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
        assert ended.reason == pb.EndedLease.REASON_LOST


async def test_too_many_at_once_are_refused(remote: Remote):
    update = pb.StatusUpdate(task_id=UNKNOWN_ID, attempt=1)
    batches = [
        pb.UpdateStatusBatchRequest(worker_id=WORKER, updates=updates)
        for updates in ([], [update] * 1_001)
    ]

    errors = [await refused(remote.call("UpdateStatusBatch", batch)) for batch in batches]

    assert {(e.status, e.details["field"]) for e in errors} == {(INVALID, "updates")}


async def test_a_message_over_the_limit_is_refused_and_the_next_one_served(
    remote: Remote, store: RedisStore
):
    before = await state_of(store)
    large = submission(payload=b'{"a": "' + b"x" * 65_536 + b'"}')

    error = await refused(remote.call("SubmitTask", large))

    assert error.status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "65536" in error.message
    assert await state_of(store) == before
    assert (await remote.submit()).version == 1


@pytest.mark.parametrize("sent", [b"\xff\xff\xff", b"\x0a\x03\x0a\x01\xff", b"\x0a\x7f"])
async def test_bytes_that_are_no_message_are_refused(remote: Remote, sent: bytes):
    error = await refused(remote.send("SubmitTask", sent))

    assert (error.status, error.code) == (INVALID, "INVALID_REQUEST")
    assert error.details["expected"] == "ledgerq.v1.SubmitTaskRequest"


async def test_an_unknown_method_is_unimplemented(remote: Remote):
    error = await refused(remote.send("DropEverything", b""))

    assert error.status is grpc.StatusCode.UNIMPLEMENTED


async def test_metadata_that_is_no_good_is_refused_or_passed_over(remote: Remote):
    long = await refused(remote.call("SubmitTask", submission(), x_actor="x" * 256))
    await remote.call("SubmitTask", submission(), traceparent="nonsense", x_request_id="x" * 129)

    assert (long.status, long.details["field"]) == (INVALID, "X-Actor")
    assert len(remote.trailing["x-request-id"]) < 129


async def test_a_position_that_is_none_is_refused(remote: Remote):
    error = await refused(remote.call("ListTasks", pb.ListTasksRequest(), ledger_position="7"))

    assert (error.status, error.details["field"]) == (INVALID, "Ledger-Position")
