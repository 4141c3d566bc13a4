"""Whole lives of no-op tasks: submitted, started and completed, with one worker process.

The submitter and the worker are processes of their own, as in real life. `lives` runs both at once,
from the first submission to the last completion; `drain` runs the worker alone on a full queue.
"""

import functools
from collections.abc import Sequence
from typing import Final

from bench.children import child
from bench.floor import APPEND_FLOOR, BATCH_APPENDS, appends_per_s
from bench.measure import Goal, Measured, alternate, row
from bench.roles import Options
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.submit import CALLERS
from bench.workload import submit

GOAL: Final = Goal(ratio_min=0.2)


async def lives_per_s(server: BenchServer, count: int, concurrency: int) -> float:
    """Tasks per second, submitted and drained at once."""
    await server.empty()
    options = Options(server.url, count, concurrency)
    async with child("worker", options) as worker, child("submitter", options) as submitter:
        worker.begin()
        submitter.begin()
        submitted, worked = await submitter.worked(), await worker.worked()
    return count / (worked.ended - submitted.began)


async def drains_per_s(server: BenchServer, count: int, concurrency: int) -> float:
    """Tasks per second of a worker alone, from a queue that holds them all."""
    await server.empty()
    async with server.store() as store:
        await submit(store, count, CALLERS)
    async with child("worker", Options(server.url, count, concurrency)) as worker:
        worker.begin()
        worked = await worker.worked()
    return count / (worked.ended - worked.began)


async def run(scale: Scale) -> Sequence[Measured]:
    """Memory only, and each append synced; with more in flight, batches are larger."""
    rows: list[Measured] = []
    async with run_server("memory") as memory, run_server("always") as synced:
        floor = functools.partial(appends_per_s, memory, scale.floor_appends, BATCH_APPENDS)
        for title, measure, server, in_flight, goal in (
            ("whole lives, 200 in flight", lives_per_s, memory, 200, GOAL),
            ("drain, 200 in flight", drains_per_s, memory, 200, None),
            ("whole lives, 100, appendfsync always", lives_per_s, synced, 100, None),
            ("whole lives, 400, appendfsync always", lives_per_s, synced, 400, None),
        ):
            figure = functools.partial(measure, server, scale.lives, in_flight)
            pairs = await alternate(scale.rounds, floor, figure)
            rows.append(row(title, "tasks/s", pairs, floor_name=APPEND_FLOOR, goal=goal))
    return rows
