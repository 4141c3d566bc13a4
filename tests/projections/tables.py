"""What the tables of a read model must hold, told from whole tasks: slowly, and in plain words.

Names are resolved on both sides, since the numbers that they get depend on who comes first.
"""

import bisect
import sqlite3
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from ledger.codec import encode
from ledger.events import ErrorKind, Priority
from ledger.evolve import evolve, initial
from ledger.placement import Due, Leased, Ready, placement
from ledger.store import Recorded
from ledger.task import Status, Task
from projections.stats import BUCKETS_S
from tests.projections.brute_force import fingerprint_of

HOUR_MS = 3_600_000
Rows = list[tuple[Any, ...]]
STATUSES = list(Status)
PRIORITIES = list(Priority)
ERROR_KINDS = list(ErrorKind)

QUERIES = {
    "tasks": """
        SELECT t.id, version, kb.name, kind.name, priority, status, coalesce(worker.name, ''),
               created_at, updated_at, started_at, completed_at, state
        FROM tasks t JOIN names kb ON kb.no = t.kb JOIN names kind ON kind.no = t.task_type
        LEFT JOIN names worker ON worker.no = t.worker""",
    "submissions": "SELECT id, submission FROM submissions",
    "errors": """
        SELECT t.id, kb.name, kind.name, priority, status, coalesce(worker.name, ''),
               created_at, updated_at, started_at, completed_at, error_kind, fingerprint, message
        FROM errors t JOIN names kb ON kb.no = t.kb JOIN names kind ON kind.no = t.task_type
        LEFT JOIN names worker ON worker.no = t.worker""",
    "failure_groups": """
        SELECT coalesce(kb.name, ''), fingerprint, kind.name, error_kind, n FROM failure_groups t
        LEFT JOIN names kb ON kb.no = t.kb JOIN names kind ON kind.no = t.task_type""",
    "counts": """
        SELECT coalesce(kb.name, ''), hour, kind.name, priority, status, n FROM counts t
        LEFT JOIN names kb ON kb.no = t.kb JOIN names kind ON kind.no = t.task_type""",
    "stats": """
        SELECT coalesce(kb.name, ''), hour, kind.name, priority, status, n, process_ms FROM stats t
        LEFT JOIN names kb ON kb.no = t.kb JOIN names kind ON kind.no = t.task_type""",
    "outcomes": """
        SELECT kind.name, outcome, n FROM outcomes t JOIN names kind ON kind.no = t.task_type""",
    "histograms": """
        SELECT measure, kind.name, bucket, n, sum_ms FROM histograms t
        JOIN names kind ON kind.no = t.task_type""",
    "queues": """
        SELECT kind.name, priority, ready, delayed, processing FROM queues t
        JOIN names kind ON kind.no = t.task_type WHERE ready + delayed + processing > 0""",
    "ready": """
        SELECT kind.name, priority, since, id FROM ready t
        JOIN names kind ON kind.no = t.task_type""",
}


def tables_of(db: sqlite3.Connection) -> dict[str, Rows]:
    """Every table of a read model, sorted."""
    return {name: sorted(db.execute(query), key=repr) for name, query in QUERIES.items()}


def expected_tables(events: Iterable[Recorded]) -> dict[str, Rows]:
    """The same, as the events of a whole ledger make them."""
    found: dict[str, Rows] = {name: [] for name in QUERIES}
    tasks: dict[str, Task] = {}
    outcomes: Counter[tuple[str, str]] = Counter()
    durations: dict[tuple[str, str], list[int]] = defaultdict(list)
    for recorded in events:
        if recorded.of_system:
            continue
        _measure(recorded, tasks.get(recorded.task_id), outcomes, durations)
        tasks[recorded.task_id] = _after(recorded, tasks.get(recorded.task_id))
    _add_rows(found, tasks)
    _add_counts(found, tasks)
    found["outcomes"] = [(*key, n) for key, n in outcomes.items()]
    for (measure, kind), values in durations.items():
        buckets: dict[int, list[int]] = defaultdict(list)
        for ms in values:
            buckets[bisect.bisect_left(BUCKETS_S, ms / 1000)].append(ms)
        found["histograms"] += [(measure, kind, b, len(v), sum(v)) for b, v in buckets.items()]
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def _after(recorded: Recorded, task: Task | None) -> Task:
    if task is None:
        return initial(recorded.task_id, recorded.event(), recorded.at)
    return evolve(task, recorded.event(), recorded.at)


def _measure(
    recorded: Recorded,
    task: Task | None,
    outcomes: Counter[tuple[str, str]],
    durations: dict[tuple[str, str], list[int]],
) -> None:
    if task is None:
        return
    kind = task.submission.task_type
    outcome = {"TaskCompleted": "success", "TaskFailed": "failure", "RetryScheduled": "retry"}
    if recorded.type in outcome:
        outcomes[kind, outcome[recorded.type]] += 1
    if recorded.type == "TaskStarted":
        durations["wait", kind].append(recorded.at - task.state.updated_at)
    if recorded.type in ("TaskCompleted", "AttemptFailed"):
        assert task.state.started_at is not None
        durations["processing", kind].append(recorded.at - task.state.started_at)


def _add_rows(found: dict[str, Rows], tasks: dict[str, Task]) -> None:
    places: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    failed: Counter[tuple[Any, ...]] = Counter()
    for task in tasks.values():
        id, state, submitted = uuid.UUID(task.id).bytes, task.state, task.submission
        kind, priority = submitted.task_type, PRIORITIES.index(submitted.priority)
        blob = encode(state)
        times = (state.created_at, state.updated_at, state.started_at, state.completed_at)
        status, worker = STATUSES.index(state.status), state.worker_id or ""
        columns = (submitted.kb_id, kind, priority, status, worker, *times)
        found["tasks"].append((id, task.version, *columns, blob))
        found["submissions"].append((id, encode(submitted)))
        if state.error_kind is not None:
            error_kind, fingerprint = ERROR_KINDS.index(state.error_kind), fingerprint_of(task)
            message = state.error_message.casefold()
            found["errors"].append((id, *columns, error_kind, fingerprint, message))
            if fingerprint is not None:
                failed[submitted.kb_id, fingerprint, kind, error_kind] += 1
                failed["", fingerprint, kind, error_kind] += 1
        match placement(task):
            case Ready():
                places[kind, priority][0] += 1
                found["ready"].append((kind, priority, state.updated_at, id))
            case Due():
                places[kind, priority][1] += 1
            case Leased():
                places[kind, priority][2] += 1
            case _:
                pass
    found["failure_groups"] = [(*key, n) for key, n in failed.items()]
    found["queues"] = [(*key, *place) for key, place in places.items()]


def _add_counts(found: dict[str, Rows], tasks: dict[str, Task]) -> None:
    counts: Counter[tuple[Any, ...]] = Counter()
    spent_ms: Counter[tuple[Any, ...]] = Counter()
    for task in tasks.values():
        state, submitted = task.state, task.submission
        for kb in ("", submitted.kb_id):
            for hour in (-1, state.created_at // HOUR_MS):
                priority, status = (
                    PRIORITIES.index(submitted.priority),
                    STATUSES.index(state.status),
                )
                key = (kb, hour, submitted.task_type, priority, status)
                counts[key] += 1
                if state.status is Status.COMPLETED:
                    assert state.started_at is not None
                    assert state.completed_at is not None
                    spent_ms[key] += state.completed_at - state.started_at
    found["counts"] = [(*key, n) for key, n in counts.items()]
    found["stats"] = [(*key, n, spent_ms[key]) for key, n in counts.items()]
