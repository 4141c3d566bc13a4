"""The transition table: all of it is used, nothing else is let through."""

import runpy
from pathlib import Path
from typing import Final

import msgspec
import pytest
from hypothesis import given as for_all
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
from ledger.events import ErrorKind, Event
from ledger.evolve import evolve, initial
from ledger.rejections import Rejection
from ledger.task import Status, Task
from ledger.transact import apply
from ledger.transitions import (
    AFTER_THE_END,
    STATUS_AFTER,
    TRANSITIONS,
    IllegalTransition,
    next_status,
)
from tests.given import T0, TASK_ID, a_submission
from tests.strategies import commands

DOCS = Path(__file__).parents[2] / "docs"
KINDS: Final[tuple[type[Event], ...]] = tuple(Event.__args__)
Pair = tuple[Status | None, type[Event]]
ILLEGAL: Final = [
    (status, kind)
    for status in (None, *Status)
    for kind in KINDS
    if (status, kind) not in TRANSITIONS
]


def wishes(task: Task | None) -> list[Command]:
    """One command of each sort, addressed to the task as it is."""
    attempt = 0 if task is None else task.state.attempt
    ending = 0 if task is None else task.ending
    submission = a_submission(max_retries=0, schedule_for=T0, callback_url="http://h:1/")
    return [
        SubmitTask(submission),
        ReleaseTask(),
        StartTask(attempt + 1, "w", 1),
        ReportProgress(7),
        CompleteTask(attempt, msgspec.Raw(b"null")),
        FailAttempt(attempt, "boom", ErrorKind.RETRYABLE),
        AbandonAttempt(attempt, "stopping"),
        CancelTask(),
        RetryTask(),
        DeliverCallback(ending, "h:1", 200),
        FailCallback(ending, 1, "h:1", "no answer"),
        EraseTask("a request", {}),
    ]


def pairs_of(task: Task | None, events: tuple[Event, ...], now: int) -> set[Pair]:
    """The steps that `events` take; raises IllegalTransition where one cannot be."""
    pairs: set[Pair] = set()
    for event in events:
        pairs.add((None if task is None else task.status, type(event)))
        task = initial(TASK_ID, event, now) if task is None else evolve(task, event, now)
    return pairs


def test_every_legal_transition_is_reached_by_commands():
    reached: set[Pair] = set()
    frontier: list[Task | None] = [None]
    for step in range(6):
        now, following = T0 + step * 1_000_000, list[Task | None]()
        for task in frontier:
            for command in wishes(task):
                try:
                    events = decide(command, task, now)
                except Rejection:
                    continue
                if events:
                    reached |= pairs_of(task, events, now)
                    following.append(apply(TASK_ID, task, events, now))
        frontier = following

    assert reached == set(TRANSITIONS)


@pytest.mark.parametrize(("status", "kind"), ILLEGAL)
def test_every_other_transition_is_refused(status: Status | None, kind: type[Event]):
    with pytest.raises(IllegalTransition, match=kind.__name__):
        next_status(status, kind)


@for_all(st.data())
def test_commands_only_ever_make_legal_transitions_happen(data: st.DataObject):
    task, now = None, T0
    for _ in range(data.draw(st.integers(1, 12))):
        command = data.draw(commands(0 if task is None else task.state.attempt))
        now += data.draw(st.sampled_from([0, 60_000]))
        try:
            events = decide(command, task, now)
        except Rejection:
            continue
        assert pairs_of(task, events, now) <= set(TRANSITIONS)
        task = apply(TASK_ID, task, events, now) if events else task
        assert task is not None
        assert not (task.status is Status.RETRYING and task.state.waiting_until is None)


def test_the_diagram_in_the_docs_is_up_to_date():
    drawn = runpy.run_path(str(DOCS / "draw_transitions.py"))["drawn"]()

    assert (DOCS / "transitions.md").read_text() == drawn, "run python docs/draw_transitions.py"


def test_each_kind_of_event_leads_to_one_status_or_leaves_it_as_it_was():
    for (before, kind), status in TRANSITIONS.items():
        if kind in AFTER_THE_END:
            assert before is status
            assert kind.__name__ not in STATUS_AFTER
        else:
            assert STATUS_AFTER[kind.__name__] is status
