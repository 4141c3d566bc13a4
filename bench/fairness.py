"""How long the first task of one kb_id waits while another has very many waiting.

A backlog of one kb_id is worked off by one worker process; meanwhile tasks of other kb_ids come,
one of each. Told are the tasks that were started between a submission and its own start, and how
long that took, beside the same with nothing else waiting.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from bench.children import child
from bench.measure import Goal, Measured, percentile, plain_row, row
from bench.roles import Options
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.submit import CALLERS
from bench.workload import new_id, new_submission, stamped_payload, submit
from ledger.commands import SubmitTask
from ledger.keys import PartitionKeys
from ledger.placement import STAGED_MAX
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.transact import transact

CONCURRENCY: Final = 50
FIRST_TASKS: Final = 20
EVERY_S: Final = 0.05

AHEAD_MAX: Final = STAGED_MAX + CONCURRENCY
"""Those that stand in line, and those that the worker has claimed already; the others' first tasks
come one at a time, so that none of them is ahead of another."""

IDLE_FLOOR: Final = "the same with nothing else waiting"


async def run(scale: Scale) -> Sequence[Measured]:
    async with run_server("memory") as server:
        idle_ms, _ = await _first_tasks(server, 0)
        waits_ms, ahead = await _first_tasks(server, scale.greedy_tasks)
    behind = f"first task of a kb_id behind {scale.greedy_tasks:,} of another"
    goal = Goal(figure_max=AHEAD_MAX)
    pairs = [(percentile(waits_ms, 50), percentile(idle_ms, 50))]
    slow = [(percentile(waits_ms, 99), percentile(idle_ms, 99))]
    return [
        plain_row(f"{behind}: started before it, most", "tasks", [float(max(ahead))], goal=goal),
        row(f"{behind}: wait, p50", "ms", pairs, floor_name=IDLE_FLOOR),
        row(f"{behind}: wait, p99", "ms", slow, floor_name=IDLE_FLOOR),
    ]


async def _first_tasks(server: BenchServer, greedy: int) -> tuple[list[float], list[int]]:
    """Waits in ms, and how many tasks were started meanwhile, of each."""
    await server.empty()
    async with server.store() as store:
        await submit(store, greedy, CALLERS)
        total = greedy + FIRST_TASKS
        async with child("worker", Options(server.url, total, CONCURRENCY)) as worker:
            worker.begin()
            task_ids = [new_id() for _ in range(FIRST_TASKS)]
            for number, task_id in enumerate(task_ids):
                await asyncio.sleep(EVERY_S)
                wanted = new_submission(stamped_payload(), kb_id=f"modest-{number}")
                await transact(store, task_id, SubmitTask(wanted))
            worked = await worker.worked()
        ahead = [await _started_between(server, store, task_id) for task_id in task_ids]
    return list(worked.waits_ms), ahead


async def _started_between(server: BenchServer, store: RedisStore, task_id: str) -> int:
    submitted, started, *_ = await store.history(task_id)
    first, last = submitted.position.entry, started.position.entry
    entries = await send(server.client, ("XRANGE", PartitionKeys(0).events, first, last))
    return sum(b"TaskStarted" in fields for _, fields in entries) - 1
