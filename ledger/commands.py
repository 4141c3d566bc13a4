"""What callers and workers may ask of a task, in the imperative.

`attempt` in a worker's command is its fencing token: the command is refused when the task has
moved on to another attempt. Times are milliseconds.
"""

from collections.abc import Mapping

import msgspec

from ledger.events import ErrorKind, TaskSubmitted
from ledger.retry_policy import (
    DEFAULT_CALLBACK_POLICY,
    DEFAULT_CALLBACKS_LAST_MS,
    DEFAULT_RETRY_POLICY,
    RetryPolicy,
)


class SubmitTask(msgspec.Struct, frozen=True, gc=False):
    """Bring a task into being."""

    submission: TaskSubmitted


class ReleaseTask(msgspec.Struct, frozen=True, gc=False):
    """Make a task ready whose time has come."""


class StartTask(msgspec.Struct, frozen=True, gc=False):
    """Begin `attempt` on `worker_id`: one more than the attempts that were started so far."""

    attempt: int
    worker_id: str
    lease_ms: int


class ReportProgress(msgspec.Struct, frozen=True, gc=False):
    """Tell how far the work is, 0 to 100. `message` None: the last one still holds. `attempt` None:
    whichever attempt runs."""

    progress: int
    message: str | None = ""
    attempt: int | None = None


class CompleteTask(msgspec.Struct, frozen=True, gc=False):
    """End the attempt with a result, as JSON."""

    attempt: int
    result: msgspec.Raw


class FailAttempt(msgspec.Struct, frozen=True, gc=False):
    """End the attempt with an error. `jitter` in [0, 1) is drawn by the caller.

    `retry_after_ms`: the handler said when to try again, instead of `policy`, which puts the task
    off rather than counting a retry (within POSTPONEMENTS_MAX). Of no meaning with another
    `error_kind` than `retryable`.
    """

    attempt: int
    error_message: str
    error_kind: ErrorKind
    jitter: float = 0.0
    policy: RetryPolicy = DEFAULT_RETRY_POLICY
    retry_after_ms: int | None = None


class AbandonAttempt(msgspec.Struct, frozen=True, gc=False):
    """Give a running attempt back, as a worker does that must stop: no retry is counted."""

    attempt: int
    reason: str


class CancelTask(msgspec.Struct, frozen=True, gc=False):
    """Stop wanting the task done."""

    reason: str = ""


class RetryTask(msgspec.Struct, frozen=True, gc=False):
    """Queue a failed or canceled task again, with its retries restored. `trace` is as in
    TaskRetried."""

    trace: str = ""


class DeliverCallback(msgspec.Struct, frozen=True, gc=False):
    """Keep that the callback_url took the news of the end that `ending` names (`Task.ending`)."""

    ending: int
    host: str
    status_code: int


class FailCallback(msgspec.Struct, frozen=True, gc=False):
    """Keep that post number `attempt` of the news of an end came to nothing.

    It is posted again as `policy` says, and not before `retry_after_ms`, which the receiver may
    have asked for; until `lasts_ms` after the first failure, when it is posted for the last time.
    `is_final`: the receiver wants to hear no more. `jitter` in [0, 1) is drawn by the caller.
    """

    ending: int
    attempt: int
    host: str
    error: str
    status_code: int | None = None
    is_final: bool = False
    retry_after_ms: int | None = None
    jitter: float = 0.0
    policy: RetryPolicy = DEFAULT_CALLBACK_POLICY
    lasts_ms: int = DEFAULT_CALLBACKS_LAST_MS


class EraseTask(msgspec.Struct, frozen=True):
    """Have removed what a finished task was about. `redacted` is as in TaskErased, of all that has
    happened to the task so far."""

    reason: str
    redacted: Mapping[str, str]


Command = (
    SubmitTask
    | ReleaseTask
    | StartTask
    | ReportProgress
    | CompleteTask
    | FailAttempt
    | AbandonAttempt
    | CancelTask
    | RetryTask
    | DeliverCallback
    | FailCallback
    | EraseTask
)
