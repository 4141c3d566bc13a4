"""When a task will be finished: what the formula promises whatever was measured."""

from typing import Any

from hypothesis import given as for_all
from hypothesis import strategies as st

from api.estimate import Durations, Load, Rival, completion_ms
from ledger.events import (
    AttemptFailed,
    ErrorKind,
    Event,
    Priority,
    RetryScheduled,
    TaskCompleted,
    TaskStarted,
)
from ledger.task import Task
from tests.contracts.store import RESULT
from tests.given import T0, a_submission, given

NOW = T0 + 60_000
BOUNDS = (100.0, 1_000.0, 10_000.0, float("inf"))
NONE = dict.fromkeys(Priority, 0)
SUBMITTED = a_submission()
STARTED = TaskStarted(1, "w1", 15_000)
FAILED = AttemptFailed(1, "boom", ErrorKind.RETRYABLE)


def a_task(*events: Event) -> Task:
    task = given(*events).task
    assert task is not None
    return task


def took(*attempts_ms: int) -> Durations:
    """The histogram of so many attempts."""
    counts, sums = [0] * len(BOUNDS), [0] * len(BOUNDS)
    for ms in attempts_ms:
        bucket = next(i for i, bound in enumerate(BOUNDS) if ms <= bound)
        counts[bucket] += 1
        sums[bucket] += ms
    return Durations(BOUNDS, counts, sums)


def a_load(durations: Durations, **others: Any) -> Load:
    """Two slots, both taken, unless a test says otherwise."""
    fields: dict[str, Any] = {"slots": 2, "free": 0, "waiting": NONE, **others}
    return Load(durations, **fields)


waiting = st.fixed_dictionaries({p: st.integers(0, 1_000_000) for p in Priority})
durations = st.lists(st.integers(0, 100_000), max_size=20).map(lambda ms: took(*ms))
load_strategy = st.builds(
    Load,
    durations,
    slots=st.integers(0, 100),
    free=st.integers(0, 100),
    waiting=waiting,
    rate=st.none() | st.floats(1e-6, 10),
    rivals=st.lists(st.builds(Rival, waiting, st.floats(0, 1e5)), max_size=3),
    frees_at=st.lists(st.floats(NOW - 100_000, NOW + 10**6), max_size=5).map(sorted),
    stuck=st.integers(0, 5),
)
histories = st.sampled_from(
    [
        (SUBMITTED,),
        (a_submission(schedule_for=NOW + 90_000),),
        (a_submission(schedule_for=NOW - 90_000),),
        (SUBMITTED, STARTED),
        (SUBMITTED, STARTED, FAILED, RetryScheduled(NOW + 500, 1)),
        (SUBMITTED, STARTED, TaskCompleted(1, RESULT)),
    ]
)


@for_all(histories, st.integers(0, 10**6), load_strategy, st.integers(-100_000, 10**6))
def test_an_estimate_is_never_in_the_past_and_never_made_up(
    history: tuple[Event, ...], position: int, load: Load, later_ms: int
):
    task, now = a_task(*history), NOW + later_ms

    told = completion_ms(task, position, load, now)

    if task.finished or not load.slots or not load.durations.count:
        assert told is None
    elif told is not None:
        assert told >= now
        assert told >= (task.state.waiting_until or 0)
    else:
        assert task.state.status == "processing" or load.stuck >= load.slots - load.free


@for_all(st.integers(1, 10**6), st.integers(0, 10**6), load_strategy)
def test_who_is_further_behind_is_not_finished_earlier(position: int, more: int, load: Load):
    task = a_task(SUBMITTED)

    sooner = completion_ms(task, position, load, NOW)
    later = completion_ms(task, position + more, load, NOW)

    assert (sooner is None) == (later is None)
    if sooner is not None and later is not None:
        assert sooner <= later


def test_a_task_that_meets_a_free_slot_takes_the_mean():
    assert completion_ms(a_task(SUBMITTED), 2, a_load(took(400, 600), free=2), NOW) == NOW + 500


def test_a_task_in_a_queue_waits_for_as_many_ends_as_are_ahead():
    # Two slots, 500 ms each: an end every 250 ms.
    load = a_load(took(400, 600))

    assert completion_ms(a_task(SUBMITTED), 1, load, NOW) == NOW + 250 + 500
    assert completion_ms(a_task(SUBMITTED), 10, load, NOW) == NOW + 2_500 + 500


def test_a_measured_rate_goes_before_what_slots_promise():
    load = a_load(took(500), rate=0.001)

    assert completion_ms(a_task(SUBMITTED), 10, load, NOW) == NOW + 10_000 + 500


def test_nobody_knows_when_slots_free_up_whose_attempts_take_longer_than_any_before():
    short = took(*[2] * 5_000)
    waits, later = a_task(SUBMITTED), a_task(a_submission(schedule_for=NOW + 1_000))
    full = a_load(short, slots=4, stuck=4)

    assert [completion_ms(waits, p, full, NOW) for p in (1, 4, 99)] == [None] * 3
    assert completion_ms(later, 0, full, NOW) is None
    assert completion_ms(waits, 4, a_load(short, slots=4, stuck=4, rate=0.1), NOW) is None
    # Those that go on take what waits, by themselves.
    assert completion_ms(waits, 4, a_load(took(500), slots=4, stuck=3), NOW) == NOW + 2_000 + 500
    assert completion_ms(waits, 1, a_load(took(500), slots=4, stuck=3, free=1), NOW) == NOW + 500


def test_slots_of_long_attempts_are_waited_for():
    # Both slots are taken for another minute, by tasks of another type perhaps.
    load = a_load(took(500), frees_at=(NOW + 60_000.0, NOW + 61_000.0))

    told = [completion_ms(a_task(SUBMITTED), p, load, NOW) for p in (1, 2, 3, 5)]

    assert told == [NOW + wait + 500 for wait in (60_000, 60_500, 60_750, 61_250)]
    paced = a_load(took(500), frees_at=(NOW + 60_000.0, NOW + 61_000.0), rate=1.0)
    assert completion_ms(a_task(SUBMITTED), 1, paced, NOW) == NOW + 59_500 + 500


def test_a_slot_that_is_as_good_as_free_takes_its_share():
    usual = a_load(took(500))
    ending = a_load(took(500), frees_at=(NOW - 10.0, NOW + 400.0))

    for position in (1, 2, 7):
        told = [completion_ms(a_task(SUBMITTED), position, load, NOW) for load in (usual, ending)]
        assert told[0] == told[1]


def test_other_types_take_their_turns():
    rival = Rival({**NONE, Priority.HIGH: 3, Priority.NORMAL: 50, Priority.LOW: 99}, 1_000.0)
    load = a_load(took(500), rivals=[rival])

    # 4 of its own, 3 more urgent ones and, in turn, 4 as urgent ones.
    assert completion_ms(a_task(SUBMITTED), 4, load, NOW) == NOW + (4 * 500 + 7_000) // 2 + 500


def test_a_task_for_later_starts_no_earlier_and_then_at_the_end_of_the_queue():
    later = a_task(a_submission(schedule_for=NOW + 1_000))
    long = {**NONE, Priority.NORMAL: 99, Priority.LOW: 1_000}

    assert completion_ms(later, 0, a_load(took(500)), NOW) == NOW + 1_000 + 500
    assert completion_ms(later, 0, a_load(took(500), waiting=long), NOW) == NOW + 25_000 + 500


def test_a_running_task_takes_as_long_as_those_that_took_longer():
    started_at = T0 + 1_000
    task, load = a_task(SUBMITTED, STARTED), a_load(took(50, 50, 8_000, 9_000))

    at = [completion_ms(task, 0, load, started_at + elapsed) for elapsed in (0, 60, 200, 5_000)]

    assert at[0] == started_at + 17_100 // 4
    # Of the bucket up to 100 ms, 80 % count at 60 ms already, since its mean is passed.
    assert at[1] is not None
    assert started_at + 4_275 < at[1] < started_at + 8_500
    assert at[2] == at[3] == started_at + 8_500


def test_a_task_that_runs_longer_than_any_before_has_no_estimate():
    task, load = a_task(SUBMITTED, STARTED), a_load(took(50, 60))

    assert completion_ms(task, 0, load, T0 + 1_000 + 101) is None


def test_while_its_type_is_paused_only_a_running_task_has_an_estimate():
    load = a_load(took(50, 60), free=2, paused=True)
    waiting, retrying = (
        a_task(SUBMITTED),
        a_task(SUBMITTED, STARTED, FAILED, RetryScheduled(NOW, 1)),
    )

    assert completion_ms(waiting, 1, load, NOW) is None
    assert completion_ms(retrying, 0, load, NOW) is None
    assert completion_ms(a_task(SUBMITTED, STARTED), 0, load, T0 + 1_010) is not None
