"""What each command makes happen in each situation: the rules of a task's life, as one table."""

from typing import Final

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from msgspec.structs import replace

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
from ledger.decide import decide
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
)
from ledger.rejections import Rejection
from ledger.rejections import RejectionCode as Code
from ledger.retry_policy import DELAY_MS_MAX, POSTPONEMENTS_MAX, RetryPolicy
from ledger.transact import apply
from tests.given import OTHER_TRACE, T0, TRACE, Given, Rejected, a_submission, given, rejected
from tests.strategies import Life, commands, lives

SUBMITTED = a_submission(max_retries=1, body_sha256="a1", callback_url="http://h:1/")
SCHEDULED = a_submission(max_retries=1, body_sha256="a1", schedule_for=T0 + 60_000)
RESULT = msgspec.Raw(b'{"chunks": 12}')
STARTED = TaskStarted(1, "w1", 15_000)
TIMED_OUT = AttemptFailed(1, "too slow", ErrorKind.TIMEOUT)
BROKEN = AttemptFailed(1, "no such file", ErrorKind.PERMANENT)
FAILED = TaskFailed("no such file", ErrorKind.PERMANENT)

SITUATIONS: Final[dict[str, tuple[Event, ...]]] = {
    "no task": (),
    "ready": (SUBMITTED,),
    "scheduled": (SCHEDULED,),
    "running": (SUBMITTED, STARTED),
    "retrying": (SUBMITTED, STARTED, TIMED_OUT, RetryScheduled(T0 + 60_000, 1)),
    "completed": (SUBMITTED, STARTED, TaskCompleted(1, RESULT)),
    "failed": (SUBMITTED, STARTED, BROKEN, FAILED),
    "canceled": (SUBMITTED, TaskCanceled("changed my mind")),
}

# The time is T0 + 50 s in every row but those of ReleaseTask, which say theirs.
NOW = T0 + 50_000
POLICY = RetryPolicy(base_ms=2_000, spread=0.5)

NOTHING: Final[tuple[Event, ...]] = ()
NOT_FOUND = rejected(Code.TASK_NOT_FOUND)
OTHER_BODY = rejected(Code.IDEMPOTENCY_CONFLICT)
NOT_WAITING = rejected(Code.TASK_NOT_WAITING)
NOT_PROCESSING = rejected(Code.TASK_NOT_PROCESSING)
NOT_CANCELABLE = rejected(Code.TASK_NOT_CANCELABLE)
NOT_ERASABLE = rejected(Code.TASK_NOT_ERASABLE)
NOT_RETRYABLE = rejected(Code.TASK_NOT_RETRYABLE)
STALE = rejected(Code.STALE_ATTEMPT)


class Row(msgspec.Struct, frozen=True):
    """A command, and what comes of it in the situations, in their order above."""

    command: Command
    outcomes: tuple[tuple[Event, ...] | Rejected, ...]
    at: int = NOW


def row(command: Command, *outcomes: tuple[Event, ...] | Rejected | Event, at: int = NOW) -> Row:
    single = [o if isinstance(o, tuple | Rejected) else (o,) for o in outcomes]
    return Row(command, tuple(single), at)


ANOTHER = a_submission(body_sha256="b2")
TABLE: Final[dict[str, Row]] = {
    "submit": row(
        SubmitTask(SUBMITTED),
        SUBMITTED, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING,
    ),
    "submit another body": row(
        SubmitTask(ANOTHER),
        ANOTHER,
        OTHER_BODY, OTHER_BODY, OTHER_BODY, OTHER_BODY, OTHER_BODY, OTHER_BODY, OTHER_BODY,
    ),
    "release early": row(
        ReleaseTask(),
        NOT_FOUND, NOTHING, NOT_WAITING, NOT_WAITING, NOT_WAITING,
        NOT_WAITING, NOT_WAITING, NOT_WAITING,
        at=T0 + 59_999,
    ),
    "release in time": row(
        ReleaseTask(),
        NOT_FOUND, NOTHING, TaskReleased(), NOT_WAITING, TaskReleased(),
        NOT_WAITING, NOT_WAITING, NOT_WAITING,
        at=T0 + 60_000,
    ),
    "start": row(
        StartTask(1, "w1", 15_000),
        NOT_FOUND, STARTED, NOT_WAITING, NOTHING, NOT_WAITING,
        NOT_WAITING, NOT_WAITING, NOT_WAITING,
    ),
    "start, another worker": row(
        StartTask(1, "w2", 15_000),
        NOT_FOUND, TaskStarted(1, "w2", 15_000), NOT_WAITING, NOT_WAITING, NOT_WAITING,
        NOT_WAITING, NOT_WAITING, NOT_WAITING,
    ),
    "start an attempt too far": row(
        StartTask(2, "w1", 15_000),
        NOT_FOUND, STALE, NOT_WAITING, NOT_WAITING, NOT_WAITING,
        NOT_WAITING, NOT_WAITING, NOT_WAITING,
    ),
    "report progress": row(
        ReportProgress(40, "parsing", 1),
        NOT_FOUND, NOT_PROCESSING, NOT_PROCESSING, TaskProgressed(1, 40, "parsing"),
        NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING,
    ),
    "report progress from outside": row(
        ReportProgress(40, "parsing"),
        NOT_FOUND, NOT_PROCESSING, NOT_PROCESSING, TaskProgressed(1, 40, "parsing"),
        NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING,
    ),
    "report the same progress": row(
        ReportProgress(0, "", 1),
        NOT_FOUND, NOT_PROCESSING, NOT_PROCESSING, NOTHING,
        NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING,
    ),
    "report progress of another attempt": row(
        ReportProgress(40, "parsing", 2),
        NOT_FOUND, NOT_PROCESSING, NOT_PROCESSING, STALE,
        NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING,
    ),
    "complete": row(
        CompleteTask(1, RESULT),
        NOT_FOUND, NOT_PROCESSING, NOT_PROCESSING, TaskCompleted(1, RESULT),
        NOT_PROCESSING, NOTHING, NOT_PROCESSING, NOT_PROCESSING,
    ),
    "complete another attempt": row(
        CompleteTask(2, RESULT),
        NOT_FOUND, NOT_PROCESSING, NOT_PROCESSING, STALE,
        NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING,
    ),
    "fail, with retries left": row(
        FailAttempt(1, "too slow", ErrorKind.TIMEOUT, jitter=0.5, policy=POLICY),
        NOT_FOUND, NOT_PROCESSING, NOT_PROCESSING, (TIMED_OUT, RetryScheduled(NOW + 1_500, 1)),
        NOTHING, NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING,
    ),
    "fail for good": row(
        FailAttempt(1, "no such file", ErrorKind.PERMANENT),
        NOT_FOUND, NOT_PROCESSING, NOT_PROCESSING, (BROKEN, FAILED),
        NOT_PROCESSING, NOT_PROCESSING, NOTHING, NOT_PROCESSING,
    ),
    "fail another attempt": row(
        FailAttempt(2, "too slow", ErrorKind.TIMEOUT),
        NOT_FOUND, NOT_PROCESSING, NOT_PROCESSING, STALE,
        NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING,
    ),
    "abandon": row(
        AbandonAttempt(1, "the worker stops"),
        NOT_FOUND, NOT_PROCESSING, NOT_PROCESSING,
        (AttemptFailed(1, "the worker stops", ErrorKind.WORKER_LOST), RetryScheduled(NOW, 0)),
        NOTHING, NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING,
    ),
    "abandon another attempt": row(
        AbandonAttempt(2, "the worker stops"),
        NOT_FOUND, NOT_PROCESSING, NOT_PROCESSING, STALE,
        NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING, NOT_PROCESSING,
    ),
    "cancel": row(
        CancelTask("no longer needed"),
        NOT_FOUND, *[TaskCanceled("no longer needed")] * 4,
        NOT_CANCELABLE, NOT_CANCELABLE, NOTHING,
    ),
    "retry": row(
        RetryTask(),
        NOT_FOUND, NOT_RETRYABLE, NOT_RETRYABLE, NOT_RETRYABLE, NOT_RETRYABLE, NOT_RETRYABLE,
        TaskRetried(), TaskRetried(),
    ),
    "deliver a callback": row(
        DeliverCallback(4, "h:1", 204),
        NOT_FOUND, NOTHING, NOTHING, NOTHING, NOTHING,
        NOTHING, CallbackDelivered(1, "h:1", 204), NOTHING,
    ),
    "fail a callback": row(
        FailCallback(4, 1, "h:1", "it answered 503", 503, jitter=0.5),
        NOT_FOUND, NOTHING, NOTHING, NOTHING, NOTHING,
        NOTHING, CallbackFailed(1, "h:1", "it answered 503", 503, NOW + 3_750), NOTHING,
    ),
    "erase": row(
        EraseTask("a request", {}),
        NOT_FOUND, NOT_ERASABLE, NOT_ERASABLE, NOT_ERASABLE, NOT_ERASABLE,
        *[TaskErased("a request", {})] * 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("name", TABLE)
def test_decide(name: str, situation: str):
    row = TABLE[name]
    expected = row.outcomes[list(SITUATIONS).index(situation)]

    happened = given(*SITUATIONS[situation]).when(row.command, at=row.at)

    happened.then(*((expected,) if isinstance(expected, Rejected) else expected))


def test_the_table_is_complete():
    assert {type(row.command) for row in TABLE.values()} == set(Command.__args__)
    assert {len(row.outcomes) for row in TABLE.values()} == {len(SITUATIONS)}


def test_retries_are_counted_until_they_are_spent():
    lost = FailAttempt(1, "worker gone", ErrorKind.WORKER_LOST)

    once = (
        given(SUBMITTED, STARTED)
        .when(lost)
        .then(AttemptFailed(1, "worker gone", ErrorKind.WORKER_LOST), RetryScheduled(T0 + 3_000, 1))
    )

    once.when(ReleaseTask(), at=T0 + 3_000).then(TaskReleased()).when(StartTask(2, "w2", 1)).then(
        TaskStarted(2, "w2", 1)
    ).when(FailAttempt(2, "worker gone", ErrorKind.WORKER_LOST)).then(
        AttemptFailed(2, "worker gone", ErrorKind.WORKER_LOST),
        TaskFailed("worker gone", ErrorKind.WORKER_LOST),
    )


LATER = FailAttempt(1, "busy", ErrorKind.RETRYABLE, policy=POLICY, retry_after_ms=90_000)
BUSY = AttemptFailed(1, "busy", ErrorKind.RETRYABLE)


def running_after(postponements: int, retry_count: int = 0) -> Given:
    """The first attempt, of a task that was put off so often before."""
    task = given(SUBMITTED, STARTED).task
    assert task is not None
    counts = {"postponements": postponements, "retry_count": retry_count}
    state = msgspec.structs.replace(task.state, **counts)
    return Given(msgspec.structs.replace(task, state=state), NOW)


def test_a_task_that_its_handler_puts_off_comes_back_then_and_no_retry_is_counted():
    running_after(3, retry_count=1).when(LATER, at=NOW).then(
        BUSY, RetryScheduled(NOW + 90_000, 1, 4)
    )


def test_a_task_that_was_put_off_too_often_uses_its_retries_up():
    often = POSTPONEMENTS_MAX

    running_after(often).when(LATER, at=NOW).then(BUSY, RetryScheduled(NOW + 90_000, 1, often))
    running_after(often, 1).when(LATER).then(BUSY, TaskFailed("busy", ErrorKind.RETRYABLE))


@pytest.mark.parametrize(
    ("asked_ms", "granted_ms"), [(-1, 2_000), (1_999, 2_000), (10**18, DELAY_MS_MAX)]
)
def test_a_task_is_put_off_within_bounds(asked_ms: int, granted_ms: int):
    later = msgspec.structs.replace(LATER, retry_after_ms=asked_ms)

    running_after(0).when(later, at=NOW).then(BUSY, RetryScheduled(NOW + granted_ms, 0, 1))


def test_chance_has_its_share_in_the_shortest_time_that_a_task_is_put_off():
    later = msgspec.structs.replace(LATER, retry_after_ms=0, jitter=0.5)

    running_after(0).when(later, at=NOW).then(BUSY, RetryScheduled(NOW + 1_500, 0, 1))


def test_only_a_retryable_error_puts_a_task_off():
    broken = FailAttempt(1, "no such file", ErrorKind.PERMANENT, retry_after_ms=9)
    slow = FailAttempt(1, "too slow", ErrorKind.TIMEOUT, policy=POLICY, retry_after_ms=9)

    running_after(0).when(broken).then(BROKEN, FAILED)
    running_after(0).when(slow, at=NOW).then(TIMED_OUT, RetryScheduled(NOW + 2_000, 1))


def test_how_often_a_task_was_put_off_outlasts_other_failures_but_not_a_manual_retry():
    lost = FailAttempt(1, "gone", ErrorKind.WORKER_LOST)
    failed = AttemptFailed(1, "gone", ErrorKind.WORKER_LOST)

    running_after(7).when(lost, at=NOW).then(failed, RetryScheduled(NOW + 1_000, 1, 7))
    running_after(7).when(AbandonAttempt(1, "gone"), at=NOW).then(failed, RetryScheduled(NOW, 0, 7))
    ended = (
        running_after(7, retry_count=1)
        .when(lost)
        .then(failed, TaskFailed("gone", ErrorKind.WORKER_LOST))
    )
    again = ended.when(RetryTask()).then(TaskRetried()).task
    assert again is not None
    assert again.state.postponements == 0


def test_an_abandoned_attempt_costs_no_retry():
    abandoned = given(SUBMITTED, STARTED).when(AbandonAttempt(1, "stopping"), at=NOW)

    task = abandoned.then(
        AttemptFailed(1, "stopping", ErrorKind.WORKER_LOST), RetryScheduled(NOW, 0)
    ).task

    assert task is not None
    assert task.state.retry_count == 0


def test_a_late_worker_cannot_touch_the_attempt_of_another():
    moved_on = given(
        SUBMITTED, STARTED, TIMED_OUT, RetryScheduled(T0, 1), TaskReleased(),
        TaskStarted(2, "w2", 15_000),
    )  # fmt: skip

    moved_on.when(CompleteTask(1, RESULT)).then(STALE)
    moved_on.when(FailAttempt(1, "x", ErrorKind.PERMANENT)).then(STALE)
    moved_on.when(ReportProgress(99, "nearly", 1)).then(STALE)
    moved_on.when(AbandonAttempt(1, "stopping")).then(STALE)


def test_a_retried_task_has_its_retries_back_but_attempts_go_on():
    retried = given(*SITUATIONS["failed"]).when(RetryTask()).then(TaskRetried())

    retried.when(StartTask(1, "w1", 1)).then(STALE)
    retried.when(StartTask(2, "w1", 1)).then(TaskStarted(2, "w1", 1))
    assert retried.task is not None
    assert retried.task.state.retry_count == 0


def test_a_retry_brings_its_trace_along():
    failed = given(*SITUATIONS["failed"])

    failed.when(RetryTask(TRACE)).then(TaskRetried(TRACE))


def test_a_submission_that_is_sent_again_in_another_trace_is_the_same():
    task = given(a_submission(body_sha256="a1", trace=TRACE))

    task.when(SubmitTask(a_submission(body_sha256="a1", trace=OTHER_TRACE))).then()
    task.when(SubmitTask(a_submission(body_sha256="a1"))).then()


@for_all(lives(), st.data(), st.sampled_from([0, 60_000]))
def test_a_command_sent_twice_makes_nothing_happen_the_second_time(
    life: Life, data: st.DataObject, later_ms: int
):
    command, now = data.draw(commands(life.task.state.attempt)), life.now + later_ms
    try:
        events = decide(command, life.task, now)
    except Rejection:
        events = NOTHING
    task = apply(life.task.id, life.task, events, now) if events else life.task

    try:
        again = decide(command, task, now)
    except Rejection as refused:
        again = refused.code

    if isinstance(command, RetryTask) and events:
        # The one exception: a task that is queued already answers 409 to a retry.
        assert again == Code.TASK_NOT_RETRYABLE
    elif events:
        assert again == NOTHING
    else:
        assert not isinstance(again, tuple) or again == NOTHING


ENDED = SITUATIONS["failed"]
REFUSED = FailCallback(4, 1, "h:1", "it answered 503", 503, policy=POLICY, lasts_ms=10_000)


def refused(attempt: int, retry_at: int | None) -> CallbackFailed:
    return CallbackFailed(attempt, "h:1", "it answered 503", 503, retry_at)


def test_a_callback_is_posted_again_with_growing_pauses_and_for_the_last_time_when_time_is_up():
    once = given(*ENDED).when(REFUSED, at=NOW).then(refused(1, NOW + 2_000))
    twice = once.when(replace(REFUSED, attempt=2), at=NOW + 2_000).then(refused(2, NOW + 6_000))
    thrice = twice.when(replace(REFUSED, attempt=3), at=NOW + 6_000).then(refused(3, NOW + 10_000))

    thrice.when(replace(REFUSED, attempt=4), at=NOW + 10_000).then(refused(4, None))


def test_a_callback_waits_for_as_long_as_its_receiver_asks_but_not_beyond_the_last_time():
    busy = replace(REFUSED, retry_after_ms=7_000)

    given(*ENDED).when(busy, at=NOW).then(refused(1, NOW + 7_000))
    given(*ENDED).when(replace(busy, retry_after_ms=0), at=NOW).then(refused(1, NOW + 2_000))
    given(*ENDED).when(replace(busy, retry_after_ms=9**15), at=NOW).then(refused(1, NOW + 10_000))


def test_a_receiver_that_wants_to_hear_no_more_is_left_alone():
    over = given(*ENDED).when(replace(REFUSED, is_final=True), at=NOW).then(refused(1, None))

    over.when(DeliverCallback(4, "h:1", 200)).then()
    over.when(replace(REFUSED, attempt=2)).then()


def test_a_failure_that_is_told_twice_counts_once_and_a_delivery_always():
    once = given(*ENDED).when(REFUSED, at=NOW).then(refused(1, NOW + 2_000))

    once.when(REFUSED).then()
    once.when(DeliverCallback(4, "h:1", 200)).then(CallbackDelivered(2, "h:1", 200))


def test_a_retry_ends_the_callback_and_the_next_end_has_one_of_its_own():
    again = (
        given(*ENDED).when(REFUSED, at=NOW).then(refused(1, NOW + 2_000))
        .when(RetryTask()).then(TaskRetried())
    )  # fmt: skip

    again.when(DeliverCallback(4, "h:1", 200)).then()
    canceled = again.when(CancelTask()).then(TaskCanceled())
    canceled.when(DeliverCallback(4, "h:1", 200)).then()
    canceled.when(DeliverCallback(7, "h:1", 200)).then(CallbackDelivered(1, "h:1", 200))
