"""Submissions through `transact` in one process: a hundred callers at once, and one alone."""

import functools
from collections.abc import Sequence
from typing import Final

from bench.floor import APPEND_FLOOR, BATCH_APPENDS, SINGLE_FLOOR, appends_per_s
from bench.measure import Goal, Measured, alternate, row
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.workload import submit

CALLERS: Final = 100
GOAL: Final = Goal(ratio_min=0.4)


async def submissions_per_s(server: BenchServer, count: int, callers: int) -> float:
    """Submissions per second, in this process, into an empty ledger."""
    await server.empty()
    async with server.store() as store:
        began, ended = await submit(store, count, callers)
    return count / (ended - began)


async def run(scale: Scale) -> Sequence[Measured]:
    """Memory only and with each append synced, beside the same memory-only floor."""
    rows: list[Measured] = []
    async with run_server("memory") as memory, run_server("always") as synced:
        floor = functools.partial(appends_per_s, memory, scale.floor_appends, BATCH_APPENDS)
        for title, server, goal in (
            ("submissions, 100 callers", memory, GOAL),
            ("submissions, 100 callers, appendfsync always", synced, None),
        ):
            figure = functools.partial(submissions_per_s, server, scale.submissions, CALLERS)
            pairs = await alternate(scale.rounds, floor, figure)
            rows.append(row(title, "tasks/s", pairs, floor_name=APPEND_FLOOR, goal=goal))
        single_floor = functools.partial(appends_per_s, memory, scale.single_submissions, 1)
        figure = functools.partial(submissions_per_s, memory, scale.single_submissions, 1)
        pairs = await alternate(scale.rounds, single_floor, figure)
        rows.append(row("submissions, one caller", "tasks/s", pairs, floor_name=SINGLE_FLOOR))
    return rows
