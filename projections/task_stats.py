"""The statistics: counts of every task that ever was, by what they have in common."""

import sqlite3
from typing import Final

import msgspec

from ledger.task import Priority, Status
from projections.counting import ALL_KBS, EVER, HOUR_MS
from projections.list_query import Filters
from projections.selection import (
    PRIORITIES,
    STATUSES,
    Selection,
    Sql,
    all_of,
    conditions,
    one_of,
    select,
)
from projections.totals import COUNTED

_Cell = tuple[int, int, int, int, int]
"""task_type, priority, status, how many, process_ms"""

_GROUPS: Final = "GROUP BY task_type, priority, status"


class Stats(msgspec.Struct, frozen=True):
    """How many tasks there are. `process_ms` is the time, over completed tasks, from the start of
    the last attempt to the end."""

    by_status: dict[Status, int]
    by_type: dict[str, int]
    by_priority: dict[Priority, int]
    process_ms: int

    @property
    def total(self) -> int:
        return sum(self.by_status.values())


def task_stats(db: sqlite3.Connection, filters: Filters) -> Stats:
    """Of the tasks that satisfy `filters` (kb, status, type, priority and created_after).

    `created_after` is exact for tasks that are still in the read model. Of an hour from which tasks
    have left it, those that left are counted whole.
    """
    selection = select(db, filters)
    by_status = dict.fromkeys(Status, 0)
    by_priority = dict.fromkeys(Priority, 0)
    by_type: dict[int, int] = {}
    process_ms = 0
    for task_type, priority, status, n, spent_ms in _cells(db, selection):
        by_status[STATUSES[status]] += n
        by_priority[PRIORITIES[priority]] += n
        by_type[task_type] = by_type.get(task_type, 0) + n
        process_ms += spent_ms
    return Stats(by_status, _named(db, by_type), by_priority, process_ms)


def _cells(db: sqlite3.Connection, selection: Selection) -> list[_Cell]:
    if selection.empty:
        return []
    known = [one_of("kb", selection.columns.get("kb", (ALL_KBS,)))]
    known += (one_of(c, v) for c, v in selection.columns.items() if c in COUNTED)
    after = selection.created_after
    if after is None:
        return _summed(db, [*known, Sql("hour = ?", (EVER,))])
    hour = max(after // HOUR_MS, 0)
    cut = msgspec.structs.replace(
        selection, created_after=hour * HOUR_MS - 1, created_before=after + 1
    )
    return [*_since(db, known, hour), *_negated(_early(db, cut))]


def _since(db: sqlite3.Connection, known: list[Sql], hour: int) -> list[_Cell]:
    """Of the hours from `hour` on: added up, or what the others leave where they are fewer."""
    [(first,)] = db.execute("SELECT min(hour) FROM stats WHERE kb = 0 AND hour > -1")
    [(last,)] = db.execute("SELECT max(hour) FROM stats WHERE kb = 0 AND hour > -1")
    if first is None or hour - first > last - hour:
        return _summed(db, [*known, Sql("hour >= ?", (hour,))])
    before = _summed(db, [*known, Sql("hour > ? AND hour < ?", (EVER, hour))])
    return [*_summed(db, [*known, Sql("hour = ?", (EVER,))]), *_negated(before)]


def _early(db: sqlite3.Connection, selection: Selection) -> list[_Cell]:
    """Tasks of an hour that is cut through, counted one by one."""
    index = "tasks_kb" if "kb" in selection.columns else "tasks_created"
    completed = STATUSES.index(Status.COMPLETED)
    where = all_of(list(conditions(selection)))
    found = db.execute(
        "SELECT task_type, priority, status, count(*),"  # noqa: S608 - names of ours
        f" coalesce(sum(completed_at - started_at) FILTER (WHERE status = {completed}), 0)"
        f" FROM tasks INDEXED BY {index}{where.text} {_GROUPS}",
        where.values,
    )
    return found.fetchall()


def _summed(db: sqlite3.Connection, parts: list[Sql]) -> list[_Cell]:
    where = all_of(parts)
    found = db.execute(
        "SELECT task_type, priority, status, sum(n), sum(process_ms)"  # noqa: S608 - names of ours
        f" FROM stats{where.text} {_GROUPS}",
        where.values,
    )
    return found.fetchall()


def _negated(cells: list[_Cell]) -> list[_Cell]:
    return [(kind, prio, status, -n, -spent_ms) for kind, prio, status, n, spent_ms in cells]


def _named(db: sqlite3.Connection, by_type: dict[int, int]) -> dict[str, int]:
    """Types by name, in its order; those of which there is no task are left out."""
    wanted = one_of("no", tuple(by_type))
    found = db.execute(
        f"SELECT name, no FROM names WHERE {wanted.text} ORDER BY name",  # noqa: S608 - question marks only
        wanted.values,
    )
    return {name: by_type[no] for name, no in found if by_type[no]}
