"""Groups of failures, and the tasks that a retry takes, equal what a brute-force fold says."""

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ledger.commands import CancelTask, FailAttempt, RetryTask, StartTask, SubmitTask
from ledger.events import ErrorKind
from ledger.identity import derived_id
from ledger.memory_store import MemoryStore
from ledger.retry_policy import RetryPolicy
from ledger.task import Status, Task
from ledger.transact import transact
from projections.dead_letters import (
    Failed,
    FailedTasks,
    FailureFilters,
    FailureGroup,
    FailureGroups,
    Further,
    failed_tasks,
    further_failed_tasks,
    list_groups,
)
from projections.read_model import transaction
from projections.retention import evict
from tests.given import a_submission
from tests.projections.brute_force import fingerprint_of
from tests.projections.ledgers import Clock, make_store, pauses
from tests.read_models import bring_level, read_model
from tests.strategies import TASK_TYPES

KBS = ("kb-a", "kb-b", "kb-c")
ABSENT = "absent"
ABSENT_ID = "00000000-0000-0000-0000-000000000000"
MESSAGES = ("timeout after 30 s", "timeout after 7 s", "no file '/a/b'", "no file '/c'", "")
TASKS_MAX = 12

T = TypeVar("T")


class Story(msgspec.Struct, frozen=True):
    """What becomes of a task: it fails so, after a pause, and is sent round again or not."""

    kb_id: str
    task_type: str
    message: str
    kind: ErrorKind
    pause_ms: int
    then: str


stories = st.lists(
    st.builds(
        Story,
        st.sampled_from(KBS),
        st.sampled_from(TASK_TYPES),
        st.sampled_from(MESSAGES),
        st.sampled_from(ErrorKind),
        pauses,
        st.sampled_from(["", "", "", "retried", "fails again", "canceled"]),
    ),
    max_size=TASKS_MAX,
)


async def tell(store: MemoryStore, clock: Clock, story: Story, number: int) -> str:
    """Have a task live through its story; its id."""
    task_id = derived_id("dead-letters", str(number))
    submission = a_submission(task_type=story.task_type, kb_id=story.kb_id, max_retries=0)
    await transact(store, task_id, SubmitTask(submission))
    fail = FailAttempt(1, story.message, story.kind, policy=RetryPolicy(base_ms=0))
    await transact(store, task_id, StartTask(1, "w1", 1))
    clock.ms += story.pause_ms
    await transact(store, task_id, fail)
    if story.then:
        await transact(store, task_id, RetryTask())
    if story.then == "canceled":
        await transact(store, task_id, CancelTask())
    if story.then == "fails again":
        clock.ms += story.pause_ms
        await transact(store, task_id, StartTask(2, "w1", 1))
        again = msgspec.structs.replace(fail, attempt=2, error_message="another one")
        await transact(store, task_id, again)
    return task_id


@contextlib.contextmanager
def told(told: Sequence[Story]) -> Generator[tuple[list[Task], sqlite3.Connection]]:
    """The tasks of stories, and a read model of them that was made half-way through them."""
    with tempfile.TemporaryDirectory() as folder:

        async def make() -> tuple[list[Task], sqlite3.Connection]:
            clock = Clock()
            store = make_store(1, clock)
            model = await read_model(store, Path(folder))
            ids: list[str] = []
            for number, story in enumerate(told):
                ids.append(await tell(store, clock, story, number))
                if number == len(told) // 2:
                    await bring_level(model, store)
            await bring_level(model, store)
            tasks = [await store.load(task_id) for task_id in ids]
            return [task for task in tasks if task is not None], model.db

        tasks, db = asyncio.run(make())
        try:
            yield tasks, db
        finally:
            db.close()


def failed_at(task: Task) -> int:
    assert task.state.completed_at is not None
    return task.state.completed_at


def matching(tasks: Sequence[Task], filters: FailureFilters) -> list[Task]:
    """The failed tasks that satisfy every filter, those first that failed first."""

    def matches(task: Task) -> bool:
        named = (
            (filters.kb_ids, task.submission.kb_id),
            (filters.task_types, task.submission.task_type),
            (filters.error_kinds, task.state.error_kind),
            (filters.fingerprints, fingerprint_of(task)),
        )
        bounds = (
            (filters.created_after, filters.created_before, task.state.created_at),
            (filters.failed_after, filters.failed_before, failed_at(task)),
        )
        return all(wanted is None or value in wanted for wanted, value in named) and all(
            (after is None or after < at) and (before is None or at < before)
            for after, before, at in bounds
        )

    failed = (task for task in tasks if task.status is Status.FAILED)
    return sorted(filter(matches, failed), key=lambda task: (failed_at(task), task.id))


def grouped(tasks: Sequence[Task]) -> list[FailureGroup]:
    """The groups of tasks that are in order of their failures."""
    groups: dict[bytes, list[Task]] = {}
    for task in tasks:
        found = fingerprint_of(task)
        assert found is not None
        groups.setdefault(found, []).append(task)
    found = [group_of(name, members) for name, members in groups.items()]
    return sorted(found, key=lambda group: (group.n, group.fingerprint), reverse=True)


def group_of(name: bytes, members: Sequence[Task]) -> FailureGroup:
    last = members[-1]
    assert last.state.error_kind is not None
    return FailureGroup(
        name,
        last.submission.task_type,
        last.state.error_kind,
        len(members),
        len({task.submission.kb_id for task in members}),
        failed_at(members[0]),
        failed_at(last),
        last.state.error_message,
        tuple(task.id for task in reversed(members[-3:])),
    )


def _some(values: Sequence[T]) -> st.SearchStrategy[tuple[T, ...] | None]:
    several = st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True).map(tuple)
    return st.none() | st.none() | several


def filters_of(tasks: Sequence[Task]) -> st.SearchStrategy[FailureFilters]:
    """Filters that some of the tasks may satisfy."""
    names = {fingerprint_of(task) for task in tasks}
    known = sorted(name for name in names if name is not None)
    ends = [t.state.completed_at for t in tasks if t.state.completed_at is not None]
    times = [t.state.created_at for t in tasks] + ends or [0]
    moment = st.none() | st.none() | st.sampled_from(times) | st.sampled_from(times).map(_before)
    return st.builds(
        FailureFilters,
        _some([*KBS, ABSENT]),
        _some([*TASK_TYPES, ABSENT]),
        _some(list(ErrorKind)),
        _some([b"\0" * 8, *known]),
        moment,
        moment,
        moment,
        moment,
    )


def _before(ms: int) -> int:
    return ms - 1


@given(told_of=stories, data=st.data())
def test_groups_and_tasks_are_those_of_the_fold(
    told_of: Sequence[Story], data: st.DataObject
) -> None:
    with told(told_of) as (tasks, db):
        for _ in range(6):
            filters = data.draw(filters_of(tasks))
            size = data.draw(st.integers(1, 4))
            found = matching(tasks, filters)
            expected = grouped(found)

            pages = [list_groups(db, filters, skip, size) for skip in range(0, TASKS_MAX + 1, size)]
            assert [group for page in pages for group in page.groups] == expected
            assert {(page.total, page.tasks) for page in pages} == {(len(expected), len(found))}

            first = failed_tasks(db, filters, size)
            known = [(task.id, task.version, fingerprint_of(task)) for task in found[:size]]
            assert [(f.id, f.version, f.fingerprint) for f in first.tasks] == known
            assert first.total == len(found)

            if first.tasks:
                last = first.tasks[-1]
                later = further_failed_tasks(db, filters, TASKS_MAX, Further(last))
                others = further_failed_tasks(db, filters, size, Further(last, (last.queue,)))
                assert [f.id for f in later] == [task.id for task in found[size:]]
                assert others == tuple(f for f in later if f.queue != last.queue)[:size]


FURTHER = Further(Failed(ABSENT_ID, 1, b"", 0, (1, 1)), without=((1, 1),))

QUESTIONS: dict[str, FailureFilters] = {
    "all": FailureFilters(),
    "a knowledge base": FailureFilters(kb_ids=KBS[:1]),
    "several": FailureFilters(kb_ids=KBS, error_kinds=(ErrorKind.TIMEOUT,)),
    "a type": FailureFilters(task_types=TASK_TYPES[:1]),
    "in time": FailureFilters(failed_after=0, failed_before=2**52),
    "created in time": FailureFilters(created_after=0, created_before=2**52),
    "in time and a knowledge base": FailureFilters(failed_after=0, kb_ids=KBS[:1]),
    "a fingerprint in time": FailureFilters(fingerprints=(b"\0" * 8,), failed_after=0),
}


def plans(db: sqlite3.Connection, question: Callable[[], Any]) -> set[str]:
    """What SQLite says of each statement that a question becomes."""
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    question()
    db.set_trace_callback(None)
    return {
        "; ".join(step[3] for step in db.execute(f"EXPLAIN QUERY PLAN {statement}"))
        for statement in statements
    }


def test_no_table_is_read_as_a_whole() -> None:
    story = Story(KBS[0], TASK_TYPES[0], MESSAGES[0], ErrorKind.TIMEOUT, 1, "")
    with told([story] * 3) as (_, db):
        for name, filters in QUESTIONS.items():
            asked: list[Callable[[], FailureGroups | FailedTasks | tuple[Failed, ...]]] = [
                lambda filters=filters: list_groups(db, filters, 0, 20),
                lambda filters=filters: failed_tasks(db, filters, 1_000),
                lambda filters=filters: further_failed_tasks(db, filters, 9, FURTHER),
            ]
            for question in asked:
                for plan in plans(db, question):
                    steps = plan.split("; ")
                    scans = [s for s in steps if s.startswith("SCAN") and "USING" not in s]
                    # What an inner question found is gone through, and that alone.
                    assert all("subquery" in scan for scan in scans), (name, plan)


def test_a_task_is_told_with_the_version_at_which_it_failed() -> None:
    story = Story(KBS[0], TASK_TYPES[0], MESSAGES[0], ErrorKind.PERMANENT, 1, "fails again")
    with told([story]) as ([task], db):
        [failed] = failed_tasks(db, FailureFilters(), 10).tasks

    assert (failed.id, failed.version, failed.fingerprint) == (
        task.id,
        task.version,
        fingerprint_of(task),
    )
    assert failed.failed_at == task.state.completed_at


def test_tasks_that_leave_the_read_model_leave_their_groups() -> None:
    early = Story(KBS[0], TASK_TYPES[0], MESSAGES[0], ErrorKind.TIMEOUT, 1, "")
    late = msgspec.structs.replace(early, kb_id=KBS[1], pause_ms=1_000)
    with told([early, early, late]) as (tasks, db):
        with transaction(db):
            assert evict(db, failed_at(tasks[2])) == 2
        left = list_groups(db, FailureFilters(), 0, 9)
        of_kbs = [list_groups(db, FailureFilters(kb_ids=(kb,)), 0, 9).tasks for kb in KBS[:2]]
        with transaction(db):
            evict(db, 2**52)
        rows = db.execute("SELECT count(*) FROM failure_groups").fetchone()

    assert list(left.groups) == grouped(tasks[2:])
    assert of_kbs == [0, 1]
    assert rows == (0,)
