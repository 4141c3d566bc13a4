"""Between the messages of the proto and what the rest of the program knows."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from api.errors import ApiError, invalid
from api.grpc import task_service_pb2 as pb
from ledger.events import ErrorKind, Priority
from ledger.task import Status, Task

Known = TypeVar("Known", Status, Priority, ErrorKind)

STATUS_OF: Final[Mapping[int, Status]] = {
    pb.TaskStatus.Value(f"TASK_STATUS_{status.name}"): status for status in Status
}
PRIORITY_OF: Final[Mapping[int, Priority]] = {
    pb.Priority.Value(f"PRIORITY_{priority.name}"): priority for priority in Priority
}
KIND_OF: Final[Mapping[int, ErrorKind]] = {
    pb.ErrorKind.Value(f"ERROR_KIND_{kind.name}"): kind for kind in ErrorKind
}
NUMBER_OF: Final[Mapping[Status | Priority | ErrorKind, Any]] = {
    **{status: number for number, status in STATUS_OF.items()},
    **{priority: number for number, priority in PRIORITY_OF.items()},
    **{kind: number for number, kind in KIND_OF.items()},
}
"""The enum values of the proto."""


def task_message(
    task: Task, queue_position: int, estimate: int | None = None, *, with_data: bool = True
) -> pb.Task:
    """The task for a caller. Without data: neither payload nor metadata nor result."""
    submission, state = task.submission, task.state
    retry_at = state.waiting_until if state.status is Status.RETRYING else None
    message = pb.Task(
        id=task.id,
        task_type=submission.task_type,
        kb_id=submission.kb_id,
        status=NUMBER_OF[state.status],
        priority=NUMBER_OF[submission.priority],
        progress=state.progress,
        message=state.message,
        retry_count=state.retry_count,
        max_retries=submission.max_retries,
        timeout=submission.timeout_s,
        error_message=state.error_message,
        error_kind=None if state.error_kind is None else NUMBER_OF[state.error_kind],
        worker_id=state.worker_id or "",
        schedule_for=moment(submission.schedule_for),
        retry_at=moment(retry_at),
        created_at=moment(state.created_at),
        updated_at=moment(state.updated_at),
        started_at=moment(state.started_at),
        completed_at=moment(state.completed_at),
        estimated_completion=moment(estimate),
        queue_position=queue_position,
        version=task.version,
        callback_url=submission.callback_url or "",
    )
    if with_data:
        message.payload = bytes(submission.payload)
        message.metadata = bytes(submission.metadata)
        message.result = bytes(state.result)
    return message


def pending_message(task: Task) -> pb.PendingTask:
    """The task for the worker that was given it."""
    submission, state = task.submission, task.state
    return pb.PendingTask(
        id=task.id,
        task_type=submission.task_type,
        kb_id=submission.kb_id,
        priority=NUMBER_OF[submission.priority],
        payload=bytes(submission.payload),
        metadata=bytes(submission.metadata),
        attempt=state.attempt,
        retry_count=state.retry_count,
        max_retries=submission.max_retries,
        timeout=submission.timeout_s,
        created_at=moment(state.created_at),
        traceparent=task.trace,
    )


def submission_fields(task: pb.TaskSubmission, index: int | None = None) -> dict[str, object]:
    """The fields of a submission that were set, for `Intake.given`. Raises ApiError (400)."""
    fields: dict[str, object] = {"task_type": task.task_type, "kb_id": task.kb_id}
    for name in ("payload", "metadata", "callback_url"):
        value = getattr(task, name)
        if value:
            fields[name] = value
    for name in ("max_retries", "timeout"):
        if task.HasField(name):
            fields[name] = getattr(task, name)
    if task.priority:
        fields["priority"] = known(PRIORITY_OF, task.priority, "priority", index)
    if task.HasField("schedule_for"):
        fields["schedule_for"] = _datetime(task.schedule_for, index)
    return fields


def known(of: Mapping[int, Known], number: int, field: str, index: int | None = None) -> Known:
    """What an enum's number stands for. Raises ApiError (400) for one that is unknown."""
    value = of.get(number)
    if value is None:
        raise _unknown(of, number, field, index)
    return value


def all_known(of: Mapping[int, Known], numbers: Iterable[int], field: str) -> tuple[Known, ...]:
    """The same of several."""
    return tuple(known(of, number, field) for number in numbers)


def moment(ms: int | None) -> Timestamp | None:
    """Milliseconds since the epoch; None stays None."""
    if ms is None:
        return None
    seconds, rest = divmod(ms, 1000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000_000)


def _unknown(of: Mapping[int, Any], number: int, field: str, index: int | None) -> ApiError:
    expected = f"one of {', '.join(f'{n} ({value})' for n, value in sorted(of.items()))}"
    where = "" if index is None else f"item {index}: "
    details: dict[str, Any] = {} if index is None else {"index": index}
    return invalid(field, expected, f"{where}{field}: expected {expected}, got {number}", **details)


def _datetime(timestamp: Timestamp, index: int | None) -> datetime:
    details: dict[str, Any] = {} if index is None else {"index": index}
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        expected = "a time from the year 1 to 9999, with 0 to 999,999,999 nanos"
        raise invalid("schedule_for", expected, **details) from None
