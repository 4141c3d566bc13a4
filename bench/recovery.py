"""From the SIGKILL of a worker that runs 50 tasks until all of them are retaken."""

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from structlog.testing import capture_logs

from bench.measure import Goal, Measured, plain_row
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.workload import KB_ID, SLOW_TYPES, new_id
from consumers.pool import Pool
from consumers.programs import child_env, scheduler_program, worker_program
from ledger.commands import SubmitTask
from ledger.events import TaskStarted, TaskSubmitted
from ledger.redis_store import RedisStore
from ledger.settings import LogLevel, Settings
from ledger.store import Position
from ledger.transact import transact

TASKS: Final = 50
LEASE_MS: Final = 2_000
GOAL: Final = Goal(figure_max=4.0)
START_TIMEOUT_S: Final = 60
FOR_LONG: Final = msgspec.Raw(b'{"seconds":600}')


async def run(scale: Scale) -> Sequence[Measured]:
    """Where another worker has room for them, and where they wait for the one that its supervisor
    starts instead."""
    rows: list[Measured] = []
    for title, beside in (("by another worker", True), ("by the one in its place", False)):
        async with run_server("always") as server:
            taken_s = [
                await _retaken_s(server, beside=beside) for _ in range(scale.recovery_rounds)
            ]
        named = f"kill -9 of a worker with {TASKS} tasks, lease {LEASE_MS // 1000} s: all retaken"
        rows.append(plain_row(f"{named} {title}", "s", taken_s, goal=GOAL))
    return rows


async def _retaken_s(server: BenchServer, *, beside: bool) -> float:
    await server.empty()
    async with server.store() as store, _pool(server, workers=1, scheduled=True) as pool:
        starts = Starts(store)
        for _ in range(TASKS):
            submission = TaskSubmitted(SLOW_TYPES[0], KB_ID, FOR_LONG)
            await transact(store, new_id(), SubmitTask(submission))
        await starts.of_attempt(1)
        [victim] = pool.pids()["worker"]
        async with contextlib.AsyncExitStack() as stack:
            if beside:
                await stack.enter_async_context(_pool(server, workers=1, scheduled=False))
                await _workers(store, 2)
            began_s = asyncio.get_running_loop().time()
            os.kill(victim, signal.SIGKILL)
            await starts.of_attempt(2)
            return asyncio.get_running_loop().time() - began_s


@contextlib.asynccontextmanager
async def _pool(server: BenchServer, *, workers: int, scheduled: bool) -> AsyncGenerator[Pool]:
    """Processes as `ledgerq worker` runs them, each with room for all tasks."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
        settings = Settings(
            redis_url=server.url,
            data_dir=folder,
            handlers="bench.handlers",
            workers=workers,
            concurrency=TASKS * workers,
            lease_ms=LEASE_MS,
            drain_timeout_ms=0,
            log_level=LogLevel.ERROR,
        )
        env = child_env(settings, os.environ)
        programs = [worker_program(settings, env)]
        if scheduled:
            programs.append(scheduler_program(env))
        pool = Pool(programs)
        # A death is what is measured, and needs no line.
        with capture_logs():
            running = asyncio.create_task(pool.run())
            try:
                yield pool
            finally:
                pool.stop()
                pool.kill()
                await running


class Starts:
    """The attempts that the ledger tells of."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._position = Position(0, "0-0")

    async def of_attempt(self, attempt: int) -> None:
        """Return once all tasks have come to it."""
        started: set[str] = set()
        async with asyncio.timeout(START_TIMEOUT_S):
            while len(started) < TASKS:
                for recorded in await self._store.events_after(
                    self._position, 1_000, wait_ms=1_000
                ):
                    self._position = recorded.position
                    event = recorded.event() if recorded.type == "TaskStarted" else None
                    if isinstance(event, TaskStarted) and event.attempt == attempt:
                        started.add(recorded.task_id)


async def _workers(store: RedisStore, count: int) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while len(await store.workers()) < count:  # noqa: ASYNC110 - a registry tells no event
            await asyncio.sleep(0.05)
