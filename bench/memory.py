"""Resident memory of an API process and of a worker process, once many tasks went through both."""

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.children import Child, child
from bench.http_load import CONNECTIONS, Connection, Request, close_all
from bench.measure import Goal, Measured, Row, Skipped, row
from bench.rest import TASKS_PATH
from bench.roles import Options
from bench.scale import Scale
from bench.servers import run_server
from bench.workload import request_body

GOAL: Final = Goal(figure_max=100.0)
BARE_API: Final = "bare Starlette route in the same server, after as many requests"
BARE_CLIENT: Final = "Python with uvloop and a redis-py connection"


STATUS: Final = Path("/proc/self/status")


async def run(scale: Scale) -> Sequence[Measured]:
    """VmRSS, and PSS: resident memory with shared pages divided by who shares them."""
    if not await asyncio.to_thread(STATUS.exists):
        return [Skipped("memory", "there is no /proc here to read it from")]
    count = scale.done_tasks
    async with (
        run_server("memory") as server,
        child("api", Options(server.url)) as api,
        child("worker", Options(server.url, count)) as worker,
        child("bare", Options()) as bare,
        child("pinger", Options(server.url)) as pinger,
    ):
        worker.begin()
        await _post(Request(api.url + TASKS_PATH, request_body()), count)
        await worker.worked()
        await _post(Request(bare.url, request_body()), count)
        return [
            *_rows(f"API process, {count:,} tasks done", api, bare, BARE_API),
            *_rows(f"worker process, {count:,} tasks done", worker, pinger, BARE_CLIENT),
        ]


def _rows(title: str, process: Child, below: Child, floor_name: str) -> list[Row]:
    resident = [(resident_mb(process.pid), resident_mb(below.pid))]
    rows = [row(f"{title}: resident", "MB", resident, floor_name=floor_name, goal=GOAL)]
    shares = (_proportional_mb(process.pid), _proportional_mb(below.pid))
    if all(shares):
        rows.append(row(f"{title}: PSS", "MB", [shares], floor_name=floor_name))
    return rows


def resident_mb(pid: int) -> float:
    """VmRSS of a process, in MB."""
    return _kib(Path(f"/proc/{pid}/status"), "VmRSS:") * 1024 / 1e6


def _proportional_mb(pid: int) -> float:
    """0 where the kernel does not tell."""
    try:
        return _kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") * 1024 / 1e6
    except OSError:
        return 0.0


def _kib(file: Path, name: str) -> int:
    line = next(x for x in file.read_text().splitlines() if x.startswith(name))
    return int(line.split()[1])


async def _post(request: Request, count: int) -> None:
    connections = [await Connection.open(request.url) for _ in range(CONNECTIONS)]
    numbers = itertools.repeat(None, count)
    message = request.as_bytes()

    async def ask(connection: Connection) -> None:
        for _ in numbers:
            await connection.ask(message)

    await asyncio.gather(*(ask(connection) for connection in connections))
    await close_all(connections)
