"""A rebuild of every read model from a whole ledger, beside reading the same events with redis-py
and doing nothing; and the memory that a projector takes, which has built and follows it."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from redis import Redis

from bench.children import Child, child
from bench.history import write_history
from bench.measure import Goal, Measured, Row, Skipped, alternate, plain_row, row
from bench.memory import STATUS, resident_mb
from bench.roles import Options
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from ledger.keys import PartitionKeys
from projections.model_files import ModelFiles

READ_COUNT: Final = 1_000
REBUILD_TIMEOUT_S: Final = 900.0
RATIO_GOAL: Final = Goal(ratio_min=0.33)
MEMORY_GOAL: Final = Goal(figure_max=150.0)
FLOOR: Final = "redis-py, XRANGE in thousands, nothing done"


async def run(scale: Scale) -> Sequence[Measured]:
    """Rounds of both in turn, each rebuild in a process of its own."""
    async with run_server("memory") as server:
        async with server.store():
            pass  # makes the ledger
        events = await asyncio.to_thread(write_history, server.url, scale.history_tasks)

        async def floor() -> float:
            return events / await asyncio.to_thread(read_all, server.url, events)

        async def figure() -> float:
            return events / await _rebuild_s(server)

        pairs = await alternate(scale.rebuild_rounds, floor, figure)
        title = f"rebuild of {events:,} events"
        rows = [row(title, "events/s", pairs, floor_name=FLOOR, goal=RATIO_GOAL)]
        return [*rows, await _memory(server, scale.history_tasks)]


def read_all(url: str, events: int) -> float:
    """Seconds that reading takes."""
    key, start, count = PartitionKeys(0).events, "-", 0
    with cast("Any", Redis).from_url(url) as client:
        began = time.perf_counter()
        while True:
            reply = cast("list[tuple[bytes, Any]]", client.xrange(key, start, "+", READ_COUNT))
            if not reply:
                break
            count += len(reply)
            start = f"({reply[-1][0].decode()}"
        took_s = time.perf_counter() - began
    assert count == events
    return took_s


async def _rebuild_s(server: BenchServer) -> float:
    """Seconds from the word to a file that serves."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
        options = Options(server.url, read_model_dir=folder)
        async with child("rebuilder", options) as rebuilder:
            rebuilder.begin()
            worked = await rebuilder.worked(REBUILD_TIMEOUT_S)
    return worked.ended - worked.began


async def _memory(server: BenchServer, tasks: int) -> Row | Skipped:
    """Of a projector that built its read model, and then followed the ledger for a while."""
    title = f"projector, {tasks:,} tasks: resident, at most"
    if not await asyncio.to_thread(STATUS.exists):
        return Skipped(title, "there is no /proc here to read it from")
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
        async with child("projector", Options(server.url, read_model_dir=folder)) as projector:
            projector.begin()
            most_mb = await _most_mb(projector, ModelFiles(Path(folder)))
    return plain_row(title, "MB", [most_mb], goal=MEMORY_GOAL)


async def _most_mb(projector: Child, files: ModelFiles) -> float:
    """The most that it took, looked at until its file serves and it has looked all through it."""
    most_mb, looks_left = 0.0, LOOKS_AFTER
    while looks_left:
        await asyncio.sleep(LOOK_S)
        most_mb = max(most_mb, resident_mb(projector.pid))
        looks_left -= files.current() is not None
    return most_mb


LOOK_S: Final = 0.1
LOOKS_AFTER: Final = 20
