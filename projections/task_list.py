"""One page of the list, read from one state of the file."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

import msgspec

from projections.list_groups import COUNTED_BY, Group, groups, precedes
from projections.list_plan import Plan, Sizes, choose
from projections.list_query import Anchor, Listed, ListQuery, Row, SortOrder
from projections.selection import (
    FILTER_INDEXES,
    Sql,
    all_of,
    conditions,
    created_within,
    one_of,
    select,
)
from projections.totals import Census, count, filter_indexes

_INDEX_COLUMNS: Final = {index: column for column, index in FILTER_INDEXES.items()}

Found = tuple[int, bytes]
"""The time that a task is sorted by, and its id."""


def list_tasks(db: sqlite3.Connection, query: ListQuery) -> Listed:
    """Read a page. Call it within a transaction, so that the page and its total agree."""
    return _Reading(db, query).listed()


class _Reading:
    def __init__(self, db: sqlite3.Connection, query: ListQuery) -> None:
        self._db, self._query = db, query
        self._descending = query.sort_order is SortOrder.DESC
        self._direction = "DESC" if self._descending else "ASC"
        self._selection = select(db, query.filters)
        self._census = Census(db, self._selection.columns.get("kb"))
        by = COUNTED_BY.get(query.sort_by)
        self._counted = count(db, self._census, self._selection, by)

    def listed(self) -> Listed:
        size = self._query.page.size
        # One more, to know whether another page follows.
        found = list(self._anchors(size + 1))
        following = found[size - 1] if len(found) > size else None
        rows = _rows(self._db, [anchor.id for anchor in found[:size]])
        return Listed(rows, self._counted.total, following)

    def _anchors(self, needed: int) -> Iterator[Anchor]:
        skip, after = self._query.page.skip, self._query.page.after
        if self._counted.total == 0:
            return
        for group in groups(self._db, self._census, self._selection, self._counted, self._query):
            if after is not None and precedes(self._query, group.name, after.group):
                continue
            if skip >= group.n:
                skip -= group.n
                continue
            start = after if after is not None and group.name == after.group else None
            found = self._read(group, start, skip, needed)
            yield from (Anchor(group.name, at, task_id) for at, task_id in found)
            skip, needed = 0, needed - len(found)
            if needed == 0:
                return

    def _read(self, group: Group, start: Anchor | None, skip: int, take: int) -> list[Found]:
        parts = [*conditions(group.selection), *self._bounds(group, start)]
        if group.selection.aside is not None:
            return self._page(group.selection.aside, group.column, parts, skip, take)
        plan = choose(group.column, self._descending, self._sizes(group), skip, take)
        if plan.sorts:
            return self._gathered(plan, group.column, parts, skip, take)
        if plan.otherwise is None:
            return self._page(_indexed(plan), group.column, parts, skip, take)
        end = self._end_of_walk(plan, group, start)
        found = self._page(_indexed(plan), group.column, [*parts, *end], skip, take)
        if end and len(found) < min(take, group.n - skip):
            found = self._gathered(plan.otherwise, group.column, parts, skip, take)
        return found

    def _sizes(self, group: Group) -> Sizes:
        tasks, span = self._census.tasks, self._counted.span
        filters = [
            msgspec.structs.replace(index, entries=max(group.n, int(index.entries * span)))
            for index in filter_indexes(self._census, group.selection)
        ]
        newer = int(tasks * self._counted.newer)
        return Sizes(tasks, group.n, max(int(tasks * span), group.n), newer, tuple(filters))

    def _bounds(self, group: Group, start: Anchor | None) -> Iterator[Sql]:
        """What an index in the group's order can be entered by, beside the filters."""
        column, selection = group.column, group.selection
        if column in ("started_at", "completed_at"):
            yield Sql(f"{column} IS NOT NULL")
        if column != "created_at" and selection.created_after is not None:
            # Nothing happens to a task before it is created.
            yield Sql(f"{column} > ?", (selection.created_after,))
        if start is not None:
            sign = "<" if self._descending else ">"
            yield Sql(f"({column}, id) {sign} (?, ?)", (start.at, start.id))

    def _end_of_walk(self, plan: Plan, group: Group, start: Anchor | None) -> list[Sql]:
        """The condition that ends a walk after `entries_max` entries; none if it has fewer."""
        parts = list(self._bounds(group, start))
        if group.column == "created_at":
            parts += created_within(group.selection)
        column = _INDEX_COLUMNS.get(plan.index)
        if column is not None:
            parts.append(one_of(column, group.selection.columns[column]))
        found = self._page(_indexed(plan), group.column, parts, plan.entries_max, 1)
        sign = ">=" if self._descending else "<="
        return [Sql(f"({group.column}, id) {sign} (?, ?)", last) for last in found]

    def _gathered(
        self, plan: Plan, column: str, parts: Sequence[Sql], skip: int, take: int
    ) -> list[Found]:
        """What `plan.index` leaves, sorted. The index is read in the direction of the list: what
        comes first there mostly comes first here too, and what follows need not be kept."""
        if not self._descending:
            return self._page(_indexed(plan), column, parts, skip, take)
        first = _INDEX_COLUMNS.get(plan.index)
        backwards = ", ".join(f"{c} DESC" for c in (first, "created_at", "id") if c is not None)
        where = all_of(parts)
        inner = f"SELECT {column}, id FROM {_indexed(plan)}{where.text} ORDER BY {backwards}"  # noqa: S608 - names of ours
        # The limit, which is none, keeps SQLite from dropping the inner order.
        return self._db.execute(
            f"SELECT {column}, id FROM ({inner} LIMIT -1)"  # noqa: S608 - names of ours
            f" ORDER BY {column} DESC, id DESC LIMIT ? OFFSET ?",
            (*where.values, take, skip),
        ).fetchall()

    def _page(
        self, source: str, column: str, parts: Sequence[Sql], skip: int, take: int
    ) -> list[Found]:
        where = all_of(parts)
        return self._db.execute(
            f"SELECT {column}, id FROM {source}{where.text}"  # noqa: S608 - names of ours
            f" ORDER BY {column} {self._direction}, id {self._direction} LIMIT ? OFFSET ?",
            (*where.values, take, skip),
        ).fetchall()


def _indexed(plan: Plan) -> str:
    return f"tasks INDEXED BY {plan.index}"


def _rows(db: sqlite3.Connection, ids: Sequence[bytes]) -> tuple[Row, ...]:
    if not ids:
        return ()
    marks = ", ".join("?" * len(ids))
    found = db.execute(
        "SELECT id, version, submission, state FROM tasks JOIN submissions USING (id)"  # noqa: S608 - question marks only
        f" WHERE id IN ({marks})",
        ids,
    )
    rows = {row[0]: Row(str(UUID(bytes=row[0])), *row[1:]) for row in found}
    return tuple(rows[task_id] for task_id in ids)
