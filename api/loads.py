"""What estimates need to know of each task type, from what was measured lately: pure functions.

The figures are sampled now and then. What the last minute's samples say is preferred to what ever
was, where it is enough to go by.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from api.estimate import Durations, Load, Rival
from ledger.system.state import INITIAL, SystemState
from ledger.workers import WorkerSeen
from projections.figures import BOUNDS_MS, NO_FIGURES, Figures
from projections.starts import Start

WINDOW_S: Final = 60.0
"""How far back samples count."""

RECENT_ATTEMPTS_MIN: Final = 30
"""Fewer attempts in the window are too few: all that ever were count then."""

GAP_MAX_S: Final = 3.0
"""Between two samples further apart, queues may have run empty unseen."""

RATE_SPAN_MIN_S: Final = 3.0
RATE_ENDED_MIN: Final = 20
"""A rate takes so long, and so many ends, to be measured."""


class Sample(msgspec.Struct, frozen=True):
    """The figures of every type at a time, in seconds of a steady clock."""

    at_s: float
    figures: Mapping[str, Figures]


def keep(samples: Sequence[Sample], new: Sample) -> list[Sample]:
    """The samples of the window, `new` included. Counts that fall mean another read model: what
    was before cannot be compared with it."""
    before: Mapping[str, Figures] = samples[-1].figures if samples else {}
    if any(new.figures.get(name, NO_FIGURES).ended < old.ended for name, old in before.items()):
        return [new]
    return [s for s in samples if new.at_s - s.at_s <= WINDOW_S] + [new]


def loads(
    samples: Sequence[Sample],
    workers: Sequence[WorkerSeen],
    starts: Mapping[str, Start],
    system: SystemState = INITIAL.state,
) -> dict[str, Load]:
    """By type, of every type that some worker takes tasks of. `starts`, by task id, is of what
    they run; what is not in it counts as just begun. `system` has what is paused and limited."""
    taking = [w for w in workers if w.takes_tasks]
    types = {name for w in taking for name in w.report.task_types}
    durations = {name: _durations(name, samples) for name in types}
    ends = {w.report.id: _ends(w, starts, durations) for w in taking}
    found = {name: _load(name, samples, taking, durations, ends) for name in types}
    return {name: _held_back(name, load, starts, system) for name, load in found.items()}


def _held_back(name: str, load: Load, starts: Mapping[str, Start], system: SystemState) -> Load:
    """The load under a pause and a limit of its type."""
    limit = system.type_limits.get(name)
    if limit is not None:
        running = sum(start.task_type == name for start in starts.values())
        free = max(0, min(load.free, limit - running))
        load = replace(load, slots=min(load.slots, limit), free=free)
    return replace(load, paused=True) if name in system.paused else load


def _load(
    name: str,
    samples: Sequence[Sample],
    taking: Sequence[WorkerSeen],
    durations: Mapping[str, Durations],
    ends: Mapping[str, Sequence[float | None]],
) -> Load:
    serving = [w.report for w in taking if name in w.report.task_types]
    figures = samples[-1].figures
    ends_here = [end for report in serving for end in ends[report.id]]
    rivals = {other for report in serving for other in report.task_types} - {name}
    return Load(
        durations[name],
        sum(report.concurrency for report in serving),
        sum(max(0, report.concurrency - report.running) for report in serving),
        figures.get(name, NO_FIGURES).waiting,
        _rate(name, samples),
        [
            Rival(figures[other].waiting, durations[other].mean_ms or 0.0)
            for other in sorted(rivals)
            if other in figures and any(figures[other].waiting.values())
        ],
        sorted(end for end in ends_here if end is not None),
        ends_here.count(None),
    )


def _ends(
    worker: WorkerSeen, starts: Mapping[str, Start], durations: Mapping[str, Durations]
) -> list[float | None]:
    """When what the worker runs is likely to end, in ms; None: it takes longer than any before.

    What counts is how long it had run by the worker's last report: whether it still runs now, or
    how far the read model is behind, nobody knows.
    """
    found: list[float | None] = []
    for start in (starts[i] for i in worker.report.task_ids if i in starts):
        if start.task_type in durations:
            elapsed_ms = max(0, worker.last_heartbeat - start.at_ms)
            mean_ms = durations[start.task_type].mean_beyond_ms(elapsed_ms)
            found.append(None if mean_ms is None else start.at_ms + mean_ms)
    return found


def _durations(name: str, samples: Sequence[Sample]) -> Durations:
    first, last = (s.figures.get(name, NO_FIGURES) for s in (samples[0], samples[-1]))
    if last.ended - first.ended < RECENT_ATTEMPTS_MIN:
        first = NO_FIGURES
    return Durations(
        BOUNDS_MS,
        [now - then for now, then in zip(last.counts, first.counts, strict=True)],
        [now - then for now, then in zip(last.sums_ms, first.sums_ms, strict=True)],
    )


def _rate(name: str, samples: Sequence[Sample]) -> float | None:
    """Ends per ms in the latest stretch of samples that all had tasks of the type waiting."""
    last = first = samples[-1]
    for sample in reversed(samples):
        waiting = any(sample.figures.get(name, NO_FIGURES).waiting.values())
        if not waiting or first.at_s - sample.at_s > GAP_MAX_S:
            break
        first = sample
    span_s = last.at_s - first.at_s
    if span_s < RATE_SPAN_MIN_S:
        return None
    ended = last.figures[name].ended - first.figures[name].ended
    return ended / (span_s * 1_000) if ended >= RATE_ENDED_MIN else None
