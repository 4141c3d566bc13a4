"""How a list is read at the least cost: one explicit choice among the indexes.

Two ways lead to a page. A *walk* follows an index in the list's own order and picks what matches,
until the page is full: quick when much matches. A *gathering* reads what the narrowest filter
leaves, from that filter's index, and sorts it: quick when little matches.

Costs are in µs, measured with SQLite 3.40 on a million tasks. How many tasks match is known before
a plan is made, but not where they stand in the order: a walk takes them to be spread evenly. When
they are not, it can go through everything. Where gathering is far cheaper than that, a walk gets a
quarter of what gathering costs, and gathering follows when that was not enough.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

WALK_US: Final = 0.065
"""An index entry, looked at."""

PASS_US: Final = 0.012
"""An index entry passed over where all match: nothing of it has to be read."""

SORT_US: Final = 0.25
"""A match, put in order where only the first ones are kept."""

SORT_DEEP_US: Final = 0.4
"""The same where many are kept."""

DEEP: Final = 1_000

SORT_INDEXES: Final = {
    "created_at": "tasks_created",
    "updated_at": "tasks_updated",
    "started_at": "tasks_started",
    "completed_at": "tasks_completed",
}


class FilterIndex(msgspec.Struct, frozen=True):
    """An index that begins with a filter's column, then is in order of created_at.

    `entries` is how many of them the filter leaves; `ordered`: it names one value, so that they
    are in order of creation."""

    name: str
    entries: int
    ordered: bool


class Sizes(msgspec.Struct, frozen=True):
    """How many tasks there are, match, lie within the bounds on created_at, and were created later
    than those (the latter two whatever the other filters)."""

    tasks: int
    matching: int
    span: int
    newer: int
    filters: tuple[FilterIndex, ...]


class Plan(msgspec.Struct, frozen=True):
    """`index` is walked in the list's order, or, if `sorts`, read and sorted. A walk ends after
    `entries_max` entries (0: no bound), and `otherwise` follows when the page is not full then."""

    index: str
    sorts: bool
    cost_us: float
    entries_max: int = 0
    otherwise: "Plan | None" = None


def choose(column: str, descending: bool, sizes: Sizes, skip: int, take: int) -> Plan:
    """The cheapest way to `take` tasks after the first `skip` ones in order of `column`."""
    walk = min(_walks(column, descending, sizes, skip + take), key=_cost)
    gathering = min(_gatherings(column, sizes, skip + take), key=_cost, default=None)
    if gathering is None:
        return walk
    whole_walk_us = WALK_US * (sizes.span + sizes.newer)
    if gathering.cost_us * 2 >= whole_walk_us:
        return min(walk, gathering, key=_cost)
    if walk.cost_us > gathering.cost_us / 4:
        return gathering
    entries_max = int(gathering.cost_us / 4 / WALK_US)
    return msgspec.structs.replace(walk, entries_max=entries_max, otherwise=gathering)


def _cost(plan: Plan) -> float:
    return plan.cost_us


def _walks(column: str, descending: bool, sizes: Sizes, needed: int) -> Iterator[Plan]:
    if column == "created_at":
        yield _walk(SORT_INDEXES[column], sizes.span, sizes.matching, needed, 0)
        for index in sizes.filters:
            if index.ordered:
                yield _walk(index.name, index.entries, sizes.matching, needed, 0)
        return
    # The other times follow creation, more or less: what was created too late comes first. What
    # was created too early does not come at all, since nothing happens to a task before that.
    before = sizes.newer if descending else 0
    yield _walk(SORT_INDEXES[column], sizes.span, sizes.matching, needed, before)


def _walk(index: str, entries: int, matching: int, needed: int, before: int) -> Plan:
    if matching >= entries:
        return Plan(index, False, PASS_US * needed)
    visited = entries if needed >= matching else entries * needed / matching
    return Plan(index, False, WALK_US * (before + visited))


def _gatherings(column: str, sizes: Sizes, needed: int) -> Iterator[Plan]:
    sort_us = SORT_DEEP_US if needed > DEEP else SORT_US
    candidates: Sequence[FilterIndex] = sizes.filters
    if column != "created_at" and sizes.span < sizes.tasks:
        candidates = (*candidates, FilterIndex("tasks_created", sizes.span, False))
    for index in candidates:
        if column == "created_at" and index.ordered:
            continue  # a walk along it is never dearer
        yield Plan(index.name, True, WALK_US * index.entries + sort_us * sizes.matching)
