"""One checker for each promise: from the evidence to what is wrong with it, in words."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from ledger.events import (
    AttemptFailed,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskStarted,
    TaskSubmitted,
)
from ledger.evolve import evolve, initial
from ledger.identity import SYSTEM
from ledger.store import Recorded
from ledger.system.events import LimitSet, QueuePaused, QueueResumed
from ledger.task import Status, Task
from ledger.transitions import IllegalTransition, next_status
from tests.faults.campaign.evidence import Evidence, Run, Sent, by_task
from tests.faults.campaign.plan import VALKEY

FINALS: Final = frozenset(kind.__name__ for kind in (TaskCompleted, TaskFailed, TaskCanceled))


def nothing_lost(evidence: Evidence) -> Iterator[str]:
    """What was acknowledged is there, and came to its end; a canceled task was not completed."""
    tasks = _tasks(evidence)
    for task_id, at in evidence.acknowledged.items():
        if not evidence.may_be_lost(at) and task_id not in tasks:
            yield f"{task_id} was acknowledged, and is not there"
    for task_id, events in tasks.items():
        if not any(event.type in FINALS for event in events):
            yield f"{task_id} never ends: {[event.type for event in events]}"
    for task_id, at in evidence.canceled.items():
        ends = [event.type for event in tasks.get(task_id, ()) if event.type in FINALS]
        if not evidence.may_be_lost(at) and ends != [TaskCanceled.__name__]:
            yield f"{task_id}: the cancel was acknowledged, and it ended with {ends}"


def as_submitted(evidence: Evidence) -> Iterator[str]:
    """Every task is what its client submitted, and there is none that nobody submitted. (Clients
    go on until each of theirs is acknowledged.)"""
    for task_id, events in _tasks(evidence).items():
        sent = evidence.sent.get(task_id)
        match events[0].event():
            case TaskSubmitted() as event:
                kept = Sent(event.kb_id, event.task_type, event.priority, bytes(event.payload))
                if kept != sent:
                    yield f"{task_id} was submitted as {sent}, and is kept as {kept}"
            case _:
                yield f"{task_id} begins with {events[0].type}"


def one_final_state(evidence: Evidence) -> Iterator[str]:
    """No task ends twice. (Nothing here retries by hand.)"""
    for task_id, events in _tasks(evidence).items():
        ends = [event.type for event in events if event.type in FINALS]
        if len(ends) > 1:
            yield f"{task_id} ends {len(ends)} times: {ends}"


def contiguous_versions(evidence: Evidence) -> Iterator[str]:
    """Every event has the next version, and names the one before it."""
    for task_id, events in by_task(evidence.events).items():
        versions = [event.version for event in events]
        if versions != list(range(1, len(events) + 1)):
            yield f"{task_id} has the versions {versions}"
        prevs = [event.prev for event in events]
        if prevs != ["", *(event.position.entry for event in events[:-1])]:
            yield f"{task_id}: an event does not name the one before it"


def legal_transitions(evidence: Evidence) -> Iterator[str]:
    """Every event may follow the one before it."""
    for task_id, events in _tasks(evidence).items():
        status: Status | None = None
        try:
            for event in events:
                status = next_status(status, type(event.event()))
        except IllegalTransition as error:
            yield f"{task_id}: {error}"


def snapshots_are_folds(evidence: Evidence) -> Iterator[str]:
    """What is kept of a task is what its events make."""
    for task_id, events in _tasks(evidence).items():
        try:
            task = _folded(task_id, events)
        except IllegalTransition:
            continue  # said by another
        if evidence.snapshots[task_id] != task:
            yield f"the snapshot of {task_id} is not the fold of its events"


def results_are_of_runs(evidence: Evidence) -> Iterator[str]:
    """A completed task's result is what the handler's own log says that this attempt returned."""
    runs = {run.name: run for run in evidence.runs}
    for task_id, events in _tasks(evidence).items():
        attempt = 0
        for recorded in events:
            match recorded.event():
                case TaskStarted() as started:
                    attempt = started.attempt
                case TaskCompleted() as completed:
                    run = runs.get(msgspec.json.decode(completed.result))
                    if run is None or (run.task_id, run.attempt) != (task_id, attempt):
                        yield f"{task_id} completed attempt {attempt} with the result of {run}"
                    elif not run.ended:
                        yield f"{task_id} completed attempt {attempt}, which never ended"
                case _:
                    pass


def no_overlap(evidence: Evidence) -> Iterator[str]:
    """An attempt is at work beside a later one for `evidence.overlap_s` at most, or for as long
    after a fault that kept its worker from hearing of it."""
    bound_s = evidence.overlap_s
    runs: dict[str, list[Run]] = {}
    for run in evidence.runs:
        if evidence.may_be_lost(run.began):
            continue  # that it began may be forgotten: then the attempt happens again
        runs.setdefault(run.task_id, []).append(run)
    for task_id, of_task in runs.items():
        for earlier in of_task:
            later = [r.began for r in of_task if r.attempt > earlier.attempt]
            if any(r is not earlier and r.attempt == earlier.attempt for r in of_task):
                yield f"attempt {earlier.attempt} of {task_id} was run twice"
            excused_until = _excused_until(evidence, earlier.role, min(later, default=0.0))
            if later and earlier.last > excused_until + bound_s:
                beside_s = earlier.last - min(later)
                yield f"attempt {earlier.attempt} of {task_id} ran on for {beside_s:.1f} s"


def _excused_until(evidence: Evidence, role: str, since: float) -> float:
    """When the last fault was over that kept a worker from hearing of what happened at `since`: one
    that began before it had to have heard, as far as those before it excuse."""
    targets, until = {role, VALKEY}, since
    for fault in sorted(evidence.faults, key=lambda fault: fault.began):
        if fault.target in targets and fault.began <= until + evidence.overlap_s:
            until = max(until, fault.over)
    return until


def limits_hold(evidence: Evidence) -> Iterator[str]:
    """No more run at once than a limit lets. (Those of these runs are set before anything runs,
    and raised at most.)"""
    limits: dict[str, int] = {}
    names: dict[str, tuple[str, str]] = {}
    running: dict[str, tuple[str, str]] = {}
    for recorded in evidence.events:
        if recorded.of_system:
            match recorded.system_event():
                case LimitSet(scope, name, limit):
                    limits[f"{scope}:{name}"] = limit
                case _:
                    pass
            continue
        match recorded.event():
            case TaskSubmitted() as event:
                names[recorded.task_id] = (f"type:{event.task_type}", f"kb:{event.kb_id}")
            case TaskStarted():
                running[recorded.task_id] = names.get(recorded.task_id, ("", ""))
                for name in running[recorded.task_id]:
                    count = sum(name in of_task for of_task in running.values())
                    if count > limits.get(name, count):
                        yield f"{count} of {name} run at {recorded.position}, of {limits[name]}"
            case AttemptFailed() | TaskCompleted() | TaskFailed() | TaskCanceled():
                running.pop(recorded.task_id, None)
            case _:
                pass


def pauses_hold(evidence: Evidence) -> Iterator[str]:
    """Once its worker can have learned of it, nothing of a paused type is started."""
    paused: dict[str, float] = {}
    types: dict[str, str] = {}
    roles = {(run.task_id, run.attempt): run.role for run in evidence.runs}
    for recorded in evidence.events:
        if recorded.of_system:
            match recorded.system_event():
                case QueuePaused(task_type):
                    paused[task_type] = recorded.at / 1000 - evidence.clock_s
                case QueueResumed(task_type):
                    paused.pop(task_type, None)
                case _:
                    pass
            continue
        match recorded.event():
            case TaskSubmitted() as event:
                types[recorded.task_id] = event.task_type
            case TaskStarted() as event:
                since = paused.get(types.get(recorded.task_id, ""))
                role = roles.get((recorded.task_id, event.attempt))
                started = recorded.at / 1000 - evidence.clock_s
                if since is None or role is None:
                    continue
                if started > _excused_until(evidence, role, since) + evidence.learned_s:
                    yield f"{recorded.task_id} was started {started - since:.1f} s after a pause"
            case _:
                pass


def projections_equal_a_rebuild(evidence: Evidence) -> Iterator[str]:
    """The read model that was kept through all this is what a rebuild makes."""
    yield from evidence.rebuild_differences


def all_as_planned(evidence: Evidence) -> Iterator[str]:
    """No role ended by itself, and what had to be noticed was."""
    yield from evidence.oddities


CHECKERS: Final[tuple[Callable[[Evidence], Iterator[str]], ...]] = (
    nothing_lost,
    as_submitted,
    one_final_state,
    contiguous_versions,
    legal_transitions,
    snapshots_are_folds,
    results_are_of_runs,
    no_overlap,
    limits_hold,
    pauses_hold,
    projections_equal_a_rebuild,
    all_as_planned,
)


def judge(evidence: Evidence) -> dict[str, list[str]]:
    """What each checker found, by its name; those that found nothing are left out."""
    found = {checker.__name__: list(checker(evidence)) for checker in CHECKERS}
    return {name: wrong for name, wrong in found.items() if wrong}


def _tasks(evidence: Evidence) -> Mapping[str, list[Recorded]]:
    return {
        task_id: events for task_id, events in by_task(evidence.events).items() if task_id != SYSTEM
    }


def _folded(task_id: str, events: list[Recorded]) -> Task:
    task = initial(task_id, events[0].event(), events[0].at)
    for recorded in events[1:]:
        task = evolve(task, recorded.event(), recorded.at)
    return task
