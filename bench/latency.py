"""From a submission to the start of its handler, on an idle system with every append synced.

Tasks come at a steady pace, each to a worker that sleeps. The clock starts before the submission
is made, so that all of it counts: the write, its fsync, the worker's waking, the start's own write
and fsync. Both ends read the machine's monotonic clock.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bench.children import child
from bench.floor import WAKE_FLOOR, wakes_ms
from bench.http_load import Connection, Request
from bench.measure import Goal, Measured, percentile, row
from bench.rest import TASKS_PATH
from bench.roles import Options
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.workload import new_id, new_submission, request_body, stamped_payload
from ledger.commands import SubmitTask
from ledger.transact import transact

PER_SECOND: Final = 50
WARM_UP_TASKS: Final = 10
P50_GOAL: Final = Goal(figure_max=3.0)
P99_GOAL: Final = Goal(figure_max=10.0)

Submit = Callable[[], Awaitable[object]]


async def run(scale: Scale) -> Sequence[Measured]:
    """p50 and p99, submitted over REST and through `transact`."""
    samples: dict[str, list[list[float]]] = {"REST": [], "transact": []}
    floors: list[list[float]] = []
    async with run_server("always") as server:
        for _ in range(scale.paced_rounds):
            floors.append(await wakes_ms(server, scale.paced_tasks, PER_SECOND))
            await server.empty()
            samples["REST"].append(await _over_rest(server, scale.paced_tasks))
            await server.empty()
            samples["transact"].append(await _through_transact(server, scale.paced_tasks))
    rows: list[Measured] = []
    for way, rounds in samples.items():
        for percent, goal in ((50, P50_GOAL), (99, P99_GOAL)):
            pairs = [
                (percentile(taken, percent), percentile(below, percent))
                for taken, below in zip(rounds, floors, strict=True)
            ]
            title = f"submit to start, {way}, p{percent}"
            rows.append(row(title, "ms", pairs, floor_name=WAKE_FLOOR, goal=goal))
    return rows


async def _over_rest(server: BenchServer, count: int) -> list[float]:
    async with child("api", Options(server.url)) as api:
        connection = await Connection.open(api.url)

        async def submit() -> None:
            request = Request(api.url + TASKS_PATH, request_body(stamped_payload()))
            await connection.ask(request.as_bytes())

        try:
            return await _waits_ms(server, count, submit)
        finally:
            await connection.close()


async def _through_transact(server: BenchServer, count: int) -> list[float]:
    async with server.store() as store:

        async def submit() -> None:
            await transact(store, new_id(), SubmitTask(new_submission(stamped_payload())))

        return await _waits_ms(server, count, submit)


async def _waits_ms(server: BenchServer, count: int, submit: Submit) -> list[float]:
    total = WARM_UP_TASKS + count
    async with child("worker", Options(server.url, total)) as worker:
        worker.begin()
        for _ in range(total):
            await asyncio.sleep(1 / PER_SECOND)
            await submit()
        worked = await worker.worked()
    return list(worked.waits_ms[WARM_UP_TASKS:])
