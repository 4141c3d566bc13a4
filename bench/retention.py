"""What the server's memory holds once many tasks are finished, sealed and let go of, beside a
ledger in which nothing ever happened but what is live."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from bench.folders import new_folder
from bench.measure import Goal, Measured, plain_row, row
from bench.scale import Scale
from bench.servers import run_server
from bench.workload import new_id, new_submission
from consumers.archiver import Archiver, ArchiverOptions
from consumers.meters import Meter
from consumers.retention_status import Terms
from consumers.sealed_partition import SealingOptions
from ledger.codec import Meta
from ledger.commands import Command, CompleteTask, StartTask, SubmitTask
from ledger.decide import decide
from ledger.objects.local_folder import LocalFolder
from ledger.redis_store import RedisStore
from ledger.store import Append, Written
from ledger.task import Task
from ledger.transact import apply

LIVE: Final = 10_000
BATCH: Final = 128
GOAL: Final = Goal(ratio_max=1.2)
FRESH: Final = f"a fresh ledger with {LIVE:,} tasks waiting"
TERMS: Final = Terms(events_ms=1, tasks_ms=1, hold_ms=86_400_000, young_ms=0)
"""As short as can be: what is let go of is what matters here, not when."""

LET_GO_TIMEOUT_S: Final = 1_800.0
LEFT: Final = 200
"""Entries that a stream may still have: of its last node."""

LOOK_S: Final = 0.2

COMPLETE: Final = CompleteTask(1, msgspec.Raw(b'{"chunks":12}'))


async def run(scale: Scale) -> Sequence[Measured]:
    """One round: memory does not depend on the weather."""
    count = scale.finished_tasks
    async with run_server("memory") as server:
        async with server.store() as store:
            await _submit(store, LIVE)
            fresh = await server.memory_bytes()
        await server.empty()
        async with server.store() as store:
            # Some are older than all that finishes, the others younger.
            await _submit(store, LIVE // 2)
            began_s = time.perf_counter()
            async with _archiving(store) as meter:
                await _finish(store, count)
                await _submit(store, LIVE - LIVE // 2)
                await _let_go(meter, count)
            rate = count / (time.perf_counter() - began_s)
            after = await server.memory_bytes()
    title = f"memory after {count:,} finished tasks, with {LIVE:,} waiting"
    return [
        row(title, "MB", [(after / 1e6, fresh / 1e6)], floor_name=FRESH, goal=GOAL),
        plain_row("finished, sealed and let go of by one process", "tasks/s", [rate]),
    ]


@asynccontextmanager
async def _archiving(store: RedisStore) -> AsyncGenerator[Meter]:
    meter = Meter()
    folder = new_folder()
    options = ArchiverOptions(
        folder / "key", SealingOptions(seal_interval_ms=500), TERMS, timeout_ms=30_000
    )
    archiver = Archiver(store, LocalFolder(folder / "objects"), options, meter=meter)
    running = asyncio.create_task(archiver.run())
    try:
        yield meter
    finally:
        archiver.stop()
        await running


async def _let_go(meter: Meter, count: int) -> None:
    """Wait until the archiver has let go of all that it can."""
    evicted, trimmed = count, 3 * count + LIVE - LEFT
    async with asyncio.timeout(LET_GO_TIMEOUT_S):
        found = meter.meters
        # A meter gives no signal.
        while found.tasks_evicted < evicted or found.events_trimmed < trimmed:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)


async def _submit(store: RedisStore, count: int) -> None:
    """Tasks that wait."""
    for first in range(0, count, BATCH):
        tasks: list[Task | None] = [None] * min(BATCH, count - first)
        await _step(store, tasks, SubmitTask(new_submission()))


async def _finish(store: RedisStore, count: int) -> None:
    """Whole lives, in batches, as fast as the store takes them."""
    for first in range(0, count, BATCH):
        tasks: list[Task | None] = [None] * min(BATCH, count - first)
        for command in (SubmitTask(new_submission()), StartTask(1, "bench", 60_000), COMPLETE):
            tasks = await _step(store, tasks, command)


async def _step(
    store: RedisStore, tasks: Sequence[Task | None], command: Command
) -> list[Task | None]:
    now = store.now_ms()
    steps: list[Append] = []
    for task in tasks:
        events = decide(command, task, now)
        after = apply(new_id() if task is None else task.id, task, events, now)
        steps.append(Append(task, after, events, Meta()))
    outcomes = await store.append_all(steps)
    if not all(isinstance(outcome, Written) for outcome in outcomes):
        raise RuntimeError(f"not all of {len(steps)} steps were written")
    return [step.after for step in steps]
