"""The JSON that callers see: a task, its events, and times as text.

`task_view` is the only place where a `ledger.task.Task` becomes the task of the contract.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec

from api.scalars import (
    AnyJson,
    Count,
    JsonObject,
    KbId,
    LedgerPosition,
    MaxRetries,
    Metadata,
    Moment,
    Payload,
    Percent,
    TaskId,
    TimeoutSeconds,
    Version,
)
from ledger.codec import encode
from ledger.events import ErrorKind, Priority
from ledger.moments import EPOCH, moment_text
from ledger.store import Recorded
from ledger.task import Status, Task

MILLISECOND: Final = timedelta(milliseconds=1)
FIRST_MS: Final = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND

_NULL: Final = msgspec.Raw(b"null")
_AGE = re.compile(r"([0-9]{1,9})([smhd])")
_AGE_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BARE_OFFSET = re.compile(r" (\d\d:\d\d)$")
_decode_time = msgspec.json.Decoder(datetime).decode


class TaskView(msgspec.Struct, frozen=True):
    """A task, from its submission to its end."""

    # The fields stand in the contract's order.
    id: TaskId
    task_type: Annotated[str, msgspec.Meta(description="What kind of work it is.")]
    kb_id: KbId
    status: Status
    priority: Priority
    payload: Payload
    result: Annotated[AnyJson, msgspec.Meta(description="What the handler returned; else null.")]
    progress: Percent
    message: Annotated[str, msgspec.Meta(description="The last progress message.")]
    retry_count: Annotated[Count, msgspec.Meta(description="Retries made so far.")]
    max_retries: MaxRetries
    timeout: TimeoutSeconds
    error_message: Annotated[
        str, msgspec.Meta(description="The last attempt's error; empty when there was none.")
    ]
    error_kind: ErrorKind | None
    worker_id: Annotated[str | None, msgspec.Meta(description="Who has it, or had it last.")]
    schedule_for: Annotated[Moment | None, msgspec.Meta(description="Not taken before this time.")]
    retry_at: Annotated[
        Moment | None, msgspec.Meta(description="While retrying: not taken before this time.")
    ]
    created_at: Moment
    updated_at: Moment
    started_at: Annotated[Moment | None, msgspec.Meta(description="When the last attempt began.")]
    completed_at: Annotated[Moment | None, msgspec.Meta(description="When the task finished.")]
    estimated_completion: Annotated[
        Moment | None, msgspec.Meta(description="When it should be finished; null: not known.")
    ]
    queue_position: Annotated[
        Count,
        msgspec.Meta(description="1: the next of its type to be taken; 0: not waiting."),
    ]
    version: Version
    callback_url: Annotated[
        str | None, msgspec.Meta(description="Called when the task has finished.")
    ]
    metadata: Metadata


class TaskList(msgspec.Struct, frozen=True):
    """The tasks of a batch, in its order."""

    tasks: list[TaskView]
    count: Count


class EventView(msgspec.Struct, frozen=True):
    """An event as it stands in the ledger."""

    position: LedgerPosition
    type: Annotated[
        str, msgspec.Meta(description="What happened.", examples=["TaskSubmitted", "TaskStarted"])
    ]
    version: Annotated[
        int, msgspec.Meta(ge=1, description="The task's version (or the service's) from it on.")
    ]
    at: Moment
    data: Annotated[JsonObject, msgspec.Meta(description="The event's own fields.")]
    meta: Annotated[JsonObject, msgspec.Meta(description="Who wrote it: actor, request id, trace.")]


class History(msgspec.Struct, frozen=True):
    """All events of a task, oldest first."""

    task_id: TaskId
    events: list[EventView]


class SystemHistory(msgspec.Struct, frozen=True):
    """Events that belong to no task, oldest first."""

    events: list[EventView]
    next_after: Annotated[
        int | None,
        msgspec.Meta(description="`after` for what follows; null: there was no more by now."),
    ] = None


def task_view(task: Task, queue_position: int, estimated_completion: int | None = None) -> TaskView:
    """The task for a caller; `queue_position` is known to the store alone, and the estimate (ms) to
    `api.estimates`."""
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
        time_text(estimated_completion),
        queue_position,
        task.version,
        submission.callback_url,
        submission.metadata if len(submission.metadata) else _NULL,
    )


def event_view(recorded: Recorded) -> EventView:
    """The event for a caller; `data` and `meta` are the stored bytes, see `json_or_text`."""
    return EventView(
        str(recorded.position),
        recorded.type,
        recorded.version,
        moment_text(recorded.at),
        json_or_text(recorded.data),
        json_or_text(recorded.meta),
    )


def json_or_text(stored: bytes) -> msgspec.Raw:
    """JSON as it stands. What others wrote to a stream may be none: it is told as text, since it
    would make the whole answer unreadable."""
    try:
        stored.decode()
        return msgspec.json.decode(stored, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.Raw(encode(stored.decode(errors="replace")))


def task_json(task: Task, queue_position: int, estimated_completion: int | None = None) -> bytes:
    """The task of the contract, as JSON."""
    return encode(task_view(task, queue_position, estimated_completion))


def time_text(ms: int | None) -> str | None:
    """Milliseconds since the epoch as RFC 3339 in UTC; None stays None."""
    return None if ms is None else moment_text(ms)


def moment_or_nothing(ms: int) -> str:
    """As `moment_text`, of a time that others wrote: empty where it is none."""
    try:
        return moment_text(ms)
    except OverflowError:
        return ""


def moment_ms(moment: datetime) -> int:
    """Milliseconds since the epoch, rounded up: "not before" holds to the last microsecond.

    Raises OverflowError for a moment that in UTC is before the year 1 or after 9999.
    """
    ms = -((EPOCH - moment) // MILLISECOND)
    moment_text(ms)
    return ms


def parse_as_of(text: str, now_ms: int) -> int:
    """The ms in which a moment lies: RFC 3339 with an offset, or an age such as `90s`, `15m`, `1h`,
    `7d`. What happened in the same ms has happened by then.

    Raises ValueError for anything else.
    """
    return parse_moment(text, now_ms)[0]


def parse_moment(text: str, now_ms: int) -> tuple[int, int]:
    """The last ms that is not after a moment, and the first one that is not before it: the same,
    unless the moment lies within one. Given and raises as `parse_as_of`."""
    age = _AGE.fullmatch(text)
    if age:
        # Before the year 1 nothing happened, and no text could tell of it.
        ms = max(now_ms - int(age[1]) * _AGE_UNITS_MS[age[2]], FIRST_MS)
        return ms, ms
    # A `+` that was not percent-encoded arrives as a space.
    quoted = encode(_BARE_OFFSET.sub(r"+\1", text))
    try:
        moment = _decode_time(quoted)
        if moment.tzinfo is None:
            raise ValueError("no offset")
        return (moment - EPOCH) // MILLISECOND, -((EPOCH - moment) // MILLISECOND)
    except (msgspec.ValidationError, OverflowError) as error:
        raise ValueError(str(error)) from error
