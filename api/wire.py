"""The JSON that callers see: a task, its events, and times as text.

`task_view` is the only place where a `ledger.task.Task` becomes the task of the contract.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec

from ledger.codec import encode
from ledger.events import ErrorKind, Priority
from ledger.store import Recorded
from ledger.task import Status, Task

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)

_NULL: Final = msgspec.Raw(b"null")
_AGE = re.compile(r"([0-9]{1,9})([smhd])")
_AGE_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BARE_OFFSET = re.compile(r" (\d\d:\d\d)$")
_decode_time = msgspec.json.Decoder(datetime).decode


class TaskView(msgspec.Struct, frozen=True):
    """A task as the contract has it; the fields in its order."""

    id: str
    task_type: str
    kb_id: str
    status: Status
    priority: Priority
    payload: msgspec.Raw
    result: msgspec.Raw
    progress: int
    message: str
    retry_count: int
    max_retries: int
    timeout: int
    error_message: str
    error_kind: ErrorKind | None
    worker_id: str | None
    schedule_for: str | None
    retry_at: str | None
    created_at: str
    updated_at: str
    started_at: str | None
    completed_at: str | None
    estimated_completion: str | None
    queue_position: int
    version: int
    callback_url: str | None
    metadata: msgspec.Raw


class TaskList(msgspec.Struct, frozen=True):
    """What a batch created."""

    tasks: list[TaskView]
    count: int


class EventView(msgspec.Struct, frozen=True):
    """An event as it stands in the ledger."""

    position: str
    type: str
    version: int
    at: str
    data: msgspec.Raw
    meta: msgspec.Raw


class History(msgspec.Struct, frozen=True):
    """All events of a task, oldest first."""

    task_id: str
    events: list[EventView]


def task_view(task: Task, queue_position: int) -> TaskView:
    """The task for a caller; `queue_position` is known to the store alone."""
    submission, state = task.submission, task.state
    retrying = state.status is Status.RETRYING
    return TaskView(
        task.id,
        submission.task_type,
        submission.kb_id,
        state.status,
        submission.priority,
        submission.payload,
        state.result if len(state.result) else _NULL,
        state.progress,
        state.message,
        state.retry_count,
        submission.max_retries,
        submission.timeout_s,
        state.error_message,
        state.error_kind,
        state.worker_id,
        time_text(submission.schedule_for),
        time_text(state.waiting_until) if retrying else None,
        moment_text(state.created_at),
        moment_text(state.updated_at),
        time_text(state.started_at),
        time_text(state.completed_at),
        # Nothing measures durations yet, and a guess would be made up.
        None,
        queue_position,
        task.version,
        submission.callback_url,
        submission.metadata if len(submission.metadata) else _NULL,
    )


def event_view(recorded: Recorded) -> EventView:
    """The event for a caller; `data` and `meta` are the stored bytes."""
    return EventView(
        str(recorded.position),
        recorded.type,
        recorded.version,
        moment_text(recorded.at),
        msgspec.Raw(recorded.data),
        msgspec.Raw(recorded.meta),
    )


def task_json(task: Task, queue_position: int) -> bytes:
    """The task of the contract, as JSON."""
    return encode(task_view(task, queue_position))


def time_text(ms: int | None) -> str | None:
    """Milliseconds since the epoch as RFC 3339 in UTC; None stays None."""
    return None if ms is None else moment_text(ms)


@lru_cache(maxsize=4096)
def moment_text(ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC, e.g. `2026-11-22T09:30:00.123Z`.

    Raises OverflowError outside the years 1 to 9999. Cached: under load many tasks share theirs.
    """
    second, fraction = divmod(ms, 1000)
    return f"{(EPOCH + timedelta(seconds=second)).isoformat()[:19]}.{fraction:03d}Z"


def moment_ms(moment: datetime) -> int:
    """Milliseconds since the epoch, rounded up: "not before" holds to the last microsecond.

    Raises OverflowError for a moment that in UTC is before the year 1 or after 9999.
    """
    ms = -((EPOCH - moment) // MILLISECOND)
    moment_text(ms)
    return ms


def parse_as_of(text: str, now_ms: int) -> int:
    """A moment in ms, from RFC 3339 with an offset, or an age such as `90s`, `15m`, `1h`, `7d`.

    Raises ValueError for anything else.
    """
    age = _AGE.fullmatch(text)
    if age:
        return now_ms - int(age[1]) * _AGE_UNITS_MS[age[2]]
    # A `+` that was not percent-encoded arrives as a space.
    quoted = encode(_BARE_OFFSET.sub(r"+\1", text))
    try:
        moment = _decode_time(quoted)
        if moment.tzinfo is None:
            raise ValueError("no offset")
        # An event of the same millisecond has happened by then, hence rounded down.
        return (moment - EPOCH) // MILLISECOND
    except (msgspec.ValidationError, OverflowError) as error:
        raise ValueError(str(error)) from error
