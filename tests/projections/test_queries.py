"""Lists, statistics and queues equal what a brute-force fold of the ledger says."""

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from unittest import mock

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ledger.task import Priority, Status, Task
from projections.fingerprint import FINGERPRINT_BYTES
from projections.list_plan import SORT_INDEXES, Plan, Sizes, choose
from projections.list_query import Filters, ListQuery, Page, SortBy, SortOrder
from projections.queue_sizes import queue_sizes
from projections.task_list import list_tasks
from projections.task_stats import task_stats
from tests.projections import brute_force
from tests.projections.ledgers import Clock, Step, carry_out, histories, make_store, task_ids
from tests.read_models import read_model
from tests.strategies import TASK_TYPES, WORKERS

HOUR_MS = 3_600_000
ABSENT = "absent"

T = TypeVar("T")
Way = Callable[[str, bool, Sizes, int, int], Plan]


def walk(column: str, _descending: bool, _sizes: Sizes, _skip: int, _take: int) -> Plan:
    return Plan(SORT_INDEXES[column], sorts=False, cost_us=0)


def gather(column: str, descending: bool, sizes: Sizes, skip: int, take: int) -> Plan:
    if not sizes.filters:
        return walk(column, descending, sizes, skip, take)
    return Plan(sizes.filters[-1].name, sorts=True, cost_us=0)


def give_up_soon(column: str, descending: bool, sizes: Sizes, skip: int, take: int) -> Plan:
    otherwise = gather(column, descending, sizes, skip, take)
    return Plan(SORT_INDEXES[column], False, 0, entries_max=1, otherwise=otherwise)


WAYS: tuple[Way, ...] = (choose, walk, gather, give_up_soon)
"""However a page is read, it is the same page."""


@given(history=histories, data=st.data())
def test_lists_are_those_of_the_fold(history: Sequence[Step], data: st.DataObject) -> None:
    with made(history) as (tasks, db):
        for _ in range(8):
            filters, way = data.draw(filters_of(tasks)), data.draw(st.sampled_from(WAYS))
            by, order = data.draw(st.sampled_from(SortBy)), data.draw(st.sampled_from(SortOrder))
            query = ListQuery(filters, by, order, Page(data.draw(st.integers(1, 3))))
            expected = brute_force.ordered(brute_force.matching(tasks, filters), query)
            few = data.draw(st.sampled_from([0, 20_000]))
            with (
                mock.patch("projections.task_list.choose", way),
                mock.patch("projections.totals.DIRECT_MAX", few),
            ):
                assert by_pages(db, query, len(expected)) == expected
                assert by_anchors(db, query, len(expected)) == expected


@given(history=histories, data=st.data())
def test_statistics_are_those_of_the_fold(history: Sequence[Step], data: st.DataObject) -> None:
    with made(history) as (tasks, db):
        for _ in range(6):
            filters = msgspec.structs.replace(
                data.draw(filters_of(tasks)),
                worker_ids=None,
                created_before=None,
                text=None,
                fingerprints=None,
            )
            assert task_stats(db, filters) == brute_force.stats(tasks, filters)


@given(history=histories)
def test_queues_are_those_of_the_fold(history: Sequence[Step]) -> None:
    with made(history) as (tasks, db):
        found = {size.queue: size for size in queue_sizes(db)}
        busy = {
            q: size for q, size in found.items() if size.ready or size.delayed or size.processing
        }
        assert busy == brute_force.queues(tasks)


@contextmanager
def made(history: Sequence[Step]) -> Generator[tuple[list[Task], sqlite3.Connection]]:
    """The tasks that a history makes, and a read model of them."""
    with tempfile.TemporaryDirectory() as folder:

        async def make() -> tuple[list[Task], sqlite3.Connection]:
            clock = Clock()
            store = make_store(1, clock)
            await carry_out(store, clock, history)
            model = await read_model(store, Path(folder))
            tasks = [await store.load(task_id) for task_id in task_ids()]
            return [task for task in tasks if task is not None], model.db

        tasks, db = asyncio.run(make())
        try:
            yield tasks, db
        finally:
            db.close()


def filters_of(tasks: Sequence[Task]) -> st.SearchStrategy[Filters]:
    """Filters that some of the tasks may satisfy."""
    kb_ids = sorted({ABSENT, *(task.submission.kb_id for task in tasks)})
    moments = sorted(
        {moment for t in tasks for moment in _around(t.state.created_at)} or {0, HOUR_MS}
    )
    messages = [task.state.error_message for task in tasks if task.state.error_message]
    texts = [variant for m in messages for variant in (m, m[1:3] or m, m.upper(), m.swapcase())]
    return st.builds(
        Filters,
        kb_ids=_some(kb_ids),
        statuses=_some(list(Status)),
        task_types=_some([*TASK_TYPES, ABSENT]),
        priorities=_some(list(Priority)),
        worker_ids=_some([*WORKERS, ABSENT]),
        created_after=st.none() | st.sampled_from(moments),
        created_before=st.none() | st.sampled_from(moments),
        text=st.none() | st.sampled_from([ABSENT, *texts]),
        fingerprints=_some(fingerprints_of(tasks)),
    )


def fingerprints_of(tasks: Sequence[Task]) -> list[bytes]:
    """Those of the tasks that failed, and one of none."""
    found = {brute_force.fingerprint_of(task) for task in tasks} - {None}
    return [b"\0" * FINGERPRINT_BYTES, *sorted(one for one in found if one is not None)]


def _around(ms: int) -> tuple[int, ...]:
    hour = ms // HOUR_MS * HOUR_MS
    return ms - 1, ms, ms + 1, hour - 1, hour, hour + HOUR_MS


def _some(values: Sequence[T]) -> st.SearchStrategy[tuple[T, ...] | None]:
    several = st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True).map(tuple)
    return st.none() | st.none() | several


def by_pages(db: sqlite3.Connection, query: ListQuery, total: int) -> list[str]:
    """All ids, page after page, by number."""
    found: list[str] = []
    for skip in range(0, total + query.page.size, query.page.size):
        page = msgspec.structs.replace(query.page, skip=skip)
        listed = list_tasks(db, msgspec.structs.replace(query, page=page))
        assert listed.total == total
        assert (listed.following is None) == (skip + query.page.size >= total)
        found += (row.id for row in listed.rows)
    return found


def by_anchors(db: sqlite3.Connection, query: ListQuery, total: int) -> list[str]:
    """All ids, each page behind the one before."""
    found: list[str] = []
    for _ in range(total + 1):
        listed = list_tasks(db, query)
        found += (row.id for row in listed.rows)
        if listed.following is None:
            return found
        page = msgspec.structs.replace(query.page, after=listed.following)
        query = msgspec.structs.replace(query, page=page)
    raise AssertionError("the pages have no end")
