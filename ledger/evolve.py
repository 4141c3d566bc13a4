"""What an event makes of a task, and what a history makes of nothing."""

from collections.abc import Iterable
from typing import assert_never

from msgspec.structs import replace

from ledger.erasure import redacted_submission
from ledger.events import (
    AttemptFailed,
    CallbackDelivered,
    CallbackFailed,
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
from ledger.task import NO_RESULT, State, Task
from ledger.transitions import next_status


def initial(task_id: str, event: Event, at: int) -> Task:
    """The task that its first event brings into being. Raises IllegalTransition on another."""
    next_status(None, type(event))
    assert isinstance(event, TaskSubmitted)  # noqa: S101 - the table has no other first event
    return Task(task_id, 1, event, initial_state(event, at))


def initial_state(event: TaskSubmitted, at: int) -> State:
    """The state of a task that was submitted at time `at` (ms)."""
    status = next_status(None, TaskSubmitted)
    return State(status, created_at=at, updated_at=at, waiting_until=event.schedule_for)


def evolve(task: Task, event: Event, at: int) -> Task:
    """The task after `event` at time `at` (ms). Raises IllegalTransition where it cannot follow."""
    state = state_after(task.state, event, at)
    submission = task.submission
    if isinstance(event, TaskErased):
        submission = redacted_submission(submission)
    return Task(task.id, task.version + 1, submission, state)


def fold(task_id: str, history: Iterable[tuple[Event, int]]) -> Task | None:
    """The task that a history of (event, at) makes, oldest first; None of an empty one."""
    task: Task | None = None
    for event, at in history:
        task = initial(task_id, event, at) if task is None else evolve(task, event, at)
    return task


def state_after(state: State, event: Event, at: int) -> State:
    """As `evolve`, for whoever has the state alone."""
    status = next_status(state.status, type(event))
    match event:  # the most frequent first
        case TaskStarted(attempt, worker_id, lease_ms):
            return replace(
                state,
                status=status,
                updated_at=at,
                started_at=at,
                attempt=attempt,
                worker_id=worker_id,
                lease_ms=lease_ms,
                progress=0,
                message="",
            )
        case TaskProgressed(_, progress, message):
            return replace(state, status=status, updated_at=at, progress=progress, message=message)
        case TaskCompleted(_, result):
            return replace(
                state,
                status=status,
                updated_at=at,
                completed_at=at,
                progress=100,
                result=result,
                error_message="",
                error_kind=None,
            )
        case TaskReleased():
            return replace(state, status=status, updated_at=at, waiting_until=None)
        case AttemptFailed(_, error_message, error_kind):
            return replace(
                state,
                status=status,
                updated_at=at,
                error_message=error_message,
                error_kind=error_kind,
            )
        case RetryScheduled(retry_at, retry_count, postponements):
            return replace(
                state,
                status=status,
                updated_at=at,
                waiting_until=retry_at,
                retry_count=retry_count,
                postponements=postponements,
                worker_id=None,
            )
        case TaskFailed(error_message, error_kind):
            return replace(
                state,
                status=status,
                updated_at=at,
                completed_at=at,
                error_message=error_message,
                error_kind=error_kind,
            )
        case TaskCanceled():
            return replace(state, status=status, updated_at=at, completed_at=at, waiting_until=None)
        case TaskRetried(trace):
            return State(
                status,
                created_at=state.created_at,
                updated_at=at,
                attempt=state.attempt,
                trace=trace,
            )
        case CallbackDelivered(attempt):
            return replace(state, updated_at=at, callback_attempts=attempt, callback_over=True)
        case CallbackFailed(attempt, retry_at=retry_at):
            failed_at = state.callback_failed_at
            return replace(
                state,
                updated_at=at,
                callback_attempts=attempt,
                callback_failed_at=at if failed_at is None else failed_at,
                callback_retry_at=retry_at,
                callback_over=retry_at is None,
            )
        case TaskErased():
            return replace(
                state,
                status=status,
                updated_at=at,
                message="",
                error_message="",
                result=NO_RESULT,
                callback_over=True,
                erased=True,
            )
        case TaskSubmitted():
            raise AssertionError("the transition table lets no task be submitted twice")
        case _:
            assert_never(event)
