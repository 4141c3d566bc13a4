"""The storage format, as it was written down: what is stored today must be readable for ever.

These files are never edited. A shape that changes gets a folder of its own (`v2`), and a step in
`upcast.py` that lifts the old one.
"""

import json
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import pytest

from ledger.codec import Meta, decode_event, decode_meta, decode_task, encode
from ledger.commands import (
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
from ledger.events import (
    EVENT_TYPES,
    AttemptFailed,
    CallbackDelivered,
    CallbackFailed,
    ErrorKind,
    Event,
    Priority,
    RetryScheduled,
    TaskCanceled,
    TaskCompleted,
    TaskErased,
    TaskFailed,
    TaskProgressed,
    TaskReleased,
    TaskRetried,
    TaskStarted,
    TaskSubmitted,
)
from ledger.evolve import fold
from ledger.keys import PartitionKeys
from ledger.redis_store import RedisStore
from ledger.retry_policy import RetryPolicy
from ledger.store import Position
from ledger.task import State, Status, Task
from ledger.transact import transact
from tests.given import OTHER_TRACE, TASK_ID, TRACE

GOLDEN: Final = Path(__file__).parents[1] / "golden"

SUBMITTED: Final = TaskSubmitted(
    task_type="document_processing",
    kb_id="handbook",
    payload=msgspec.Raw(b'{"file_path" : "/data/a.md", "chunk_size": 1.50e3}'),
    priority=Priority.HIGH,
    max_retries=1,
    timeout_s=60,
    schedule_for=1_763_811_001_000,
    callback_url="http://localhost:8082/done",
    metadata=msgspec.Raw('{"owner":"Zoë"}'.encode()),
    body_sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
)
RESULT: Final = msgspec.Raw(b'{"chunks" : 12}')
WORKER_1, WORKER_2 = "host-1:4711", "host-2:815"
MS: Final = 1_763_811_000_000

EVENTS: Final[dict[str, Event]] = {
    type(event).__name__: event
    for event in (
        SUBMITTED,
        TaskReleased(),
        TaskStarted(1, WORKER_1, 15_000),
        TaskProgressed(1, 40, "parsing"),
        TaskCompleted(3, RESULT),
        AttemptFailed(1, "disk is full", ErrorKind.RETRYABLE),
        RetryScheduled(MS + 5_000, 1),
        TaskFailed("no such file", ErrorKind.PERMANENT),
        TaskCanceled("no longer needed"),
        TaskRetried(),
        CallbackFailed(1, "localhost:8082", "it answered 503", 503, MS + 18_000),
        CallbackDelivered(2, "localhost:8082", 204),
        TaskErased("request 4711", {"1": "5f" * 32, "5": "0a" * 32}),
    )
}

BY_API: Final = Meta(
    actor="api",
    request="req-7",
    trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)
BY_WORKER: Final = Meta(actor=f"worker {WORKER_1}")
LIFE: Final[list[tuple[int, Command, Meta]]] = [
    (123, SubmitTask(SUBMITTED), BY_API),
    (1_000, ReleaseTask(), BY_WORKER),
    (2_000, StartTask(1, WORKER_1, 15_000), BY_WORKER),
    (3_000, ReportProgress(40, "parsing", 1), BY_WORKER),
    (
        4_000,
        FailAttempt(1, "disk is full", ErrorKind.RETRYABLE, policy=RetryPolicy(spread=0)),
        BY_WORKER,
    ),
    (5_000, ReleaseTask(), BY_WORKER),
    (6_000, StartTask(2, WORKER_2, 15_000), BY_WORKER),
    (7_000, FailAttempt(2, "no such file", ErrorKind.PERMANENT), BY_WORKER),
    (8_000, RetryTask(), BY_API),
    (9_000, CancelTask("no longer needed"), BY_API),
    (10_000, RetryTask(), BY_API),
    (11_000, StartTask(3, WORKER_1, 15_000), BY_WORKER),
    (12_000, CompleteTask(3, RESULT), BY_WORKER),
]
"""The commands that made `streams/v1/whole_life.json`, and the ms after MS they were sent at."""

BY_NOTIFIER: Final = Meta(actor="notifier")
FAILED_CALLBACK: Final = FailCallback(
    15, 1, "localhost:8082", "it answered 503", 503, policy=RetryPolicy(base_ms=5_000, spread=0)
)
AFTERLIFE: Final[list[tuple[int, Command, Meta]]] = [
    (13_000, FAILED_CALLBACK, BY_NOTIFIER),
    (18_000, DeliverCallback(15, "localhost:8082", 204), BY_NOTIFIER),
]
"""Those that made `streams/v2/callback.json`, which follows on it."""

REDACTED: Final = {"1": "5f" * 32, "5": "0a" * 32}
ERASED: Final[tuple[int, Command, Meta]] = (
    20_000,
    EraseTask("request 4711", REDACTED),
    Meta(actor="anna"),
)
"""What made `streams/v2/erased.json`, which follows on that."""


class Entry(msgspec.Struct, frozen=True):
    """A stream entry as the server holds it: field names and values, in order."""

    id: str
    fields: dict[str, str]


def golden(*path: str) -> bytes:
    return GOLDEN.joinpath(*path).read_bytes().removesuffix(b"\n")


def whole_life() -> list[Entry]:
    return stream("v1", "whole_life.json")


def stream(*path: str) -> list[Entry]:
    return msgspec.json.decode(golden("streams", *path), type=list[Entry])


async def raw_entries(store: RedisStore) -> list[tuple[bytes, dict[bytes, bytes]]]:
    return await cast("Any", store.client).xrange(PartitionKeys(0).events)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_an_event_reads_and_writes_as_it_was_first_stored(name: str):
    stored = golden("events", "v1", f"{name}.json")

    assert decode_event(name, stored) == EVENTS[name]
    assert encode(EVENTS[name]) == stored


def test_every_event_type_has_golden_files():
    assert {path.stem for path in GOLDEN.glob("events/*/*.json")} == set(EVENT_TYPES)
    stored = [*whole_life(), *stream("v2", "callback.json"), *stream("v2", "erased.json")]
    assert {entry.fields["type"] for entry in stored} == set(EVENT_TYPES)


@pytest.mark.parametrize("status", Status)
def test_a_snapshot_reads_and_writes_as_it_was_first_stored(status: Status):
    stored = golden("snapshots", "v1", f"{status}.json")
    history = [
        (decode_event(entry.fields["type"], entry.fields["data"].encode()), int(entry.fields["at"]))
        for entry in whole_life()
    ]
    lives = [fold(TASK_ID, history[:n]) for n in range(1, len(history) + 1)]
    tasks = [t for t in lives if t is not None and t.state.updated_at == _updated_at(stored)]

    task = decode_task(TASK_ID, tasks[-1].version, encode(SUBMITTED), stored)

    assert task == tasks[-1]
    assert task.status is status
    assert encode(task.state) == stored


def test_the_snapshot_of_a_task_whose_callback_waits_reads_and_writes_as_it_was_first_stored():
    stored = golden("snapshots", "v2", "completed.json")
    history = [*whole_life(), stream("v2", "callback.json")[0]]

    task = fold(
        TASK_ID,
        [(decode_event(e.fields["type"], e.fields["data"].encode()), int(e.fields["at"]))
         for e in history],
    )  # fmt: skip

    assert task == decode_task(TASK_ID, 16, encode(SUBMITTED), stored)
    assert task is not None
    assert encode(task.state) == stored


def test_the_snapshot_of_an_erased_task_reads_and_writes_as_it_was_first_stored():
    submission, state = golden("snapshots", "v2", "erased.json").split(b"\n")
    history = [*whole_life(), *stream("v2", "callback.json"), *stream("v2", "erased.json")]

    task = fold(
        TASK_ID,
        [(decode_event(e.fields["type"], e.fields["data"].encode()), int(e.fields["at"]))
         for e in history],
    )  # fmt: skip

    assert task == decode_task(TASK_ID, 18, submission, state)
    assert task is not None
    assert (encode(task.submission), encode(task.state)) == (submission, state)


PUT_OFF: Final = RetryScheduled(MS + 34_000, 1, postponements=2)
"""The shape of version 2: its handler put the task off. Without that it is as in version 1."""


def test_a_retry_that_a_handler_put_off_reads_and_writes_as_it_was_first_stored():
    stored = golden("events", "v2", "RetryScheduled.json")

    assert decode_event("RetryScheduled", stored) == PUT_OFF
    assert encode(PUT_OFF) == stored


def test_the_snapshot_of_a_task_that_was_put_off_reads_and_writes_as_it_was_first_stored():
    stored = golden("snapshots", "v2", "retrying.json")
    put_off = State(
        Status.RETRYING,
        created_at=MS + 123,
        updated_at=MS + 4_000,
        attempt=3,
        retry_count=1,
        postponements=2,
        waiting_until=PUT_OFF.retry_at,
        lease_ms=15_000,
        started_at=MS + 2_000,
        error_message="RetryLater: busy",
        error_kind=ErrorKind.RETRYABLE,
    )

    assert decode_task(TASK_ID, 9, encode(SUBMITTED), stored).state == put_off
    assert encode(put_off) == stored


@pytest.mark.parametrize(
    "event", [msgspec.structs.replace(SUBMITTED, trace=TRACE), TaskRetried(OTHER_TRACE)]
)
def test_an_event_that_brings_a_trace_reads_and_writes_as_it_was_first_stored(event: Event):
    name = type(event).__name__
    stored = golden("events", "v2", f"{name}.json")

    assert decode_event(name, stored) == event
    assert encode(event) == stored


def test_the_snapshot_of_a_task_retried_in_a_trace_reads_and_writes_as_it_was_first_stored():
    submission, state = (
        golden("events", "v2", "TaskSubmitted.json"),
        golden("snapshots", "v2", "queued.json"),
    )
    history = [
        (decode_event(entry.fields["type"], entry.fields["data"].encode()), int(entry.fields["at"]))
        for entry in whole_life()
    ]
    first, *rest = history[:11]
    retried = (decode_event("TaskRetried", golden("events", "v2", "TaskRetried.json")), MS + 8_000)

    task = fold(
        TASK_ID, [(decode_event("TaskSubmitted", submission), first[1]), *rest[:-1], retried]
    )

    assert task == decode_task(TASK_ID, 11, submission, state)
    assert task is not None
    assert (encode(task.submission), encode(task.state)) == (submission, state)


def _updated_at(state: bytes) -> int:
    return json.loads(state)["updated_at"]


async def test_a_stored_stream_is_read(store: RedisStore):
    for entry in whole_life():
        await cast("Any", store.client).xadd(PartitionKeys(0).events, entry.fields, id=entry.id)

    recorded = await store.events_after(Position(0, "0-0"), 100, 1)

    assert [r.position.entry for r in recorded] == [entry.id for entry in whole_life()]
    task = fold(TASK_ID, [(r.event(), r.at) for r in recorded])
    assert task is not None
    assert (task.version, task.status, task.state.result) == (15, Status.COMPLETED, RESULT)
    assert decode_meta(recorded[0].meta) == msgspec.structs.replace(
        BY_API, commit="4f2a8c1d9e3b7a60-1"
    )


async def test_a_stream_is_written_as_it_was_first_stored(store: RedisStore):
    task: Task | None = None
    for at, command, meta in LIFE:
        done = await transact(store, TASK_ID, command, meta=meta, known=task, now_ms=MS + at)
        task = done.task

    for at, command, meta in [*AFTERLIFE, ERASED]:
        done = await transact(store, TASK_ID, command, meta=meta, known=task, now_ms=MS + at)
        task = done.task

    written = await raw_entries(store)
    expected = [*whole_life(), *stream("v2", "callback.json"), *stream("v2", "erased.json")]

    # Entry ids are the server's, commit ids the process's: only these may differ.
    ids = {b"": ""} | {entry_id: e.id for (entry_id, _), e in zip(written, expected, strict=True)}
    for (_, fields), entry in zip(written, expected, strict=True):
        commit = decode_meta(fields[b"meta"]).commit
        known = decode_meta(entry.fields["meta"].encode()).commit
        fields[b"meta"] = fields[b"meta"].replace(commit.encode(), known.encode())
        fields[b"prev"] = ids[fields[b"prev"]].encode()
        assert [(k.decode(), v.decode()) for k, v in fields.items()] == list(entry.fields.items())
