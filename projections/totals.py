"""How many tasks match, exactly, and roughly how many each index would have to look at.

A million index entries take 60 ms to count, so the table `counts` answers where it can: it knows
every filter but the worker and the text, and `created_at` by the hour.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ledger.task import Status
from projections.counting import ALL_KBS, EVER, HOUR_MS
from projections.list_plan import FilterIndex
from projections.selection import (
    FILTER_INDEXES,
    PRIORITIES,
    STATUSES,
    Numbers,
    Selection,
    Sql,
    all_of,
    conditions,
    created_within,
    one_of,
)

DIRECT_MAX: Final = 20_000
"""So few entries of an index are counted sooner than the hours are added up."""

PROBE_MAX: Final = 100_000
"""A worker's tasks are not counted beyond this to find out whether they are few."""

COUNTED: Final = ("task_type", "priority", "status")
"""The filters that `counts` knows, beside kb and hour."""


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """How many tasks have all of these in common."""

    kb: int
    task_type: int
    priority: int
    status: int
    n: int


class Counted(msgspec.Struct, frozen=True):
    """`by` says how many match, by their number in a column (by 0 when none was named).

    The shares are those of all tasks that lie within the bounds on `created_at`, and behind them;
    1 and 0 where that was not looked at."""

    by: dict[int, int]
    span: float = 1.0
    newer: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.by.values())


class Census:
    """What `counts` says of all tasks, and of the knowledge bases that are asked for."""

    def __init__(self, db: sqlite3.Connection, kbs: Numbers | None) -> None:
        wanted = one_of("kb", (ALL_KBS, *(kbs or ())))
        rows = db.execute(
            "SELECT kb, task_type, priority, status, n FROM counts"  # noqa: S608 - question marks only
            f" WHERE {wanted.text} AND hour = {EVER}",
            wanted.values,
        )
        self._db = db
        self._workers: dict[Numbers, int] = {}
        self._cells = [Cell(*row) for row in rows]
        self._base = (ALL_KBS,) if kbs is None else kbs
        self.tasks = self.entries("kb", (ALL_KBS,))

    def entries(self, column: str, numbers: Numbers) -> int:
        """How many tasks have one of `numbers` in `column`; of many workers it is a guess."""
        if column == "worker":
            if numbers not in self._workers:
                self._workers[numbers] = self._of_workers(numbers)
            return self._workers[numbers]
        if column == "kb":
            return sum(cell.n for cell in self._cells if cell.kb in numbers)
        cells = (cell for cell in self._cells if cell.kb == ALL_KBS)
        return sum(cell.n for cell in cells if getattr(cell, column) in numbers)

    def _of_workers(self, numbers: Numbers) -> int:
        wanted = one_of("worker", numbers)
        [(found,)] = self._db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_worker"  # noqa: S608 - question marks only
            f" WHERE {wanted.text} LIMIT {PROBE_MAX})",
            wanted.values,
        )
        return found if found < PROBE_MAX else max(found, self.tasks // 2)

    def matching(self, selection: Selection, by: str | None) -> dict[int, int]:
        """How many match, leaving aside the filters that `counts` does not know."""
        found: dict[int, int] = {}
        known = [(c, set(v)) for c, v in selection.columns.items() if c in COUNTED]
        for cell in self._cells:
            if cell.kb in self._base and all(getattr(cell, c) in v for c, v in known):
                value = 0 if by is None else getattr(cell, by)
                found[value] = found.get(value, 0) + cell.n
        return found

    def values(self, by: str | None) -> Sequence[int]:
        """What a column may hold."""
        match by:
            case None:
                return (0,)
            case "status":
                return range(len(STATUSES))
            case "priority":
                return range(len(PRIORITIES))
            case _:
                return sorted({getattr(cell, by) for cell in self._cells})


def count(
    db: sqlite3.Connection, census: Census, selection: Selection, by: str | None = None
) -> Counted:
    """How many tasks match, by their number in column `by` (task_type, priority or status)."""
    if selection.empty:
        return Counted({})
    if selection.aside is not None:
        return Counted(_count_rows(db, census, selection.aside, selection, by))
    if not selection.within and "worker" not in selection.columns:
        return Counted(census.matching(selection, by))
    narrowest = min(filter_indexes(census, selection), key=_entries, default=None)
    if narrowest is not None and ("worker" in selection.columns or narrowest.entries <= DIRECT_MAX):
        return Counted(_count_rows(db, census, _indexed(narrowest.name), selection, by))
    return Hours(db, census, selection, by).counted()


def count_unstarted(db: sqlite3.Connection, census: Census, selection: Selection) -> int:
    """How many of those that match were not started. Only queued and canceled tasks can be so."""
    never = STATUSES.index(Status.QUEUED), STATUSES.index(Status.CANCELED)
    unstarted = msgspec.structs.replace(selection.only("status", *never), started=False)
    if unstarted.empty:
        return 0
    source = selection.aside
    if source is None:
        source = _indexed(min(filter_indexes(census, unstarted), key=_entries).name)
    return _count(db, source, list(conditions(unstarted)))


def filter_indexes(census: Census, selection: Selection) -> list[FilterIndex]:
    """The indexes that begin with what is filtered by; bounds on `created_at` do not count."""
    return [
        FilterIndex(FILTER_INDEXES[column], census.entries(column, numbers), len(numbers) == 1)
        for column, numbers in selection.columns.items()
    ]


def _entries(index: FilterIndex) -> int:
    return index.entries


def _indexed(index: str) -> str:
    return f"tasks INDEXED BY {index}"


def _count(db: sqlite3.Connection, source: str, parts: Sequence[Sql]) -> int:
    where = all_of(parts)
    [(n,)] = db.execute(f"SELECT count(*) FROM {source}{where.text}", where.values)  # noqa: S608 - names of ours
    return n


def _count_rows(
    db: sqlite3.Connection, census: Census, source: str, selection: Selection, by: str | None
) -> dict[int, int]:
    """Counted one by one. A sum for each value is a third of the price of GROUP BY."""
    parts = list(conditions(selection))
    if by is None:
        return {0: _count(db, source, parts)}
    values, where = census.values(by), all_of(parts)
    if not values:
        return {}
    sums = ", ".join(f"count(*) FILTER (WHERE {by} = {value})" for value in values)
    [row] = db.execute(f"SELECT {sums} FROM {source}{where.text}", where.values)  # noqa: S608 - names of ours
    return dict(zip(values, row, strict=False))


class Hours:
    """Counts within bounds on `created_at`: whole hours from `counts`, what a bound leaves of its
    hour from an index.

    A row of sums begins with all tasks, whatever the other filters; then come those that match.
    """

    def __init__(
        self, db: sqlite3.Connection, census: Census, selection: Selection, by: str | None
    ) -> None:
        self._db, self._census, self._selection, self._by = db, census, selection, by
        kbs = selection.columns.get("kb", (ALL_KBS,))
        self._kb = one_of("kb", kbs)
        self._index = _indexed("tasks_kb" if "kb" in selection.columns else "tasks_created")
        self._values = census.values(by)
        matching = census.matching(selection, by)
        self._ever = [census.entries("kb", kbs), *(matching.get(v, 0) for v in self._values)]
        # One by one, since both at once would read all rows.
        [(first,)] = db.execute("SELECT min(hour) FROM counts WHERE kb = 0 AND hour > -1")
        [(last,)] = db.execute("SELECT max(hour) FROM counts WHERE kb = 0 AND hour > -1")
        self._first: int = 0 if first is None else first
        self._end: int = 0 if last is None else last + 1

    def counted(self) -> Counted:
        """All of it."""
        after, before = self._selection.created_after, self._selection.created_before
        low = self._within(self._first if after is None else after // HOUR_MS + 1)
        high = self._within(self._end if before is None else before // HOUR_MS)
        sums = self._sums(low, max(low, high))
        for edge in _edges(self._selection, low, high):
            sums = [a + b for a, b in zip(sums, self._edge(edge), strict=True)]
        ever = max(self._ever[0], 1)
        span = min(sums[0] / ever, 1.0)
        by = dict(zip(self._values, sums[1:], strict=True))
        if before is None:
            return Counted(by, span)
        if after is None:
            return Counted(by, span, 1 - span)
        return Counted(by, span, self._sums(max(low, high), self._end)[0] / ever)

    def _within(self, hour: int) -> int:
        return min(max(hour, self._first), self._end)

    def _sums(self, low: int, high: int) -> list[int]:
        """Of the hours from `low` to before `high`; the others are read where they are fewer."""
        if 2 * (high - low) <= self._end - self._first:
            return self._read(low, high)
        below, above = self._read(self._first, low), self._read(high, self._end)
        return [e - b - a for e, b, a in zip(self._ever, below, above, strict=True)]

    def _read(self, low: int, high: int) -> list[int]:
        if low >= high:
            return [0] * len(self._ever)
        known = [one_of(c, v) for c, v in self._selection.columns.items() if c in COUNTED]
        sums, values = ["coalesce(sum(n), 0)"], list[int | str | bytes]()
        for value in self._values:
            parts = known if self._by is None else [*known, one_of(self._by, (value,))]
            where = all_of(parts or [Sql("1")])
            sums.append(f"coalesce(sum(n) FILTER ({where.text}), 0)")
            values += where.values
        [row] = self._db.execute(
            f"SELECT {', '.join(sums)} FROM counts"  # noqa: S608 - names of ours
            f" WHERE {self._kb.text} AND hour >= ? AND hour < ?",
            (*values, *self._kb.values, low, high),
        )
        return list(row)

    def _edge(self, edge: Selection) -> list[int]:
        kb = [self._kb] if "kb" in edge.columns else []
        everything = _count(self._db, self._index, [*kb, *created_within(edge)])
        matching = _count_rows(self._db, self._census, self._index, edge, self._by)
        return [everything, *(matching.get(value, 0) for value in self._values)]


def _edges(selection: Selection, low: int, high: int) -> Iterator[Selection]:
    """What the bounds leave outside the whole hours from `low` to before `high`."""
    if low >= high:
        yield selection
        return
    if selection.created_after is not None:
        yield msgspec.structs.replace(selection, created_before=low * HOUR_MS)
    if selection.created_before is not None:
        yield msgspec.structs.replace(selection, created_after=high * HOUR_MS - 1)
