"""Do two read models of the same events hold the same? Digests of each projection, and the first
difference."""

import hashlib
import itertools
import sqlite3
import uuid
from collections.abc import Collection, Iterator
from typing import Any, Final

import msgspec

Row = tuple[Any, ...]

# Numbers of names depend on who comes first, which several partitions leave open: names are
# compared instead. Every query gives its rows in an order of their content.
_COUNTED: Final = """
    SELECT coalesce(kb.name, ''), hour, kind.name, priority, status, {columns} FROM {table} t
    LEFT JOIN names kb ON kb.no = t.kb JOIN names kind ON kind.no = t.task_type ORDER BY 1,2,3,4,5
"""
QUERIES: Final[dict[str, dict[str, str]]] = {
    "tasks": {
        "tasks": """
            SELECT t.id, version, kb.name, kind.name, priority, status, coalesce(worker.name, ''),
                   created_at, updated_at, started_at, completed_at, state
            FROM tasks t JOIN names kb ON kb.no = t.kb JOIN names kind ON kind.no = t.task_type
            LEFT JOIN names worker ON worker.no = t.worker ORDER BY t.id""",
        "submissions": "SELECT id, submission FROM submissions ORDER BY id",
        # One that came back has departed before, or not, as the time of that was.
        "departed": """
            SELECT id FROM departed WHERE id NOT IN (SELECT id FROM tasks) ORDER BY id""",
        "errors": """
            SELECT t.id, kb.name, kind.name, priority, status, coalesce(worker.name, ''),
                   created_at, updated_at, started_at, completed_at, error_kind, fingerprint,
                   message
            FROM errors t JOIN names kb ON kb.no = t.kb JOIN names kind ON kind.no = t.task_type
            LEFT JOIN names worker ON worker.no = t.worker ORDER BY t.id""",
        "failure_groups": """
            SELECT coalesce(kb.name, ''), fingerprint, kind.name, error_kind, n
            FROM failure_groups t LEFT JOIN names kb ON kb.no = t.kb
            JOIN names kind ON kind.no = t.task_type ORDER BY 1, 2""",
        "counts": _COUNTED.format(table="counts", columns="n"),
    },
    "stats": {
        "stats": _COUNTED.format(table="stats", columns="n, process_ms"),
        "outcomes": """
            SELECT kind.name, outcome, n FROM outcomes t
            JOIN names kind ON kind.no = t.task_type ORDER BY 1, 2""",
        "histograms": """
            SELECT measure, kind.name, bucket, n, sum_ms FROM histograms t
            JOIN names kind ON kind.no = t.task_type ORDER BY 1, 2, 3""",
    },
    "queues": {
        # A queue that is empty now may be known to one of the two only.
        "queues": """
            SELECT kind.name, priority, ready, delayed, processing FROM queues t
            JOIN names kind ON kind.no = t.task_type
            WHERE (ready, delayed, processing) != (0, 0, 0) ORDER BY 1, 2""",
        "ready": """
            SELECT kind.name, priority, since, id FROM ready t
            JOIN names kind ON kind.no = t.task_type ORDER BY 1, 2, 3, 4""",
    },
}
"""What is compared: by projection, then by table."""


class Difference(msgspec.Struct, frozen=True):
    """The first row in which a table differs, on each side; None where it ends."""

    table: str
    live: list[Any] | None
    rebuilt: list[Any] | None


class Compared(msgspec.Struct, frozen=True):
    """One projection of both."""

    projection: str
    rows: int
    live_sha256: str
    rebuilt_sha256: str
    difference: Difference | None


def compare(
    live: sqlite3.Connection, rebuilt: sqlite3.Connection, projections: Collection[str]
) -> Iterator[Compared]:
    """Projection by projection. Both must be at the same positions, and stay there meanwhile."""
    for projection in QUERIES:
        if projection in projections:
            yield _compare(projection, live, rebuilt)


def _compare(projection: str, live: sqlite3.Connection, rebuilt: sqlite3.Connection) -> Compared:
    digests, rows, difference = (hashlib.sha256(), hashlib.sha256()), 0, None
    for table, query in QUERIES[projection].items():
        pairs = itertools.zip_longest(live.execute(query), rebuilt.execute(query))
        for ours, theirs in pairs:
            rows += ours is not None
            if ours != theirs and difference is None:
                difference = Difference(table, _readable(ours), _readable(theirs))
            for digest, row in zip(digests, (ours, theirs), strict=True):
                digest.update(msgspec.msgpack.encode((table, row)))
    live_sha256, rebuilt_sha256 = (digest.hexdigest() for digest in digests)
    return Compared(projection, rows, live_sha256, rebuilt_sha256, difference)


def _readable(row: Row | None) -> list[Any] | None:
    """Ids as people know them, JSON as text."""
    return None if row is None else [_readable_value(value) for value in row]


def _readable_value(value: object) -> object:
    match value:
        case bytes() if len(value) == 16:
            return str(uuid.UUID(bytes=value))
        case bytes():
            return value.decode(errors="replace")
        case _:
            return value
