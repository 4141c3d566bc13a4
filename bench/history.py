"""A ledger of many finished tasks, written straight into the stream as `append.lua` would have: a
thousand tasks are on their way at any time, one in twenty fails, one in twenty is canceled."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import msgspec
from redis import Redis
from uuid_utils import UUID

from bench.workload import PAYLOAD
from ledger.codec import Meta, encode
from ledger.events import (
    AttemptFailed,
    ErrorKind,
    Event,
    Priority,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskStarted,
    TaskSubmitted,
)
from ledger.keys import PartitionKeys

TASK_TYPES: Final = ("document_processing", "embedding_generation", "vector_storage")
KB_IDS: Final = [f"knowledge-base-{i}" for i in range(40)]
PRIORITIES: Final = (Priority.NORMAL, Priority.NORMAL, Priority.HIGH, Priority.LOW)
WORKERS: Final = [f"worker-{i}.example.org:4711:0" for i in range(8)]
ERROR: Final = "the document could not be read: unexpected end of file"

STARTS_AFTER: Final = 300
ENDS_AFTER: Final = 1_000
"""How many tasks are submitted between a task's submission and its start, and its end."""

INTERVAL_MS: Final = 100
"""Between submissions: a million of them take a bit more than a day."""

BEGAN_MS: Final = 1_763_811_000_000
WRITES_AT_ONCE: Final = 1_000

_RESULT: Final = msgspec.Raw(b'{"chunks":12,"tokens":3456}')


def write_history(url: str, tasks: int) -> int:
    """Write the lives of so many tasks into the first partition; returns how many events. Takes
    about 20 µs for each."""
    key, count = PartitionKeys(0).events, 0
    some = entries(tasks)
    with cast("Any", Redis).from_url(url) as client:
        while batch := list(itertools.islice(some, WRITES_AT_ONCE)):
            pipe = client.pipeline(transaction=False)
            for entry, fields in batch:
                pipe.execute_command("XADD", key, entry, *fields)
            pipe.execute()
            count += len(batch)
    return count


def entries(tasks: int) -> Iterator[tuple[str, Sequence[Any]]]:
    """Stream entries in the order of time: id, fields."""
    last: dict[int, tuple[int, str]] = {}
    for tick in range(tasks + ENDS_AFTER):
        at, seq = BEGAN_MS + tick * INTERVAL_MS, itertools.count()
        for number, stage in ((tick, 0), (tick - STARTS_AFTER, 1), (tick - ENDS_AFTER, 2)):
            if not 0 <= number < tasks:
                continue
            for event in _events(number, stage):
                version, prev = last.get(number, (0, ""))
                entry = f"{at}-{next(seq)}"
                last[number] = (version + 1, entry)
                yield entry, _fields(number, event, version + 1, at, prev)
            if stage == 2:
                del last[number]


def _fields(number: int, event: Event, version: int, at: int, prev: str) -> Sequence[Any]:
    meta = encode(Meta(actor="bench", commit=f"{number:016x}-{version:x}"))
    return (
        *("type", type(event).__name__, "task", task_id(number), "version", version),
        *("at", at, "data", encode(event), "meta", meta, "prev", prev),
    )


def task_id(number: int) -> str:
    """A version 7 UUID, made when its task was submitted."""
    ms = BEGAN_MS + number * INTERVAL_MS
    random = number * 0x9E3779B97F4A7C15 % (1 << 74)
    bits = (ms << 80) | (7 << 76) | ((random >> 62) << 64) | (2 << 62) | (random & ((1 << 62) - 1))
    return str(UUID(int=bits))


def _events(number: int, stage: int) -> Sequence[Event]:
    """What happens to a task when it is submitted, started and ended."""
    fails, canceled = number % 20 == 3, number % 20 == 7
    match stage:
        case 0:
            return (_submission(number),)
        case 1 if not canceled:
            return (TaskStarted(1, WORKERS[number % len(WORKERS)], 15_000),)
        case 2 if canceled:
            return (TaskCanceled(),)
        case 2 if fails:
            kind = ErrorKind.PERMANENT
            return AttemptFailed(1, ERROR, kind), TaskFailed(ERROR, kind)
        case 2:
            return (TaskCompleted(1, _RESULT),)
        case _:
            return ()


def _submission(number: int) -> TaskSubmitted:
    return TaskSubmitted(
        TASK_TYPES[number % len(TASK_TYPES)],
        KB_IDS[number * 7 % len(KB_IDS)],
        msgspec.Raw(PAYLOAD),
        PRIORITIES[number % len(PRIORITIES)],
    )
