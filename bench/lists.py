"""Lists and statistics on the read model of many tasks: every pair of filters, in every order.

For each pair of filters with several values of each, rare and common ones, the first page and page
1,000 are read in every order, as an API process does it: plan, search, rows, and the JSON of the
answer; only HTTP and the queue positions, which come from the store, are left out. A percentile is
one over all these questions, each put once. Page 1,000 counts where there is one.
"""

import itertools
import re
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Raw

from api.bulk_retry import LIMIT_DEFAULT
from api.task_stats import stats_view
from api.wire import task_view
from bench import dead_letters
from bench.measure import Goal, Measured, percentile, plain_row, row
from bench.scale import Scale
from bench.skewed import BEGIN_MS, SPAN_MS, make
from ledger.codec import decode_task, encode
from ledger.events import Priority
from ledger.task import Status
from projections.dead_letters import failed_tasks, list_groups
from projections.list_query import Filters, Listed, ListQuery, Page, SortBy, SortOrder
from projections.queries import ReadModels, Wanted
from projections.task_list import list_tasks

FIRST_GOAL: Final = Goal(figure_max=50.0)
DEEP_GOAL: Final = Goal(figure_max=100.0)
STATS_GOAL: Final = Goal(figure_max=20.0)
BARE: Final = "the 20 rows of such a page, by their ids, and their JSON"
PAGES: Final = (Page(20), Page(20, skip=20 * 999))
STATS_ROUNDS: Final = 200
SLOWEST: Final = 5
PLANNED_EVERY: Final = 7
"""Plans are asked for of one question in so many."""

NOW: Final = Wanted({})
_BOUNDS: Final = re.compile(r" \((?!subquery).*\)")


def _at(share: float) -> int:
    return BEGIN_MS + int(SPAN_MS * share)


FILTERS: Final[dict[str, tuple[Filters, ...]]] = {
    "kb_id": tuple(Filters(kb_ids=(f"kb-{i}",)) for i in (0, 5, 150)),
    "status": tuple(
        Filters(statuses=s)
        for s in (
            *((status,) for status in Status if status is not Status.RETRYING),
            (Status.FAILED, Status.CANCELED),
        )
    ),
    "task_type": tuple(
        Filters(task_types=(t,))
        for t in ("document_processing", "knowledge_indexing", "health_check")
    ),
    "priority": tuple(
        Filters(priorities=p)
        for p in (
            *((priority,) for priority in (Priority.NORMAL, Priority.LOW, Priority.CRITICAL)),
            (Priority.CRITICAL, Priority.HIGH),
        )
    ),
    "worker_id": (Filters(worker_ids=("worker-3",)), Filters(worker_ids=("worker-5", "worker-9"))),
    "created_after": tuple(Filters(created_after=_at(share)) for share in (0.1, 0.5, 0.97)),
    "created_before": tuple(Filters(created_before=_at(share)) for share in (0.03, 0.5, 0.97)),
    "q": tuple(Filters(text=text) for text in ("timeout", "(77", "nothing says this")),
}
ORDERS: Final = tuple(itertools.product(SortBy, SortOrder))


class Timed(NamedTuple):
    """One question, what it found, and how long that took in ms: by the clock, and of the
    processor, which others do not lengthen."""

    name: str
    took_ms: float
    worked_ms: float
    listed: Listed


async def run(scale: Scale) -> Sequence[Measured]:
    """First pages, pages 1,000 and statistics; prints the slowest questions and the plans."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
        path = make(Path(folder), scale.listed_tasks)
        models = ReadModels(Path(folder), wait_ms=0)
        try:
            first, deep = [
                [
                    await _list(models, name, query)
                    for name, query in _questions(page, scale.list_questions_every)
                ]
                for page in PAGES
            ]
            stats = [await _stats(models, f) for f in (Filters(), Filters(kb_ids=("kb-0",)))]
            bare = _bare_ms(path, first)
            letters = await dead_letters.measure(
                models, f"{scale.listed_tasks:,} tasks", bare, BARE
            )
        finally:
            await models.close()
        _print_plans(path)
    deep = [timed for timed in deep if timed.listed.rows]
    tasks = f"{scale.listed_tasks:,} tasks"
    rows = _rows(f"first page, {tasks}", first, bare, FIRST_GOAL)
    if deep:
        rows += _rows(f"page 1,000, {tasks}", deep, bare, DEEP_GOAL)
    for name, took_ms in zip(("all", "one kb"), stats, strict=True):
        pairs = [(percentile(took_ms, 99), bare)]
        rows.append(row(f"stats of {name}, p99", "ms", pairs, floor_name=BARE, goal=STATS_GOAL))
    return [*rows, *letters]


def _rows(title: str, timed: Sequence[Timed], bare_ms: float, goal: Goal) -> list[Measured]:
    took_ms = [one.took_ms for one in timed]
    print(f"{title}: {len(timed):,} questions; the slowest:")
    for one in sorted(timed, key=lambda t: -t.took_ms)[:SLOWEST]:
        print(f"  {one.took_ms:6.1f} ms, {one.listed.total:>9,} match: {one.name}")
    return [
        row(
            f"{title}, p99",
            "ms",
            [(percentile(took_ms, 99), bare_ms)],
            floor_name=BARE,
            goal=goal,
        ),
        plain_row(
            f"{title}, p99 of processor time",
            "ms",
            [percentile([one.worked_ms for one in timed], 99)],
        ),
        plain_row(f"{title}, p50", "ms", [percentile(took_ms, 50)]),
        plain_row(f"{title}, slowest", "ms", [max(took_ms)]),
    ]


def _questions(page: Page, every: int) -> Iterator[tuple[str, ListQuery]]:
    return itertools.islice(_every_question(page), 0, None, every)


def _every_question(page: Page) -> Iterator[tuple[str, ListQuery]]:
    for (one, ones), (other, others) in itertools.combinations(FILTERS.items(), 2):
        for first, second in itertools.product(ones, others):
            filters = _both(first, second)
            if filters is not None:
                for by, order in ORDERS:
                    values = f"{_shown(first)} {_shown(second)}"
                    name = f"{one} and {other} by {by.value} {order.value} ({values})"
                    yield name, ListQuery(filters, by, order, page)


def _both(first: Filters, second: Filters) -> Filters | None:
    given = msgspec.structs.asdict(first) | {
        name: value for name, value in msgspec.structs.asdict(second).items() if value is not None
    }
    filters = Filters(**given)
    after, before = filters.created_after, filters.created_before
    # The API refuses what contradicts itself.
    return None if after is not None and before is not None and after >= before else filters


def _shown(filters: Filters) -> str:
    [value] = [v for v in msgspec.structs.asdict(filters).values() if v is not None]
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownArgumentType] # of names


async def _list(models: ReadModels, name: str, query: ListQuery) -> Timed:
    began, before = time.perf_counter(), time.process_time()
    listed = (await models.tasks(query, NOW)).found
    tasks = [decode_task(r.id, r.version, r.submission, r.state) for r in listed.rows]
    encode([task_view(task, 0, None) for task in tasks])
    worked_s, took_s = time.process_time() - before, time.perf_counter() - began
    return Timed(name, took_s * 1000, worked_s * 1000, listed)


async def _stats(models: ReadModels, filters: Filters) -> list[float]:
    took_ms: list[float] = []
    for _ in range(STATS_ROUNDS):
        began = time.perf_counter()
        encode(stats_view((await models.stats(filters, NOW)).found))
        took_ms.append((time.perf_counter() - began) * 1000)
    return took_ms


def _bare_ms(path: Path, timed: Sequence[Timed]) -> float:
    """p99 of reading what the first pages hold by bare SQLite, and of making JSON of it."""
    took_ms: list[float] = []
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    for ids in (tuple(UUID(r.id).bytes for r in one.listed.rows) for one in timed):
        began = time.perf_counter()
        marks = ", ".join("?" * len(ids))
        found = db.execute(
            "SELECT version, submission, state FROM tasks JOIN submissions USING (id)"  # noqa: S608 - question marks only
            f" WHERE id IN ({marks})",
            ids,
        )
        encode([(version, Raw(submission), Raw(state)) for version, submission, state in found])
        took_ms.append((time.perf_counter() - began) * 1000)
    db.close()
    return percentile(took_ms, 99)


def _print_plans(path: Path) -> None:
    """What SQLite says of statements that the questions became; bounds of a range are left out."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    for page in PAGES:
        for _, query in _questions(page, PLANNED_EVERY):
            list_tasks(db, query)
    for _, filters in dead_letters.questions():
        list_groups(db, filters, 0, dead_letters.SIZE)
        failed_tasks(db, filters, LIMIT_DEFAULT)
    db.set_trace_callback(None)
    plans = Counter(_plan(db, statement) for statement in statements)
    db.close()
    print(f"query plans of {plans.total():,} statements:")
    for plan, times in plans.most_common():
        print(f"  {times:>6,}  {plan}")
    whole = [plan for plan in plans if _reads_whole_table(plan)]
    assert not whole, f"a table is read as a whole: {whole}"


def _plan(db: sqlite3.Connection, statement: str) -> str:
    steps = db.execute(f"EXPLAIN QUERY PLAN {statement}")
    return "; ".join(_BOUNDS.sub("", step[3]) for step in steps)


def _reads_whole_table(plan: str) -> bool:
    """A search of texts reads all of `errors`, which is what that table is for."""
    return any(
        step.startswith("SCAN") and "USING" not in step and step not in ("SCAN errors",)
        for step in plan.split("; ")
        if "subquery" not in step
    )
