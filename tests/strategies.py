"""Hypothesis strategies: submissions, commands, and lives of tasks."""

import json
from functools import cache
from typing import Any

import msgspec
from hypothesis import strategies as st

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
from ledger.events import ErrorKind, Event, Priority, TaskSubmitted
from ledger.rejections import Rejection
from ledger.retry_policy import RetryPolicy
from ledger.task import Task
from ledger.transact import apply
from tests.given import OTHER_TRACE, T0, TASK_ID, TRACE

TASK_TYPES = ("document_processing", "health_check")
WORKERS = ("w1", "w2")

texts = st.text(max_size=12)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
_spellings = st.sampled_from(
    [
        {"separators": (",", ":"), "ensure_ascii": False},
        {"separators": (", ", ": "), "ensure_ascii": True},
        {"indent": 1, "ensure_ascii": False},
    ]
)


def _spelled(value: Any, spelling: dict[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value, **spelling).encode())


json_values = st.builds(_spelled, _values, _spellings)
"""Any JSON, in any spelling: spaces, line ends and escapes are the caller's own."""

json_objects = st.builds(_spelled, st.dictionaries(texts, _values, max_size=3), _spellings)

some_json = st.sampled_from(
    [msgspec.Raw(text.encode()) for text in ("{}", '{"a": [1, 2.50,\n null]}', '{"\\u00e9":"é"}')]
)
"""A few spellings, quickly drawn, where the JSON is not what a test is about."""

times = st.integers(T0, T0 + 60_000)

submissions = st.builds(
    TaskSubmitted,
    task_type=st.sampled_from(TASK_TYPES),
    kb_id=st.text(min_size=1, max_size=12),
    payload=some_json,
    priority=st.sampled_from(Priority),
    max_retries=st.integers(0, 2),
    timeout_s=st.integers(1, 86_400),
    schedule_for=st.none() | times,
    callback_url=st.none() | st.just("http://localhost/done"),
    metadata=st.just(msgspec.Raw(b"")) | some_json,
    body_sha256=st.sampled_from(["", "a1", "b2"]),
    trace=st.sampled_from(["", TRACE]),
)

policies = st.builds(
    RetryPolicy,
    base_ms=st.integers(0, 1_000),
    cap_ms=st.integers(1_000, 10_000),
    factor=st.floats(1, 10),
    spread=st.floats(0, 1),
)


@cache
def commands(attempt: int, ending: int = 0) -> st.SearchStrategy[Command]:
    """Any command; those of workers mostly of the attempts around `attempt`, those of callbacks
    mostly about the end that was reached with version `ending`."""
    endings = st.sampled_from([ending, ending, ending, ending + 1])
    attempts = st.sampled_from([attempt, attempt, attempt + 1, max(attempt - 1, 0)])
    return st.one_of(
        st.builds(SubmitTask, submissions),
        st.just(ReleaseTask()),
        st.builds(
            StartTask, st.just(attempt + 1), st.sampled_from(WORKERS), st.integers(0, 60_000)
        ),
        st.builds(StartTask, attempts, st.sampled_from(WORKERS), st.integers(0, 60_000)),
        st.builds(ReportProgress, st.integers(0, 100), texts, st.none() | attempts),
        st.builds(CompleteTask, attempts, some_json),
        st.builds(
            FailAttempt,
            attempts,
            texts,
            st.sampled_from(ErrorKind),
            st.floats(0, 1, exclude_max=True),
            policies,
            st.none() | st.sampled_from([0, 1_000, 60_000]),
        ),
        st.builds(AbandonAttempt, attempts, texts),
        st.builds(CancelTask, texts),
        st.sampled_from([RetryTask(), RetryTask(OTHER_TRACE)]),
        st.builds(DeliverCallback, endings, st.just("localhost:80"), st.just(204)),
        st.builds(
            FailCallback,
            endings,
            st.integers(1, 3),
            st.just("localhost:80"),
            texts,
            st.none() | st.just(503),
            st.booleans(),
            st.none() | st.just(120_000),
            policy=policies,
            lasts_ms=st.integers(0, 100_000),
        ),
        st.just(EraseTask("a request", {"1": "00" * 32})),
    )


class Life(msgspec.Struct, frozen=True):
    """A task, and the history of (event, at) that made it."""

    task: Task
    history: tuple[tuple[Event, int], ...]

    @property
    def now(self) -> int:
        return self.task.state.updated_at


@st.composite
def lives(draw: st.DrawFn, steps_max: int = 10) -> Life:
    """A legal life: a submission, then whatever random commands were allowed to make happen."""
    now = draw(times)
    submission = draw(submissions)
    task = apply(TASK_ID, None, (submission,), now)
    history: list[tuple[Event, int]] = [(submission, now)]
    for _ in range(draw(st.integers(0, steps_max))):
        now += draw(st.sampled_from([0, 1, 60_000]))
        command = draw(commands(task.state.attempt, task.ending))
        try:
            events = decide(command, task, now)
        except Rejection:
            continue
        if events:
            task = apply(TASK_ID, task, events, now)
            history += ((event, now) for event in events)
    return Life(task, tuple(history))
