"""What estimates know of a type, from samples of what was measured."""

from typing import Any

from api.loads import GAP_MAX_S, RATE_ENDED_MIN, RECENT_ATTEMPTS_MIN, WINDOW_S, Sample, keep, loads
from ledger.events import Priority
from ledger.system.state import Pause, SystemState
from ledger.workers import WorkerReport, WorkerSeen, WorkerState
from projections.figures import BOUNDS_MS, NONE_WAITING, Figures
from projections.starts import Start

HEARD_AT = 1_000_000


def figures(ended: int, each_ms: int = 4, waiting: int = 0) -> Figures:
    """Attempts that all took a few ms, and tasks that wait."""
    others = len(BOUNDS_MS) - 1
    return Figures(
        (ended, *(0,) * others),
        (ended * each_ms, *(0,) * others),
        {**NONE_WAITING, Priority.NORMAL: waiting},
    )


def a_worker(name: str, *task_types: str, **said: Any) -> WorkerSeen:
    state = said.pop("state", WorkerState.IDLE)
    report = WorkerReport(name, "h1", 7, task_types, 4, 15_000, 0, **said)
    return WorkerSeen(report, HEARD_AT, state)


WORKERS = [a_worker("w1", "work")]


def sampled(*each: tuple[float, Figures]) -> list[Sample]:
    return [Sample(at_s, {"work": known}) for at_s, known in each]


def test_slots_are_those_of_workers_that_take_the_type():
    workers = [
        a_worker("w1", "work", running=3),
        a_worker("w2", "work", "other", running=4),
        a_worker("w3", "other"),
        a_worker("w4", "work", state=WorkerState.DRAINING),
        a_worker("w5", "gone", state=WorkerState.LOST),
    ]

    found = loads(sampled((0, figures(1))), workers, {})

    assert sorted(found) == ["other", "work"]
    assert (found["work"].slots, found["work"].free) == (8, 1)
    assert (found["other"].slots, found["other"].free) == (8, 4)
    assert found["other"].durations.mean_ms is None


def test_a_limit_of_the_type_bounds_its_slots():
    workers = [a_worker("w1", "work", "other", running=2, task_ids=("a", "b"))]
    starts = {"a": Start("work", HEARD_AT), "b": Start("other", HEARD_AT)}
    system = SystemState(type_limits={"work": 2})

    found = loads(sampled((0, figures(1))), workers, starts, system)

    assert (found["work"].slots, found["work"].free) == (2, 1)
    assert (found["other"].slots, found["other"].free) == (4, 2)


def test_a_pause_is_of_its_type_alone():
    system = SystemState(paused={"work": Pause(1)})

    found = loads(sampled((0, figures(1))), [a_worker("w1", "work", "other")], {}, system)

    assert (found["work"].paused, found["other"].paused) == (True, False)


def test_what_was_measured_lately_goes_before_what_ever_was():
    first, last = figures(1_000, each_ms=1), figures(1_000 + RECENT_ATTEMPTS_MIN, each_ms=1)
    slow = Figures(last.counts, (1_000 + RECENT_ATTEMPTS_MIN * 9, *last.sums_ms[1:]), NONE_WAITING)

    lately = loads(sampled((0, first), (9, slow)), WORKERS, {})["work"]
    ever = loads(sampled((9, slow)), WORKERS, {})["work"]

    assert lately.durations.mean_ms == 9
    assert ever.durations.mean_ms is not None
    assert 1 < ever.durations.mean_ms < 2


def test_a_rate_is_measured_while_something_waits_all_the_time():
    busy = [(float(s), figures(100 * s, waiting=5)) for s in range(5)]

    assert loads(sampled(*busy), WORKERS, {})["work"].rate == 0.1
    # Up to 4 s more were spent without anything to do.
    idle = [(0.0, figures(0)), *((s + 4.0, known) for s, known in busy)]
    assert loads(sampled(*idle), WORKERS, {})["work"].rate == 0.1


def test_a_queue_that_ran_empty_or_was_not_looked_at_has_no_rate():
    def rate(*each: tuple[float, Figures]) -> float | None:
        return loads(sampled(*each), WORKERS, {})["work"].rate

    first, last = (0.0, figures(0, waiting=5)), (5.0, figures(500, waiting=5))
    assert rate(first, (2.5, figures(250)), last) is None
    assert GAP_MAX_S < 5
    assert rate(first, last) is None
    few = figures(RATE_ENDED_MIN - 1, waiting=5)
    assert rate(first, (2.0, few), (4.0, few)) is None


def test_types_that_share_workers_are_rivals_while_they_wait():
    workers = [a_worker("w1", "work", "other", "idle")]
    known = {"work": figures(1), "other": figures(2, waiting=7), "idle": figures(2)}

    [rival] = loads([Sample(0, known)], workers, {})["work"].rivals

    assert (rival.waiting[Priority.NORMAL], rival.mean_ms) == (7, 4.0)


def test_attempts_that_fill_slots_end_by_what_such_attempts_took():
    first = figures(100)
    slow = Figures((*first.counts[:-2], 1, 0), (*first.sums_ms[:-2], 60_000, 0), NONE_WAITING)
    workers = [
        a_worker("w1", "work", "slow", running=4, task_ids=("a", "b", "c", "d")),
        a_worker("w2", "slow", running=1, task_ids=("e",)),
        a_worker("w3", "work", "slow", state=WorkerState.DRAINING, task_ids=("f",)),
    ]
    starts = {
        "a": Start("work", HEARD_AT - 60_000),  # longer than any before
        "b": Start("slow", HEARD_AT - 10_000),
        "c": Start("gone", HEARD_AT),
        "e": Start("slow", HEARD_AT - 90_000_000),
        "f": Start("work", HEARD_AT - 60_000),
    }

    found = loads([Sample(0, {"work": first, "slow": slow})], workers, starts)

    assert (found["work"].frees_at, found["work"].stuck) == ([HEARD_AT + 50_000], 1)
    assert (found["slow"].frees_at, found["slow"].stuck) == ([HEARD_AT + 50_000], 2)
    assert found["slow"].slots - found["slow"].free == 5


def test_samples_are_kept_for_the_window():
    samples: list[Sample] = []
    for second in range(200):
        samples = keep(samples, Sample(second, {"work": figures(second)}))

    assert samples[0].at_s == 199 - WINDOW_S
    assert len(samples) == WINDOW_S + 1


def test_counts_that_fall_begin_a_new_window():
    samples = keep([Sample(0, {"work": figures(10)})], Sample(1, {"work": figures(9)}))

    assert [s.at_s for s in samples] == [1]
