"""A read model of many tasks as real ones are skewed, made in a minute instead of an hour.

One knowledge base has half of the tasks and 199 share the rest, most tasks are done and of normal
priority, failures are rare, 24 workers did the work, three tasks in a hundred have an error text,
and all of it happened over 30 days. The rows are written as the projection writes them, but
straight from what they are to hold; the counts are added up by SQL.
"""

import random
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from bench.workload import PAYLOAD
from ledger.codec import encode
from ledger.events import ErrorKind, Priority, TaskSubmitted
from ledger.settings import BUILT_IN_TASK_TYPES
from ledger.task import State, Status
from projections.fingerprint import fingerprint
from projections.model_files import ModelFiles
from projections.sqlite import create, finish

BEGIN_MS: Final = 1_790_000_000_000
SPAN_MS: Final = 30 * 86_400_000
KB_IDS: Final = tuple(f"kb-{i}" for i in range(200))
WORKERS: Final = tuple(f"worker-{i}" for i in range(24))
SEED: Final = 7

_KB_WEIGHTS: Final = (60.0, *(10 / (i + 1) for i in range(199)))
_TYPE_WEIGHTS: Final = (50, 5, 15, 20, 9, 1)
_PRIORITY_WEIGHTS: Final = (2, 13, 70, 15)
_OLD_WEIGHTS: Final = (0, 0, 0, 960, 25, 15)
_RECENT_WEIGHTS: Final = (70, 5, 1, 20, 2, 2)
_RECENT_SHARE: Final = 0.02
_RETRIED_SHARE: Final = 0.005
"""Of the tasks that are done: an attempt failed before."""

_ERRORS: Final = (
    "timeout after 300 s",
    "connection refused by the vector store at 10.0.0.7:6333",
    "no such file: s3://knowledge/incoming/quarterly-report.pdf",
    "worker lost",
    "model overloaded, try again later: embedding-large",
)
_BATCH: Final = 10_000

Rows = list[tuple[object, ...]]


def make(folder: Path, tasks: int) -> Path:
    """The live read model of `folder`, with so many tasks; its file."""
    files = ModelFiles(folder)
    path = files.next_path()
    db = create(path)
    names = {name: no for no, name in enumerate((*BUILT_IN_TASK_TYPES, *KB_IDS, *WORKERS), 1)}
    db.execute("BEGIN")
    db.executemany("INSERT INTO names (name, no) VALUES (?, ?)", list(names.items()))
    for rows, submissions, errors in _batches(tasks, names):
        _insert(db, "tasks", rows)
        _insert(db, "submissions", submissions)
        _insert(db, "errors", errors)
    for kb in ("0", "kb"):
        for hour in ("-1", "created_at / 3600000"):
            _add_up(db, kb, hour)
        db.execute(
            f"INSERT INTO failure_groups SELECT {kb}, fingerprint, task_type, error_kind, count(*)"  # noqa: S608 - 0 or a column
            " FROM errors WHERE fingerprint IS NOT NULL GROUP BY 1, 2, 3, 4"
        )
    db.execute("COMMIT")
    finish(db)
    db.close()
    files.install(path)
    return path


def _insert(db: sqlite3.Connection, table: str, rows: Rows) -> None:
    marks = ", ".join("?" * len(rows[0])) if rows else ""
    db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608 - names of ours


def _add_up(db: sqlite3.Connection, kb: str, hour: str) -> None:
    group = f"SELECT {kb}, {hour}, task_type, priority, status, count(*)"
    completed = int(list(Status).index(Status.COMPLETED))
    spent = f"sum(CASE status WHEN {completed} THEN completed_at - started_at ELSE 0 END)"
    grouped = "FROM tasks GROUP BY 1, 2, 3, 4, 5"
    db.execute(f"INSERT INTO counts {group} {grouped}")
    db.execute(f"INSERT INTO stats {group}, {spent} {grouped}")


def _batches(tasks: int, names: dict[str, int]) -> Iterator[tuple[Rows, Rows, Rows]]:
    chance = random.Random(SEED)  # noqa: S311 - not a secret
    for first in range(0, tasks, _BATCH):
        made = [_task(chance, i / tasks, names) for i in range(first, min(first + _BATCH, tasks))]
        made.sort()  # by their ids
        errors = [error for _, _, error in made if error]
        yield [row for row, _, _ in made], [submission for _, submission, _ in made], errors


def _task(
    chance: random.Random, age: float, names: dict[str, int]
) -> tuple[tuple[object, ...], tuple[object, ...], tuple[object, ...]]:
    """The rows of one task, created after this share of the time; the last one may be empty."""
    state = _state(chance, age)
    kb_id = chance.choices(KB_IDS, _KB_WEIGHTS)[0]
    task_type = chance.choices(BUILT_IN_TASK_TYPES, _TYPE_WEIGHTS)[0]
    priority = chance.choices(tuple(Priority), _PRIORITY_WEIGHTS)[0]
    columns = (
        names[kb_id],
        names[task_type],
        list(Priority).index(priority),
        list(Status).index(state.status),
        0 if state.worker_id is None else names[state.worker_id],
        *(state.created_at, state.updated_at, state.started_at, state.completed_at),
    )
    task_id = _uuid7(chance, state.created_at)
    submission = TaskSubmitted(task_type, kb_id, msgspec.Raw(PAYLOAD), priority)
    error = _error(task_id, columns, state, task_type)
    row = (task_id, 3, *columns, encode(state))
    return row, (task_id, encode(submission)), error


def _error(
    task_id: bytes, columns: tuple[object, ...], state: State, task_type: str
) -> tuple[object, ...]:
    kind = state.error_kind
    if kind is None:
        return ()
    failed = state.status is Status.FAILED
    found = fingerprint(task_type, kind, state.error_message) if failed else None
    named = (list(ErrorKind).index(kind), found)
    return (task_id, *columns, *named, state.error_message.casefold())


def _state(chance: random.Random, age: float) -> State:
    created_at = BEGIN_MS + int(SPAN_MS * age) + chance.randrange(1_000)
    weights = _RECENT_WEIGHTS if age > 1 - _RECENT_SHARE else _OLD_WEIGHTS
    status = chance.choices(tuple(Status), weights)[0]
    state = State(status, created_at, created_at)
    started = status not in (Status.QUEUED, Status.CANCELED) or (
        status is Status.CANCELED and chance.random() < 0.3
    )
    if started:
        started_at = created_at + int(chance.expovariate(1 / 30_000))
        state = msgspec.structs.replace(
            state,
            updated_at=started_at,
            started_at=started_at,
            attempt=1,
            worker_id=chance.choice(WORKERS),
        )
    if status in (Status.COMPLETED, Status.FAILED, Status.CANCELED):
        completed_at = state.updated_at + int(chance.expovariate(1 / 60_000))
        state = msgspec.structs.replace(state, updated_at=completed_at, completed_at=completed_at)
    if status in (Status.FAILED, Status.RETRYING) or chance.random() < _RETRIED_SHARE:
        text = f"{chance.choice(_ERRORS)} ({chance.randrange(100_000)})"
        state = msgspec.structs.replace(
            state, error_message=text, error_kind=ErrorKind.RETRYABLE, retry_count=1
        )
    return state


def _uuid7(chance: random.Random, ms: int) -> bytes:
    value = (ms << 80) | (7 << 76) | (chance.getrandbits(12) << 64) | (2 << 62)
    return uuid.UUID(int=value | chance.getrandbits(62)).bytes
