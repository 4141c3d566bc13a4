"""What each event makes of a task."""

import msgspec
import pytest
from hypothesis import given as for_all

from ledger.events import (
    AttemptFailed,
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
)
from ledger.evolve import evolve, fold, initial
from ledger.task import FINISHED, State, Status, Task
from ledger.transitions import IllegalTransition
from tests.given import OTHER_TRACE, T0, TASK_ID, TRACE, a_submission, given
from tests.strategies import Life, lives

SUBMITTED = a_submission()
STARTED = TaskStarted(1, "w1", 15_000)
RESULT = msgspec.Raw(b'{"chunks": 12}')
FAILED = AttemptFailed(1, "boom", ErrorKind.RETRYABLE)
RETRYING = (SUBMITTED, STARTED, FAILED, RetryScheduled(T0 + 9_000, 1))
SPENT = (SUBMITTED, STARTED, FAILED, TaskFailed("boom", ErrorKind.RETRYABLE))


def state_after(*events: Event) -> State:
    task = given(*events).task
    assert task is not None
    return task.state


def test_nothing_is_no_task():
    assert fold(TASK_ID, []) is None


def test_submitted_makes_a_queued_task():
    task = initial(TASK_ID, SUBMITTED, T0)

    assert task == Task(TASK_ID, 1, SUBMITTED, State(Status.QUEUED, created_at=T0, updated_at=T0))


def test_submitted_with_a_schedule_waits_for_it():
    state = initial(TASK_ID, a_submission(schedule_for=T0 + 5), T0).state

    assert (state.status, state.waiting_until) == (Status.QUEUED, T0 + 5)


def test_released_no_longer_waits():
    state = state_after(a_submission(schedule_for=T0 + 5), TaskReleased())

    assert (state.status, state.waiting_until) == (Status.QUEUED, None)


def test_started_is_held_by_its_worker():
    state = state_after(SUBMITTED, STARTED)

    assert state.status is Status.PROCESSING
    assert (state.attempt, state.worker_id, state.lease_ms) == (1, "w1", 15_000)
    assert state.started_at == T0 + 1_000


def test_progressed_tells_percent_and_message():
    state = state_after(SUBMITTED, STARTED, TaskProgressed(1, 40, "parsing"))

    assert (state.progress, state.message) == (40, "parsing")


def test_completed_keeps_the_result_and_forgets_earlier_errors():
    state = state_after(
        *RETRYING, TaskReleased(), TaskStarted(2, "w2", 1), TaskCompleted(2, RESULT)
    )

    assert (state.status, state.progress, state.result) == (Status.COMPLETED, 100, RESULT)
    assert (state.error_message, state.error_kind) == ("", None)
    assert state.completed_at == T0 + 6_000


def test_a_failed_attempt_waits_for_its_retry_and_has_no_worker():
    state = state_after(*RETRYING)

    assert (state.status, state.waiting_until) == (Status.RETRYING, T0 + 9_000)
    assert (state.retry_count, state.worker_id) == (1, None)
    assert (state.error_message, state.error_kind) == ("boom", ErrorKind.RETRYABLE)


def test_another_attempt_begins_its_progress_anew():
    state = state_after(
        SUBMITTED, STARTED, TaskProgressed(1, 40, "parsing"), FAILED, RetryScheduled(T0, 1),
        TaskReleased(), TaskStarted(2, "w2", 1),
    )  # fmt: skip

    assert (state.progress, state.message) == (0, "")
    assert state.error_message == "boom", "the last attempt's error stays until it is done"


def test_failed_ends_with_the_last_error():
    state = state_after(*SPENT)

    assert (state.status, state.completed_at) == (Status.FAILED, T0 + 3_000)
    assert (state.error_message, state.error_kind) == ("boom", ErrorKind.RETRYABLE)


def test_canceled_waits_for_nothing():
    state = state_after(a_submission(schedule_for=T0 + 5), TaskCanceled("no longer needed"))

    assert (state.status, state.waiting_until) == (Status.CANCELED, None)
    assert state.completed_at == T0 + 1_000


def test_retried_starts_afresh_but_for_its_birth_and_its_attempts():
    state = state_after(*SPENT, TaskRetried())

    assert state == State(Status.QUEUED, created_at=T0, updated_at=T0 + 4_000, attempt=1)


def test_a_retry_that_is_part_of_a_trace_makes_the_tasks_next_life_part_of_it():
    submitted = a_submission(trace=TRACE)
    failed = (submitted, *SPENT[1:])

    first = given(*failed).task
    retried = given(*failed, TaskRetried(OTHER_TRACE)).task
    later = given(*failed, TaskRetried(OTHER_TRACE), TaskCanceled(), TaskRetried()).task

    assert [task and task.trace for task in (first, retried, later)] == [TRACE, OTHER_TRACE, TRACE]
    assert retried is not None
    assert retried.submission == submitted


def test_an_event_that_cannot_follow_is_refused():
    task = given(SUBMITTED).task
    assert task is not None

    with pytest.raises(IllegalTransition, match="TaskCompleted cannot happen to a queued task"):
        evolve(task, TaskCompleted(1, RESULT), T0)


def test_a_history_begins_with_its_submission():
    with pytest.raises(IllegalTransition, match="TaskReleased cannot happen to no task"):
        fold(TASK_ID, [(TaskReleased(), T0)])


@for_all(lives())
def test_a_life_folds_to_its_task_event_by_event(life: Life):
    task: Task | None = None
    is_erased = False
    for event, at in life.history:
        before = 0 if task is None else task.version
        is_erased = is_erased or isinstance(event, TaskErased)
        task = initial(TASK_ID, event, at) if task is None else evolve(task, event, at)
        assert task.version == before + 1
        assert task.state.updated_at == at
        assert is_erased or task.submission == life.history[0][0]
        assert task.state.created_at == life.history[0][1]
    assert task is not None
    assert task == fold(TASK_ID, life.history) == life.task
    assert task.version == len(life.history)
    assert (task.state.completed_at is not None) == (task.status in FINISHED)
