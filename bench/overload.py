"""More tasks than the server has memory for, submitted while no worker runs; then one runs.

200,000 tasks against 256 MB: the API must refuse early, with QUEUE_FULL, and what it took must be
done later, within that memory.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import httpx2
import msgspec

from bench.children import child
from bench.measure import Goal, Measured, percentile, plain_row
from bench.rest import TASKS_PATH
from bench.roles import Options
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.workload import request_body
from ledger.task import Status
from tests.checks import check_ledger

BATCH: Final = 100
CALLERS: Final = 8
MAXMEMORY_BYTES: Final = 256 << 20
TASKS: Final = 200_000
IN_FLIGHT: Final = 200
DRAIN_TIMEOUT_S: Final = 600
NONE: Final = Goal(figure_max=0)


class Submitted(msgspec.Struct):
    """What became of the submissions, counted in tasks."""

    answers: Counter[str] = msgspec.field(default_factory=Counter[str])
    refusals_ms: list[float] = []
    memory_percent: float = 0.0
    """Used when the first one was refused."""


async def run(scale: Scale) -> Sequence[Measured]:
    """Submit, see what is refused, and let a worker do what was taken."""
    maxmemory = MAXMEMORY_BYTES * scale.overload_tasks // TASKS
    async with run_server("everysec", maxmemory_bytes=maxmemory) as server:
        async with child("api", Options(server.url)) as api:
            found = await _submit_all(api.url, server, scale.overload_tasks, maxmemory)
        taken = found.answers["201"]
        async with child("worker", Options(server.url, taken, IN_FLIGHT)) as worker:
            worker.begin()
            worked = await worker.worked(DRAIN_TIMEOUT_S)
        peak = 100 * int(await server.told("memory", "used_memory_peak")) / maxmemory
        out_of_memory = await server.told("errorstats", "errorstat_OOM")
        async with server.store() as store:
            counts = await check_ledger(store)
    other = sum(found.answers.values()) - taken - found.answers["503 QUEUE_FULL"]
    title = f"{scale.overload_tasks:,} tasks, {maxmemory >> 20} MiB"
    return [
        plain_row(f"{title}: taken", "tasks", [taken]),
        plain_row(f"{title}: 503 QUEUE_FULL", "tasks", [found.answers["503 QUEUE_FULL"]]),
        plain_row(f"{title}: answered otherwise", "tasks", [other], goal=NONE),
        plain_row("memory used at the first refusal", "%", [found.memory_percent]),
        plain_row("refusal, p99", "ms", [percentile(found.refusals_ms or [0.0], 99)]),
        plain_row(
            "taken and not done", "tasks", [taken - counts.in_status(Status.COMPLETED)], goal=NONE
        ),
        plain_row("the worker took", "s", [worked.ended - worked.began]),
        plain_row("memory used at most", "%", [peak], goal=Goal(figure_max=100)),
        plain_row(
            "kinds of errors for want of memory", "", [float(bool(out_of_memory))], goal=NONE
        ),
    ]


async def _submit_all(url: str, server: BenchServer, tasks: int, maxmemory: int) -> Submitted:
    found = Submitted()
    body = b"[%b]" % b",".join([request_body()] * BATCH)
    batches = itertools.repeat(None, tasks // BATCH)

    async def caller() -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
            for _ in batches:
                began = time.perf_counter()
                answer = await http.post(
                    f"{TASKS_PATH}/batch",
                    content=body,
                    headers={"Content-Type": "application/json"},
                )
                if answer.status_code == 201:
                    found.answers["201"] += BATCH
                    continue
                assert answer.headers["retry-after"]
                if not found.refusals_ms:
                    found.memory_percent = 100 * await server.memory_bytes() / maxmemory
                found.refusals_ms.append((time.perf_counter() - began) * 1000)
                found.answers[f"{answer.status_code} {answer.json()['code']}"] += BATCH

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return found
