"""What can happen to a task, in the past tense.

These class names and field names are the storage format: an event is stored as its class name
(the stream entry's `type`) and its fields as JSON (`data`). Golden files in `tests/golden` hold
one of each; a shape that changes needs a step in `upcast.py`, never an edit of the past.

Times are milliseconds since the epoch. When an event happened is not among its fields: the stream
entry's `at` says it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, get_args

import msgspec

NO_JSON: Final = msgspec.Raw(b"")
"""Stands where there is no JSON; never stored."""


class Priority(StrEnum):
    """How urgent a task is; queues are taken in this order, the most urgent first."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class ErrorKind(StrEnum):
    """Why an attempt failed."""

    RETRYABLE = "retryable"
    PERMANENT = "permanent"
    TIMEOUT = "timeout"
    WORKER_LOST = "worker_lost"


class TaskSubmitted(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A caller handed over work. Also kept in the snapshot, whole, as the task's submission."""

    task_type: str
    kb_id: str
    payload: msgspec.Raw
    """A JSON object, the caller's bytes untouched."""
    priority: Priority = Priority.NORMAL
    max_retries: int = 3
    timeout_s: int = 300
    schedule_for: int | None = None
    callback_url: str | None = None
    metadata: msgspec.Raw = NO_JSON
    """A JSON object, or empty."""
    body_sha256: str = ""
    """Tells a repeated submission from another one under the same Idempotency-Key."""
    trace: str = ""
    """The W3C traceparent of the request; it is no part of what is asked for."""

    def __post_init__(self) -> None:
        # A Raw is left out of the JSON when it is the default object itself, not one equal to it.
        if self.metadata == NO_JSON:
            msgspec.structs.force_setattr(self, "metadata", NO_JSON)


class TaskReleased(msgspec.Struct, frozen=True, gc=False):
    """A scheduled or retrying task became due, and is ready to be taken."""


class TaskStarted(msgspec.Struct, frozen=True, gc=False):
    """A worker began an attempt, and holds the task under a lease of `lease_ms`."""

    attempt: int
    worker_id: str
    lease_ms: int


class TaskProgressed(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The running attempt told how far it is, in percent."""

    attempt: int
    progress: int
    message: str = ""


class TaskCompleted(msgspec.Struct, frozen=True, gc=False):
    """The running attempt succeeded; `result` is JSON, the handler's bytes untouched."""

    attempt: int
    result: msgspec.Raw


class AttemptFailed(msgspec.Struct, frozen=True, gc=False):
    """The running attempt did not succeed. RetryScheduled or TaskFailed always follows."""

    attempt: int
    error_message: str
    error_kind: ErrorKind


class RetryScheduled(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Another attempt will be made, not before `retry_at`."""

    retry_at: int
    retry_count: int
    postponements: int = 0
    """How often the handler has put the task off by now, which `retry_count` leaves out."""


class TaskFailed(msgspec.Struct, frozen=True, gc=False):
    """No further attempt will be made: the error is permanent, or the retries are spent."""

    error_message: str
    error_kind: ErrorKind


class TaskCanceled(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Somebody no longer wants the task done."""

    reason: str = ""


class TaskRetried(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Somebody sent a failed or canceled task round again, with its retries restored."""

    trace: str = ""
    """The W3C traceparent of that request, which the task's next life belongs to; without one, it
    belongs to the submission's."""


class CallbackDelivered(msgspec.Struct, frozen=True, gc=False):
    """The task's callback_url was told of its end, and took it: `attempt` is how many posts that
    took. The task is as it was."""

    attempt: int
    host: str
    """With its port. The rest of the URL may be a secret."""
    status_code: int


class CallbackFailed(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A post to the task's callback_url came to nothing. The task is as it was."""

    attempt: int
    host: str
    error: str
    status_code: int | None = None
    """None: there was no answer."""
    retry_at: int | None = None
    """When it is posted again; None: it is not."""


class TaskErased(msgspec.Struct, frozen=True):
    """Somebody had what the task was about removed: payload, metadata, callback_url, result,
    messages and errors. The task stays as it ended."""

    reason: str
    redacted: Mapping[str, str]
    """By version, of the events whose data was removed: SHA-256, in hexadecimal, of what is left of
    that data (see `erasure`)."""


Event = (
    TaskSubmitted
    | TaskReleased
    | TaskStarted
    | TaskProgressed
    | TaskCompleted
    | AttemptFailed
    | RetryScheduled
    | TaskFailed
    | TaskCanceled
    | TaskRetried
    | CallbackDelivered
    | CallbackFailed
    | TaskErased
)

EVENT_TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}
"""Every event by its stored name."""
