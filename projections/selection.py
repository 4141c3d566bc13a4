"""Filters as the tables have them: numbers instead of names, and the SQL that they become."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ledger.task import Priority, Status
from projections.list_query import Filters

PRIORITIES: Final = tuple(Priority)
STATUSES: Final = tuple(Status)

FILTER_INDEXES: Final = {
    "kb": "tasks_kb",
    "task_type": "tasks_type",
    "priority": "tasks_priority",
    "status": "tasks_status",
    "worker": "tasks_worker",
}
"""The index that begins with a filter's column."""

Numbers = tuple[int, ...]


class Sql(msgspec.Struct, frozen=True):
    """A condition and what stands for its question marks."""

    text: str
    values: tuple[int | str | bytes, ...] = ()


class Selection(msgspec.Struct, frozen=True):
    """`columns` maps a filter's column to the numbers that it may hold. Times are in ms."""

    columns: dict[str, Numbers]
    created_after: int | None = None
    created_before: int | None = None
    text: str | None = None
    started: bool | None = None
    """Whether `started_at` is set; None: either way."""
    fingerprints: tuple[bytes, ...] | None = None

    @property
    def aside(self) -> str | None:
        """Where to look for them, if that is not the table of all tasks."""
        if self.fingerprints is not None:
            return "errors INDEXED BY errors_fingerprint"
        return None if self.text is None else "errors"

    @property
    def empty(self) -> bool:
        """Nothing can match: a filter names only what no task has."""
        return not all(self.columns.values())

    @property
    def within(self) -> bool:
        """There are bounds on `created_at`."""
        return self.created_after is not None or self.created_before is not None

    def only(self, column: str, *numbers: int) -> "Selection":
        """Those of them that also have one of `numbers` in `column`."""
        kept = self.columns.get(column, numbers)
        narrowed = {**self.columns, column: tuple(n for n in numbers if n in kept)}
        return msgspec.structs.replace(self, columns=narrowed)


def select(db: sqlite3.Connection, filters: Filters) -> Selection:
    """The filters with the numbers of this file; a name that it does not know is left out."""
    columns: dict[str, Numbers] = {}
    for column, names in (
        ("kb", filters.kb_ids),
        ("task_type", filters.task_types),
        ("worker", filters.worker_ids),
    ):
        if names is not None:
            columns[column] = tuple(numbers_of(db, names).values())
    if filters.priorities is not None:
        columns["priority"] = tuple(PRIORITIES.index(p) for p in filters.priorities)
    if filters.statuses is not None:
        columns["status"] = tuple(STATUSES.index(s) for s in filters.statuses)
    text = None if filters.text is None else filters.text.casefold()
    return Selection(
        columns,
        filters.created_after,
        filters.created_before,
        text,
        fingerprints=filters.fingerprints,
    )


def numbers_of(db: sqlite3.Connection, names: Sequence[str]) -> dict[str, int]:
    """The numbers of those names that this file knows."""
    marks = ", ".join("?" * len(names))
    found = db.execute(f"SELECT name, no FROM names WHERE name IN ({marks})", names)  # noqa: S608 - question marks only
    return dict(found.fetchall())


def conditions(selection: Selection) -> Iterator[Sql]:
    """All of them; those first that are cheap, or leave out long stretches of an index."""
    if selection.fingerprints is not None:
        yield one_of("fingerprint", selection.fingerprints)
    yield from created_within(selection)
    for column, numbers in selection.columns.items():
        yield one_of(column, numbers)
    if selection.started is not None:
        yield Sql("started_at IS NOT NULL" if selection.started else "started_at IS NULL")
    if selection.text is not None:
        yield Sql("instr(message, ?) > 0", (selection.text,))


def one_of(column: str, values: Numbers | tuple[bytes, ...]) -> Sql:
    """`column` holds one of `values`."""
    if len(values) == 1:
        return Sql(f"{column} = ?", values)
    return Sql(f"{column} IN ({', '.join('?' * len(values))})", values)


def created_within(selection: Selection) -> Iterator[Sql]:
    """The bounds on `created_at`."""
    if selection.created_after is not None:
        yield Sql("created_at > ?", (selection.created_after,))
    if selection.created_before is not None:
        yield Sql("created_at < ?", (selection.created_before,))


def all_of(parts: Sequence[Sql]) -> Sql:
    """A WHERE clause, or nothing."""
    if not parts:
        return Sql("")
    values = tuple(value for part in parts for value in part.values)
    return Sql(" WHERE " + " AND ".join(part.text for part in parts), values)
