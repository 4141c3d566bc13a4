"""What a command makes happen: the rules of a task's life.

`decide` is a function of the command, the task as it is (None when there is none) and the time.
A command whose wish already holds makes nothing happen, so that sending it twice is harmless.
"""

from typing import assert_never

from ledger.commands import (
    AbandonAttempt,
    CancelTask,
    Command,
    CompleteTask,
    DeliverCallback,
    EraseTask,
    FailAttempt,
    FailCallback,
    ReleaseTask,
    ReportProgress,
    RetryTask,
    StartTask,
    SubmitTask,
)
from ledger.events import (
    AttemptFailed,
    CallbackDelivered,
    CallbackFailed,
    ErrorKind,
    Event,
    RetryScheduled,
    TaskCanceled,
    TaskCompleted,
    TaskErased,
    TaskFailed,
    TaskProgressed,
    TaskReleased,
    TaskRetried,
    TaskStarted,
    TaskSubmitted,
)
from ledger.rejections import Rejection, RejectionCode
from ledger.retry_policy import DELAY_MS_MAX, POSTPONEMENTS_MAX
from ledger.task import Status, Task

NOTHING: tuple[Event, ...] = ()


def decide(command: Command, task: Task | None, now: int) -> tuple[Event, ...]:
    """The events that `command` makes happen at `now` (ms), oldest first.

    Raises Rejection when the task's state does not allow it.
    """
    if isinstance(command, SubmitTask):
        return _submit(command, task)
    if task is None:
        raise Rejection(RejectionCode.TASK_NOT_FOUND, "Task not found")
    match command:  # the most frequent first
        case StartTask():
            return _start(command, task)
        case CompleteTask():
            return _complete(command, task)
        case ReportProgress():
            return _progress(command, task)
        case ReleaseTask():
            return _release(task, now)
        case FailAttempt():
            return _fail(command, task, now)
        case AbandonAttempt():
            return _abandon(command, task, now)
        case CancelTask():
            return _cancel(command, task)
        case RetryTask():
            return _retry(command, task)
        case DeliverCallback():
            return _deliver(command, task)
        case FailCallback():
            return _fail_callback(command, task, now)
        case EraseTask():
            return _erase(command, task)
        case _:
            assert_never(command)


def _submit(command: SubmitTask, task: Task | None) -> tuple[Event, ...]:
    if task is None:
        return (command.submission,)
    # Of what was erased, nothing is left that could be told from another one.
    if task.state.erased or _same_submission(task.submission, command.submission):
        return NOTHING
    raise Rejection(
        RejectionCode.IDEMPOTENCY_CONFLICT,
        "this Idempotency-Key was used for another submission; send a new key, or the same body",
    )


def _same_submission(known: TaskSubmitted, sent: TaskSubmitted) -> bool:
    # Bodies under a key are told apart by their hash; without a key the id is new, and a task
    # under it can only be this same submission, sent again after a lost reply.
    return known.body_sha256 == sent.body_sha256


def _release(task: Task, now: int) -> tuple[Event, ...]:
    waiting_until = task.state.waiting_until
    if task.status not in (Status.QUEUED, Status.RETRYING):
        raise Rejection(RejectionCode.TASK_NOT_WAITING, f"the task is {task.status}")
    if waiting_until is None:
        return NOTHING
    if waiting_until > now:
        raise Rejection(
            RejectionCode.TASK_NOT_WAITING, f"the task is not due for {waiting_until - now} ms"
        )
    return (TaskReleased(),)


def _start(command: StartTask, task: Task) -> tuple[Event, ...]:
    if _is_running(task, command.attempt) and task.state.worker_id == command.worker_id:
        return NOTHING
    if task.status is not Status.QUEUED or task.state.waiting_until is not None:
        raise Rejection(RejectionCode.TASK_NOT_WAITING, f"the task is {task.status}, not ready")
    if command.attempt != task.state.attempt + 1:
        raise _stale(command.attempt, task)
    return (TaskStarted(command.attempt, command.worker_id, command.lease_ms),)


def _progress(command: ReportProgress, task: Task) -> tuple[Event, ...]:
    attempt = task.state.attempt if command.attempt is None else command.attempt
    _require_running(task, attempt)
    message = task.state.message if command.message is None else command.message
    if (command.progress, message) == (task.state.progress, task.state.message):
        return NOTHING
    return (TaskProgressed(attempt, command.progress, message),)


def _complete(command: CompleteTask, task: Task) -> tuple[Event, ...]:
    if task.status is Status.COMPLETED and task.state.attempt == command.attempt:
        return NOTHING
    _require_running(task, command.attempt)
    return (TaskCompleted(command.attempt, command.result),)


def _fail(command: FailAttempt, task: Task, now: int) -> tuple[Event, ...]:
    state = task.state
    if (
        task.status in (Status.RETRYING, Status.FAILED)
        and state.attempt == command.attempt
        and (state.error_message, state.error_kind) == (command.error_message, command.error_kind)
    ):
        return NOTHING
    _require_running(task, command.attempt)
    failed = AttemptFailed(command.attempt, command.error_message, command.error_kind)
    asked_ms = _asked_ms(command)
    if asked_ms is not None and state.postponements < POSTPONEMENTS_MAX:
        postponements = state.postponements + 1
        return (failed, RetryScheduled(now + asked_ms, state.retry_count, postponements))
    retries_left = state.retry_count < task.submission.max_retries
    if command.error_kind is ErrorKind.PERMANENT or not retries_left:
        return (failed, TaskFailed(command.error_message, command.error_kind))
    retry_count = state.retry_count + 1
    delay_ms = command.policy.delay_ms(retry_count, command.jitter)
    if asked_ms is not None:
        delay_ms = asked_ms
    return (failed, RetryScheduled(now + delay_ms, retry_count, state.postponements))


def _asked_ms(command: FailAttempt) -> int | None:
    """For how long the handler wants its task put off, within bounds; None when it does not.

    Never for less than the pause before a first retry: a service that says "at once", or whose date
    is past by our clock, would be asked again without end.
    """
    if command.error_kind is not ErrorKind.RETRYABLE or command.retry_after_ms is None:
        return None
    return min(
        max(command.retry_after_ms, command.policy.delay_ms(1, command.jitter)), DELAY_MS_MAX
    )


def _abandon(command: AbandonAttempt, task: Task, now: int) -> tuple[Event, ...]:
    if task.status is Status.RETRYING and task.state.attempt == command.attempt:
        return NOTHING
    _require_running(task, command.attempt)
    failed = AttemptFailed(command.attempt, command.reason, ErrorKind.WORKER_LOST)
    return (failed, RetryScheduled(now, task.state.retry_count, task.state.postponements))


def _cancel(command: CancelTask, task: Task) -> tuple[Event, ...]:
    match task.status:
        case Status.CANCELED:
            return NOTHING
        case Status.QUEUED | Status.PROCESSING | Status.RETRYING:
            return (TaskCanceled(command.reason),)
        case Status.COMPLETED | Status.FAILED:
            raise Rejection(
                RejectionCode.TASK_NOT_CANCELABLE, f"the task is {task.status}; nothing to cancel"
            )


def _retry(command: RetryTask, task: Task) -> tuple[Event, ...]:
    if task.state.erased:
        raise Rejection(
            RejectionCode.TASK_NOT_RETRYABLE, "the task was erased; there is nothing left to do"
        )
    if task.status in (Status.FAILED, Status.CANCELED):
        return (TaskRetried(command.trace),)
    raise Rejection(
        RejectionCode.TASK_NOT_RETRYABLE,
        f"the task is {task.status}; only a failed or canceled task can be retried",
    )


def _deliver(command: DeliverCallback, task: Task) -> tuple[Event, ...]:
    if not _awaits_callback(task, command.ending):
        return NOTHING
    attempt = task.state.callback_attempts + 1
    return (CallbackDelivered(attempt, command.host, command.status_code),)


def _fail_callback(command: FailCallback, task: Task, now: int) -> tuple[Event, ...]:
    state = task.state
    if not _awaits_callback(task, command.ending) or command.attempt <= state.callback_attempts:
        return NOTHING
    attempt, retry_at = state.callback_attempts + 1, None
    first_at = now if state.callback_failed_at is None else state.callback_failed_at
    last_at = first_at + command.lasts_ms
    if not command.is_final and now < last_at:
        delay_ms = command.policy.delay_ms(attempt, command.jitter)
        retry_at = min(now + max(delay_ms, command.retry_after_ms or 0), last_at)
    return (CallbackFailed(attempt, command.host, command.error, command.status_code, retry_at),)


def _awaits_callback(task: Task, ending: int) -> bool:
    """Whether the callback_url is still to be told of the end that was reached with version
    `ending`. Of another one, or of one that it was told of, nobody wants to know any more."""
    is_told_of = task.finished and task.submission.callback_url is not None
    return is_told_of and task.ending == ending and not task.state.callback_over


def _erase(command: EraseTask, task: Task) -> tuple[Event, ...]:
    if task.state.erased:
        return NOTHING
    if not task.finished:
        raise Rejection(
            RejectionCode.TASK_NOT_ERASABLE,
            f"the task is {task.status}; only a finished task can be erased",
        )
    return (TaskErased(command.reason, command.redacted),)


def _is_running(task: Task, attempt: int) -> bool:
    return task.status is Status.PROCESSING and task.state.attempt == attempt


def _require_running(task: Task, attempt: int) -> None:
    if task.status is not Status.PROCESSING:
        raise Rejection(
            RejectionCode.TASK_NOT_PROCESSING, f"the task is {task.status}, not processing"
        )
    if task.state.attempt != attempt:
        raise _stale(attempt, task)


def _stale(attempt: int, task: Task) -> Rejection:
    return Rejection(
        RejectionCode.STALE_ATTEMPT,
        f"attempt {attempt} no longer holds the task: {task.state.attempt} were started",
    )
