"""Failed tasks by the way in which they failed: what the groups cost, with and without filters."""

import time
from collections.abc import Iterator
from typing import Final

from api.dead_letters import group_view
from bench.measure import Goal, Measured, percentile, plain_row, row
from bench.skewed import BEGIN_MS, SPAN_MS
from ledger.codec import encode
from ledger.events import ErrorKind
from projections.dead_letters import FailureFilters
from projections.queries import ReadModels, Wanted

GOAL: Final = Goal(figure_max=50.0)
ROUNDS: Final = 20
SIZE: Final = 20
NOW: Final = Wanted({})


def questions() -> Iterator[tuple[str, FailureFilters]]:
    """Each by its name."""
    half = BEGIN_MS + SPAN_MS // 2
    yield "all", FailureFilters()
    yield "one kb", FailureFilters(kb_ids=("kb-0",))
    yield "three kbs", FailureFilters(kb_ids=("kb-0", "kb-5", "kb-150"))
    yield "one type", FailureFilters(task_types=("document_processing",))
    yield "one kind of error", FailureFilters(error_kinds=(ErrorKind.RETRYABLE,))
    yield "failed in the later half", FailureFilters(failed_after=half)
    yield "failed ever, counted", FailureFilters(failed_after=0)
    yield "created in the later half, one kb", FailureFilters(kb_ids=("kb-0",), created_after=half)


async def measure(models: ReadModels, tasks: str, bare_ms: float, bare: str) -> list[Measured]:
    """The groups of so many `tasks`, in an API process without HTTP."""
    took_ms: dict[str, list[float]] = {}
    failed = 0
    for name, filters in questions():
        for _ in range(ROUNDS):
            began = time.perf_counter()
            found = (await models.failure_groups(filters, 0, SIZE, NOW)).found
            encode(list(map(group_view, found.groups)))
            took_ms.setdefault(name, []).append((time.perf_counter() - began) * 1000)
            failed = max(failed, found.tasks)
    for name, each in took_ms.items():
        print(f"  {percentile(each, 50):6.1f} ms, dead letters: {name}")
    title = f"dead letters, {failed:,} of {tasks}"
    every = [ms for each in took_ms.values() for ms in each]
    return [
        row(f"{title}, p99", "ms", [(percentile(every, 99), bare_ms)], floor_name=bare, goal=GOAL),
        plain_row(f"{title}, without filters, p50", "ms", [percentile(took_ms["all"], 50)]),
    ]
