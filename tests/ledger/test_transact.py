"""Load, decide, append, and again when somebody else was faster."""

import pytest

from ledger.codec import Meta, decode_meta
from ledger.commands import (
    CancelTask,
    FailAttempt,
    ReportProgress,
    RetryTask,
    StartTask,
    SubmitTask,
)
from ledger.events import ErrorKind, TaskCanceled, TaskStarted
from ledger.memory_store import MemoryStore
from ledger.rejections import Rejection, RejectionCode
from ledger.retry_policy import RetryPolicy
from ledger.store import Append, Conflict, Outcome
from ledger.task import Status, Task
from ledger.transact import CONFLICTS_MAX, transact, transact_known
from tests.given import OTHER_TRACE, T0, TASK_ID, TRACE, a_submission

SUBMITTED = a_submission(body_sha256="a1")


async def no_wait(_timeout_ms: int) -> None:
    return


class BusyStore(MemoryStore):
    """Somebody else is faster `conflicts` times."""

    def __init__(self) -> None:
        super().__init__(lambda: T0, no_wait)
        self.conflicts = 0
        self.loads = 0

    async def append(self, step: Append) -> Outcome:
        if self.conflicts:
            self.conflicts -= 1
            return Conflict(99)
        return await super().append(step)

    async def load(self, task_id: str) -> Task | None:
        self.loads += 1
        return await super().load(task_id)


@pytest.fixture
def store() -> BusyStore:
    return BusyStore()


async def submitted(store: BusyStore) -> Task:
    return (await transact(store, TASK_ID, SubmitTask(SUBMITTED))).task


async def test_a_new_task_takes_one_append_and_no_load(store: BusyStore):
    done = await transact(store, TASK_ID, SubmitTask(SUBMITTED), meta=Meta(actor="api"))

    assert (done.task.version, done.events, store.loads) == (1, (SUBMITTED,), 0)
    [recorded] = await store.history(TASK_ID)
    assert (recorded.position, recorded.at) == (done.position, T0)
    assert decode_meta(recorded.meta).actor == "api"


async def test_a_submission_sent_again_gives_the_task_that_is_there(store: BusyStore):
    first = await submitted(store)

    again = await transact(store, TASK_ID, SubmitTask(SUBMITTED))

    assert (again.task, again.events, again.position) == (first, (), None)


async def test_another_submission_under_the_same_id_is_refused(store: BusyStore):
    await submitted(store)

    with pytest.raises(Rejection) as raised:
        await transact(store, TASK_ID, SubmitTask(a_submission(body_sha256="b2")))

    assert raised.value.code is RejectionCode.IDEMPOTENCY_CONFLICT
    assert len(await store.history(TASK_ID)) == 1


async def test_a_conflict_is_decided_again_on_what_is_there(store: BusyStore):
    await submitted(store)
    store.conflicts = CONFLICTS_MAX - 1

    done = await transact(store, TASK_ID, CancelTask("no longer needed"))

    assert done.events == (TaskCanceled("no longer needed"),)


async def test_conflicts_without_end_are_told_to_the_caller(store: BusyStore):
    await submitted(store)
    store.conflicts = CONFLICTS_MAX

    with pytest.raises(Rejection) as raised:
        await transact(store, TASK_ID, CancelTask())

    assert raised.value.code is RejectionCode.VERSION_CONFLICT
    assert raised.value.retryable
    assert len(await store.history(TASK_ID)) == 1


async def test_a_conflict_over_an_expected_version_is_not_decided_again(store: BusyStore):
    task = await submitted(store)
    store.conflicts = 1

    with pytest.raises(Rejection, match="is at version 99,") as raised:
        await transact(store, TASK_ID, CancelTask(), expected_versions={task.version})

    assert raised.value.code is RejectionCode.VERSION_CONFLICT
    assert len(await store.history(TASK_ID)) == 1


async def test_an_expected_version_goes_before_the_rules(store: BusyStore):
    await submitted(store)

    with pytest.raises(Rejection) as raised:
        await transact(store, TASK_ID, ReportProgress(5), expected_versions={7})

    assert raised.value.code is RejectionCode.VERSION_CONFLICT


async def test_a_known_task_is_not_loaded(store: BusyStore):
    task = await submitted(store)

    done = await transact(store, TASK_ID, StartTask(1, "w1", 9), known=task)

    assert (done.events, store.loads) == ((TaskStarted(1, "w1", 9),), 0)


async def test_a_known_task_that_is_out_of_date_is_loaded(store: BusyStore):
    old = await submitted(store)
    await transact(store, TASK_ID, CancelTask())

    with pytest.raises(Rejection) as raised:
        await transact(store, TASK_ID, StartTask(1, "w1", 9), known=old)

    assert raised.value.code is RejectionCode.TASK_NOT_WAITING


async def test_commands_on_several_known_tasks_take_no_load(store: BusyStore):
    ids = [TASK_ID, TASK_ID[:-1] + "8"]
    tasks = [(await transact(store, i, SubmitTask(SUBMITTED))).task for i in ids]

    started = await transact_known(store, [(t, StartTask(1, "w1", 9)) for t in tasks], Meta("w1"))

    assert [await store.load(i) for i in ids] == started
    assert [t is not None and t.status for t in started] == [Status.PROCESSING] * 2
    assert decode_meta((await store.history(TASK_ID))[-1].meta).actor == "w1"


async def test_of_several_commands_those_that_cannot_be_leave_the_others_alone(store: BusyStore):
    ids = [TASK_ID[:-1] + digit for digit in "678"]
    moved_on, unfit, fit = [(await transact(store, i, SubmitTask(SUBMITTED))).task for i in ids]
    await transact(store, moved_on.id, CancelTask())
    wishes = [
        (moved_on, StartTask(1, "w1", 9)),
        (unfit, ReportProgress(5)),
        (fit, StartTask(1, "w1", 9)),
    ]

    changed = await transact_known(store, wishes, Meta())

    assert [task and task.id for task in changed] == [None, None, fit.id]
    assert [len(await store.history(i)) for i in ids] == [2, 1, 2]


async def test_of_several_commands_a_wish_that_holds_gives_the_task_as_it_is(store: BusyStore):
    task = (await transact(store, TASK_ID, SubmitTask(SUBMITTED))).task
    start = StartTask(1, "w1", 9)
    [running] = await transact_known(store, [(task, start)], Meta())
    assert running is not None

    assert await transact_known(store, [(running, start)], Meta()) == [running]
    assert len(await store.history(TASK_ID)) == 2


async def test_time_never_runs_backwards_within_a_task(store: BusyStore):
    await transact(store, TASK_ID, SubmitTask(SUBMITTED), now_ms=T0 + 500)

    done = await transact(store, TASK_ID, StartTask(1, "w1", 9), now_ms=T0)

    assert done.task.state.started_at == T0 + 500


async def test_a_retry_is_due_by_the_clock_whatever_an_earlier_event_says(store: BusyStore):
    ahead = T0 + 7_200_000
    await transact(store, TASK_ID, SubmitTask(SUBMITTED), now_ms=ahead)
    await transact(store, TASK_ID, StartTask(1, "w1", 9), now_ms=ahead)

    failed = FailAttempt(1, "no", ErrorKind.RETRYABLE, policy=RetryPolicy(base_ms=10))
    done = await transact(store, TASK_ID, failed, now_ms=T0)

    assert done.task.state.waiting_until == T0 + 10
    assert done.task.state.updated_at == ahead


async def test_a_full_queue_refuses_a_submission(store: BusyStore):
    await submitted(store)

    with pytest.raises(Rejection, match="document_processing:normal holds 1 tasks") as raised:
        await transact(store, TASK_ID[:-1] + "8", SubmitTask(SUBMITTED), queue_max=1)

    assert raised.value.code is RejectionCode.QUEUE_FULL
    assert raised.value.retryable


async def test_what_is_refused_changes_nothing(store: BusyStore):
    task = await submitted(store)

    with pytest.raises(Rejection) as raised:
        await transact(store, TASK_ID, ReportProgress(5))

    assert raised.value.code is RejectionCode.TASK_NOT_PROCESSING
    assert not raised.value.retryable
    assert await store.load(TASK_ID) == task
    assert task.status is Status.QUEUED


async def test_a_task_that_is_not_there_is_not_found(store: BusyStore):
    with pytest.raises(Rejection) as raised:
        await transact(store, TASK_ID, CancelTask())

    assert raised.value.code is RejectionCode.TASK_NOT_FOUND


async def traces(store: BusyStore) -> list[str]:
    return [decode_meta(event.meta).trace for event in await store.history(TASK_ID)]


async def test_what_happens_to_a_task_is_written_in_its_trace(store: BusyStore):
    submitted = await transact(store, TASK_ID, SubmitTask(a_submission(trace=TRACE)))
    [started] = await transact_known(
        store, [(submitted.task, StartTask(1, "w1", 15_000))], Meta(actor="w1")
    )
    await transact(store, TASK_ID, CancelTask(), meta=Meta(actor="anna"), known=started)

    assert await traces(store) == [TRACE] * 3
    actors = [decode_meta(event.meta).actor for event in await store.history(TASK_ID)]
    assert actors == ["", "w1", "anna"]


async def test_a_request_in_a_trace_of_its_own_is_written_in_that(store: BusyStore):
    await transact(store, TASK_ID, SubmitTask(a_submission(trace=TRACE)))
    await transact(store, TASK_ID, CancelTask(), meta=Meta(trace=OTHER_TRACE))

    assert await traces(store) == [TRACE, OTHER_TRACE]


async def test_after_a_retry_in_another_trace_events_are_written_in_that(store: BusyStore):
    await transact(store, TASK_ID, SubmitTask(a_submission(trace=TRACE)))
    await transact(store, TASK_ID, CancelTask())
    await transact(store, TASK_ID, RetryTask(OTHER_TRACE))
    await transact(store, TASK_ID, StartTask(1, "w1", 15_000))

    assert await traces(store) == [TRACE, TRACE, OTHER_TRACE, OTHER_TRACE]


async def test_a_task_without_a_trace_is_not_given_one(store: BusyStore):
    await transact(store, TASK_ID, SubmitTask(SUBMITTED), meta=Meta(actor="api"))
    await transact(store, TASK_ID, StartTask(1, "w1", 15_000), meta=Meta(actor="w1"))

    metas = [event.meta for event in await store.history(TASK_ID)]
    assert metas == [b'{"actor":"api"}', b'{"actor":"w1"}']
    [first, _] = await store.history(TASK_ID)
    assert b"trace" not in first.data
