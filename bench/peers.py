"""The columns that other task queues were measured by, for a comparison in the README.

No floors here: these figures stand beside those of other systems on the same work.
"""

from collections.abc import Sequence

from bench.drain import drains_per_s, lives_per_s
from bench.measure import Measured, plain_row
from bench.scale import Scale
from bench.servers import BenchServer, Durability, run_server
from bench.submit import CALLERS, submissions_per_s
from bench.workload import submit


async def run(scale: Scale) -> Sequence[Measured]:
    """Memory only, and synced once a second."""
    rows: list[Measured] = []
    durabilities: tuple[Durability, ...] = ("memory", "everysec")
    for durability in durabilities:
        async with run_server(durability) as server:
            rows += await _columns(server, durability, scale)
    return rows


async def _columns(server: BenchServer, durability: str, scale: Scale) -> list[Measured]:
    count, rounds = scale.peer_tasks, range(scale.peer_rounds)
    singles = [await submissions_per_s(server, count // 5, 1) for _ in rounds]
    many = [await submissions_per_s(server, count, CALLERS) for _ in rounds]
    drains = [await drains_per_s(server, count, CALLERS) for _ in rounds]
    both = [await lives_per_s(server, count, CALLERS) for _ in rounds]
    rows = [
        plain_row(f"{durability}: submit one by one", "tasks/s", singles),
        plain_row(f"{durability}: submit many", "tasks/s", many),
        plain_row(f"{durability}: drain", "tasks/s", drains),
        plain_row(f"{durability}: submit and drain at once", "tasks/s", both),
    ]
    if durability == "memory":
        size = await _bytes_per_queued_task(server, count)
        rows.append(plain_row(f"{durability}: bytes of a queued task", "bytes", [size]))
    return list[Measured](rows)


async def _bytes_per_queued_task(server: BenchServer, count: int) -> float:
    await server.empty()
    async with server.store() as store:
        before = await server.memory_bytes()
        await submit(store, count, CALLERS)
        return (await server.memory_bytes() - before) / count
