"""The groups that a list is made of, one behind the other.

By priority, status or type there is a group for each value; by a time there are the tasks that have
it, then those that have not. Within a group the order is that of one time column, so that an index
has it; and whole groups are skipped by their counts.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final, assert_never

import msgspec

from ledger.task import Priority, Status
from projections.list_query import (
    PRIORITY_ORDER,
    STATUS_ORDER,
    UNFINISHED,
    ListQuery,
    SortBy,
    SortOrder,
)
from projections.selection import PRIORITIES, STATUSES, Selection, one_of
from projections.totals import Census, Counted, count_unstarted

SET: Final = "set"
UNSET: Final = "unset"

MAYBE_UNSTARTED: Final = (Status.QUEUED, Status.CANCELED)
"""In every other status a task was started, or it would not be there."""

COUNTED_BY: Final = {
    SortBy.PRIORITY: "priority",
    SortBy.STATUS: "status",
    SortBy.TASK_TYPE: "task_type",
    SortBy.STARTED_AT: "status",
    SortBy.COMPLETED_AT: "status",
}
"""The column whose values tell how large the groups are."""


class Group(msgspec.Struct, frozen=True):
    """Tasks that stand together: `n` of them, in order of `column`."""

    name: str
    selection: Selection
    column: str
    n: int


def groups(
    db: sqlite3.Connection,
    census: Census,
    selection: Selection,
    counted: Counted,
    query: ListQuery,
) -> list[Group]:
    """All of them, in the list's order."""
    match query.sort_by:
        case SortBy.CREATED_AT | SortBy.UPDATED_AT:
            return [Group(SET, selection, query.sort_by, counted.total)]
        case SortBy.STARTED_AT:
            unset = 0
            last_needed = query.page.skip + query.page.size + 1
            if query.page.after or last_needed > counted.total - _sum(counted, MAYBE_UNSTARTED):
                # Has to be counted, and is seldom needed.
                unset = count_unstarted(db, census, selection)
            without = msgspec.structs.replace(selection, started=False)
            return _by_time(selection, without, query.sort_by, counted.total, unset)
        case SortBy.COMPLETED_AT:
            without = selection.only("status", *map(STATUSES.index, sorted(UNFINISHED)))
            unset = _sum(counted, UNFINISHED)
            return _by_time(selection, without, query.sort_by, counted.total, unset)
        case SortBy.PRIORITY | SortBy.STATUS | SortBy.TASK_TYPE:
            found = [
                Group(name, selection.only(query.sort_by, no), "created_at", counted.by[no])
                for name, no in _values(db, query.sort_by, counted)
            ]
            found.sort(
                key=lambda group: _rank(query.sort_by, group.name),
                reverse=query.sort_order is SortOrder.DESC,
            )
            return found
        case _:
            assert_never(query.sort_by)


def precedes(query: ListQuery, name: str, other: str) -> bool:
    """Whether the group `name` stands before the group `other`, which need not be there."""
    rank, other_rank = _rank(query.sort_by, name), _rank(query.sort_by, other)
    if query.sort_by in _BY_VALUE and query.sort_order is SortOrder.DESC:
        rank, other_rank = other_rank, rank
    return rank < other_rank


_BY_VALUE: Final = frozenset({SortBy.PRIORITY, SortBy.STATUS, SortBy.TASK_TYPE})


def _by_time(
    selection: Selection, without: Selection, column: str, total: int, unset: int
) -> list[Group]:
    return [
        Group(SET, selection, column, total - unset),
        Group(UNSET, without, "created_at", unset),
    ]


def _sum(counted: Counted, statuses: Iterable[Status]) -> int:
    return sum(counted.by.get(STATUSES.index(status), 0) for status in statuses)


def _values(db: sqlite3.Connection, sort_by: SortBy, counted: Counted) -> Iterator[tuple[str, int]]:
    numbers = tuple(no for no, n in counted.by.items() if n)
    match sort_by:
        case SortBy.STATUS:
            yield from ((STATUSES[no], no) for no in numbers)
        case SortBy.PRIORITY:
            yield from ((PRIORITIES[no], no) for no in numbers)
        case _:
            wanted = one_of("no", numbers)
            yield from db.execute(f"SELECT name, no FROM names WHERE {wanted.text}", wanted.values)  # noqa: S608 - question marks only


def _rank(sort_by: SortBy, name: str) -> tuple[int, str]:
    """Where a group stands in ascending order."""
    match sort_by:
        case SortBy.STATUS:
            return STATUS_ORDER.index(Status(name)), ""
        case SortBy.PRIORITY:
            return PRIORITY_ORDER.index(Priority(name)), ""
        case _:
            # Types by their names; "set" comes before "unset" by itself.
            return 0, name
