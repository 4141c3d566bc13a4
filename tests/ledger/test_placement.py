"""Where a task waits follows from its state alone."""

import pytest
from hypothesis import given as for_all
from msgspec.structs import replace

from ledger.events import (
    AttemptFailed,
    CallbackDelivered,
    CallbackFailed,
    ErrorKind,
    Event,
    Priority,
    RetryScheduled,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskReleased,
    TaskRetried,
    TaskStarted,
)
from ledger.placement import Callback, Due, Leased, Nowhere, Place, Queue, Ready, placement
from ledger.task import Status
from tests.given import T0, a_submission, given
from tests.strategies import Life, lives

SUBMITTED = a_submission(task_type="health_check", priority=Priority.HIGH)
QUEUE = Queue("health_check", Priority.HIGH)
SCHEDULED = replace(SUBMITTED, schedule_for=T0 + 5)
STARTED = TaskStarted(1, "w1", 15_000)
FAILED = AttemptFailed(1, "boom", ErrorKind.RETRYABLE)
TOLD = replace(SUBMITTED, callback_url="https://Hooks.test/{task_id}")
REFUSED = CallbackFailed(1, "hooks.test:443", "it answered 500", 500, T0 + 9)
TAKEN = CallbackDelivered(2, "hooks.test:443", 200)


@pytest.mark.parametrize(
    ("events", "place"),
    [
        ((SUBMITTED,), Ready(QUEUE)),
        ((SCHEDULED,), Due(T0 + 5)),
        ((SCHEDULED, TaskReleased()), Ready(QUEUE)),
        ((SUBMITTED, STARTED), Leased(1, 15_000)),
        ((SUBMITTED, STARTED, FAILED, RetryScheduled(T0 + 9, 1)), Due(T0 + 9)),
        ((SUBMITTED, STARTED, FAILED, TaskFailed("boom", ErrorKind.RETRYABLE)), Nowhere()),
        ((SUBMITTED, STARTED, TaskCompleted(1, SUBMITTED.payload)), Nowhere()),
        ((SCHEDULED, TaskCanceled()), Nowhere()),
        ((SCHEDULED, TaskCanceled(), TaskRetried()), Ready(QUEUE)),
        ((TOLD, TaskCanceled()), Callback(T0 + 1_000, "hooks.test:443")),
        ((TOLD, TaskCanceled(), REFUSED), Callback(T0 + 9, "hooks.test:443")),
        ((TOLD, TaskCanceled(), REFUSED, TAKEN), Nowhere()),
        ((TOLD, TaskCanceled(), replace(REFUSED, retry_at=None)), Nowhere()),
        ((TOLD, TaskCanceled(), REFUSED, TaskRetried()), Ready(QUEUE)),
    ],
)
def test_placement(events: tuple[Event, ...], place: Place):
    task = given(*events).task
    assert task is not None

    assert placement(task) == place


@for_all(lives())
def test_each_unfinished_task_waits_somewhere_and_a_finished_one_for_its_callback_alone(life: Life):
    place = placement(life.task)

    match place:
        case Ready(queue):
            assert life.task.status is Status.QUEUED
            assert queue == Queue(life.task.submission.task_type, life.task.submission.priority)
        case Due(at_ms):
            assert life.task.status in (Status.QUEUED, Status.RETRYING)
            assert at_ms == life.task.state.waiting_until
        case Leased(attempt):
            assert life.task.status is Status.PROCESSING
            assert attempt == life.task.state.attempt
        case Callback(at_ms):
            assert life.task.finished
            assert life.task.submission.callback_url is not None
            assert not life.task.state.callback_over
            assert at_ms >= life.task.state.updated_at or life.task.state.callback_attempts == 0
        case Nowhere():
            assert life.task.finished
            assert life.task.submission.callback_url is None or life.task.state.callback_over
    assert placement(life.task) == place
