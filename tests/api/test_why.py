"""Why a task stands where it stands: each reason, from what is known around the task."""

from typing import Any

import msgspec
import pytest

from api.reasons import (
    AboutToStart,
    AllWorkersBusy,
    BehindOthers,
    BeingCanceled,
    CallbackEnded,
    CallbackWaits,
    Claimed,
    DelayedUntil,
    Finished,
    Limited,
    NotReleased,
    NoWorkerForType,
    Paused,
    QueueAhead,
    RetryingAt,
    Running,
    WorkerLost,
)
from api.why import Facts, LimitMet, reasons
from api.wire import moment_text
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
    TaskStarted,
)
from ledger.system.events import LimitScope
from ledger.system.state import Pause
from ledger.task import Status, Task
from ledger.workers import WorkerReport, WorkerSeen, WorkerState
from tests.contracts.store import RESULT
from tests.given import T0, TASK_ID, a_submission, given

NOW = T0 + 60_000
SUBMITTED = a_submission(task_type="work", max_retries=3)
STARTED = TaskStarted(1, "w1", 15_000)
NOBODY_WAITS = dict.fromkeys(Priority, (0,))


def a_worker(name: str = "w1", *task_types: str, heard_at: int = NOW, **said: Any) -> WorkerSeen:
    """An idle worker for `work`, unless it says otherwise."""
    state = said.pop("state", WorkerState.IDLE)
    fields: dict[str, Any] = {"concurrency": 2, "lease_ms": 15_000, "started_at": T0, **said}
    report = WorkerReport(name, "h1", 7, task_types or ("work",), state=state, **fields)
    return WorkerSeen(report, heard_at, state)


def facts(*workers: WorkerSeen, **others: Any) -> Facts:
    """What is known around a task that waits in no queue, unless a test says otherwise."""
    known: dict[str, Any] = {
        "queue_position": 0,
        "waiting": NOBODY_WAITS,
        "lease_until": None,
        **others,
    }
    return Facts(NOW, workers, **known)


def a_task(*events: Event) -> Task:
    task = given(*events).task
    assert task is not None
    return task


def codes(task: Task, known: Facts) -> list[type]:
    return [type(reason) for reason in reasons(task, known)]


# -- waiting ----------------------------------------------------------------------------------


def test_a_scheduled_task_waits_for_its_time():
    task = a_task(a_submission(task_type="work", schedule_for=NOW + 90_000))

    [reason] = reasons(task, facts(a_worker()))

    assert isinstance(reason, DelayedUntil)
    assert (reason.until, reason.seconds) == (moment_text(NOW + 90_000), 90.0)
    assert "90 s" in reason.message


def test_a_task_that_failed_waits_for_its_retry():
    failed = AttemptFailed(1, "boom", ErrorKind.TIMEOUT)
    task = a_task(SUBMITTED, STARTED, failed, RetryScheduled(NOW + 2_000, 1))

    [reason] = reasons(task, facts(a_worker()))

    assert isinstance(reason, RetryingAt)
    assert (reason.seconds, reason.retry_count, reason.max_retries) == (2.0, 1, 3)
    assert "timeout: boom" in reason.message


def test_a_task_whose_time_is_long_past_waits_for_a_scheduler():
    task = a_task(a_submission(task_type="work", schedule_for=NOW - 10_000))

    [reason] = reasons(task, facts(a_worker()))

    assert isinstance(reason, NotReleased)
    assert reason.overdue_seconds == 10.0
    assert "ledgerq scheduler" in reason.message


def test_a_type_that_nobody_serves_is_said_of_delayed_tasks_too():
    delayed = a_task(a_submission(task_type="work", schedule_for=NOW + 1))

    assert codes(delayed, facts(a_worker("w2", "other"))) == [DelayedUntil, NoWorkerForType]


def test_a_type_that_nobody_serves_names_who_did_and_who_is_there():
    known = facts(
        a_worker("w1", state=WorkerState.LOST),
        a_worker("w2", state=WorkerState.DRAINING),
        a_worker("w3", "other", "another"),
        queue_position=1,
    )

    [reason] = reasons(a_task(SUBMITTED), known)

    assert isinstance(reason, NoWorkerForType)
    assert (reason.task_type, reason.workers, reason.draining, reason.lost) == ("work", 1, 1, 1)
    assert "another, other" in reason.message
    assert '@handler("work")' in reason.message


def test_workers_that_are_all_busy_are_counted():
    busy: dict[str, Any] = {"running": 2, "state": WorkerState.BUSY}
    known = facts(a_worker("w1", **busy), a_worker("w2", **busy), queue_position=1)

    [reason] = reasons(a_task(SUBMITTED), known)

    assert isinstance(reason, AllWorkersBusy)
    assert (reason.workers, reason.running, reason.concurrency) == (2, 4, 4)


def test_a_task_behind_others_is_told_how_many_and_where():
    waiting = {
        Priority.CRITICAL: (0, 0),
        Priority.HIGH: (2, 1),
        Priority.NORMAL: (5, 5),
        Priority.LOW: (9, 9),
    }

    [reason] = reasons(a_task(SUBMITTED), facts(a_worker(), queue_position=8, waiting=waiting))

    assert isinstance(reason, BehindOthers)
    assert reason.tasks == 7
    assert reason.queues == [QueueAhead(Priority.HIGH, 3), QueueAhead(Priority.NORMAL, 4)]
    assert "3 in work:high, 4 in work:normal" in reason.message


def test_a_paused_queue_comes_first_and_names_who_paused_it():
    task, pause = a_task(SUBMITTED), Pause(T0, "the disk is full", "ann")

    [reason, missing] = reasons(task, facts(queue_position=1, pause=pause))

    assert isinstance(reason, Paused)
    assert (reason.since, reason.by) == (moment_text(T0), "ann")
    assert "the disk is full" in reason.message
    assert "ledgerq resume work" in reason.message
    assert isinstance(missing, NoWorkerForType)


def test_a_pause_does_not_matter_to_a_task_that_runs():
    task = a_task(SUBMITTED, STARTED)

    assert codes(task, facts(lease_until=NOW + 1, pause=Pause(T0))) == [Running]


def test_limits_that_are_met_are_named():
    met = [
        LimitMet(LimitScope.TYPE, "work", 3, 3, 3),
        LimitMet(LimitScope.KB, "docs", 8, 2, 2),
    ]

    found = reasons(a_task(SUBMITTED), facts(a_worker(), queue_position=1, held_back_by=met))

    assert [(r.scope, r.limit, r.share, r.admitted) for r in found if isinstance(r, Limited)] == [
        ("type", 3, 3, 3),
        ("kb", 8, 2, 2),
    ]
    assert "partition" not in found[0].message
    assert "(2 in the task's partition), and 2 run or are next there" in found[1].message
    assert "ledgerq limit kb docs N" in found[1].message


def test_a_task_that_nothing_holds_up_is_about_to_start():
    busy = a_worker("w2", running=2, state=WorkerState.BUSY)

    assert codes(a_task(SUBMITTED), facts(a_worker(), busy, queue_position=1)) == [AboutToStart]


def test_a_released_retry_is_in_the_queue_like_any_other():
    failed = AttemptFailed(1, "boom", ErrorKind.RETRYABLE)
    task = a_task(SUBMITTED, STARTED, failed, RetryScheduled(NOW, 1), TaskReleased())

    assert codes(task, facts(a_worker(), queue_position=2)) == [BehindOthers]


def test_a_task_that_was_taken_and_not_started_is_claimed():
    assert codes(a_task(SUBMITTED), facts(a_worker())) == [Claimed]


# -- running ----------------------------------------------------------------------------------


def test_a_running_task_names_its_worker_and_how_long_it_holds_it():
    task = a_task(SUBMITTED, STARTED)

    [reason] = reasons(task, facts(a_worker(), lease_until=NOW + 14_000))

    assert isinstance(reason, Running)
    assert (reason.worker_id, reason.attempt, reason.seconds) == ("w1", 1, 59.0)
    assert reason.since == moment_text(T0 + 1_000)
    assert reason.lease_until == moment_text(NOW + 14_000)


def test_a_worker_that_is_no_process_of_ours_may_run_a_task():
    assert codes(a_task(SUBMITTED, STARTED), facts(lease_until=NOW + 1)) == [Running]


def test_a_silent_worker_is_lost():
    lost = a_worker(heard_at=NOW - 16_000, state=WorkerState.LOST)

    [reason] = reasons(a_task(SUBMITTED, STARTED), facts(lost, lease_until=NOW - 1_000))

    assert isinstance(reason, WorkerLost)
    assert reason.last_heartbeat == moment_text(NOW - 16_000)
    assert "16 s ago" in reason.message
    assert "retried" in reason.message


def test_a_lease_that_ran_out_long_ago_waits_for_a_scheduler():
    [reason] = reasons(a_task(SUBMITTED, STARTED), facts(lease_until=NOW - 10_000))

    assert isinstance(reason, WorkerLost)
    assert reason.last_heartbeat is None
    assert "ledgerq scheduler" in reason.message


# -- after the end ----------------------------------------------------------------------------


def test_a_completed_task_is_finished():
    task = a_task(SUBMITTED, STARTED, TaskCompleted(1, RESULT))

    [reason] = reasons(task, facts())

    assert isinstance(reason, Finished)
    assert (reason.status, reason.completed_at) == (Status.COMPLETED, moment_text(T0 + 2_000))


TOLD = msgspec.structs.replace(SUBMITTED, callback_url="http://hooks.test:8082/x")
REFUSED = CallbackFailed(1, "hooks.test:8082", "it answered 503", 503, NOW + 30_000)


def test_a_finished_task_says_whom_its_end_is_still_to_be_told():
    _, first = reasons(a_task(TOLD, TaskCanceled()), facts())
    _, again = reasons(a_task(TOLD, TaskCanceled(), REFUSED), facts())

    assert isinstance(first, CallbackWaits)
    assert "ledgerq notifier" in first.message
    assert isinstance(again, CallbackWaits)
    assert (again.host, again.attempts, again.seconds) == ("hooks.test:8082", 1, 30.0)
    assert "after 1 post; it is posted again" in again.message


GIVEN_UP = CallbackFailed(2, "hooks.test:8082", "it answered 503", 503)
TAKEN = CallbackDelivered(1, "hooks.test:8082", 200)
TAKEN_AT_LAST = CallbackDelivered(2, "hooks.test:8082", 200)


@pytest.mark.parametrize(
    ("events", "attempts", "delivered", "says"),
    [
        ((TAKEN,), 1, True, "took the news of that, after 1 post."),
        ((REFUSED, TAKEN_AT_LAST), 2, True, "took the news of that, after 2 posts."),
        ((REFUSED, GIVEN_UP), 2, False, "has not taken the news of that, after 2 posts, and is"),
    ],
    ids=["at once", "at last", "given up"],
)
def test_a_finished_task_says_what_became_of_its_callback(
    events: tuple[Event, ...], attempts: int, delivered: bool, says: str
):
    *_, over = reasons(a_task(TOLD, TaskCanceled(), *events), facts())

    assert over == CallbackEnded(
        host="hooks.test:8082", attempts=attempts, delivered=delivered, message=over.message
    )
    assert says in over.message


def test_a_failed_task_says_why_and_how_to_send_it_again():
    failed = AttemptFailed(1, "boom", ErrorKind.PERMANENT)
    task = a_task(SUBMITTED, STARTED, failed, TaskFailed("boom", ErrorKind.PERMANENT))

    [reason] = reasons(task, facts())

    assert isinstance(reason, Finished)
    assert "permanent: boom" in reason.message
    assert f"ledgerq retry {TASK_ID}" in reason.message


def test_a_canceled_task_whose_handler_runs_is_being_canceled():
    task = a_task(SUBMITTED, STARTED, TaskCanceled())
    at_it = a_worker(task_ids=(TASK_ID,), running=1, state=WorkerState.BUSY)

    [reason, finished] = reasons(task, facts(a_worker("w0"), at_it))

    assert isinstance(reason, BeingCanceled)
    assert (reason.worker_id, reason.seconds) == ("w1", 58.0)
    assert isinstance(finished, Finished)
    gone = a_worker(task_ids=(TASK_ID,), state=WorkerState.LOST)
    assert codes(task, facts(gone)) == [Finished]
