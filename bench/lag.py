"""How far a read model is behind, under a steady load: from the answer to a write until the read
model in its file has it."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.children import child
from bench.measure import Goal, Measured, percentile, plain_row
from bench.roles import Options
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.workload import new_id, new_submission
from ledger.commands import CompleteTask, StartTask, SubmitTask
from ledger.redis_store import RedisStore
from ledger.store import Position
from ledger.transact import transact
from projections.model_files import ModelFiles
from projections.sqlite import open_reader

PER_SECOND: Final = 1_000
TICK_S: Final = 0.005
LOOK_S: Final = 0.002
"""How exactly a lag is known."""
WARM_UP_S: Final = 1.0
LEASE_MS: Final = 600_000
RESULT: Final = msgspec.Raw(b'{"chunks":12}')
P99_GOAL: Final = Goal(figure_max=100.0)

_CHECKPOINT: Final = "SELECT entry FROM checkpoints WHERE partition = 0"


class Lags:
    """Writes that were answered, and when; and how long each took to be in the read model."""

    def __init__(self) -> None:
        self.found_ms: list[float] = []
        self._open: list[tuple[tuple[int, int], float]] = []

    def wrote(self, position: Position) -> None:
        self._open.append((position.order, time.monotonic()))

    def seen(self, entry: str) -> None:
        """The read model has everything up to this entry."""
        now_s, reached = time.monotonic(), Position(0, entry).order
        still: list[tuple[tuple[int, int], float]] = []
        for order, at_s in self._open:
            if order <= reached:
                self.found_ms.append((now_s - at_s) * 1_000)
            else:
                still.append((order, at_s))
        self._open = still

    def __bool__(self) -> bool:
        return bool(self._open)


async def run(scale: Scale) -> Sequence[Measured]:
    """p50 and p99, at a thousand whole lives a second: three thousand events."""
    async with run_server("memory") as server:
        lags = await _lags_ms(server, scale.lag_s)
    title = f"projection lag at {PER_SECOND:,} tasks/s for {scale.lag_s} s"
    return [
        plain_row(f"{title}, p50", "ms", [percentile(lags, 50)]),
        plain_row(f"{title}, p99", "ms", [percentile(lags, 99)], goal=P99_GOAL),
    ]


async def _lags_ms(server: BenchServer, seconds: float) -> list[float]:
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
        files = ModelFiles(Path(folder))
        async with (
            server.store() as store,
            child("projector", Options(server.url, read_model_dir=folder)) as projector,
        ):
            projector.begin()
            while files.current() is None:  # noqa: ASYNC110 - a file tells no event
                await asyncio.sleep(LOOK_S)
            await _load(store, files, WARM_UP_S)
            return (await _load(store, files, seconds)).found_ms


async def _load(store: RedisStore, files: ModelFiles, seconds: float) -> Lags:
    """So many seconds of work, until all of it is in the read model."""
    lags, over = Lags(), asyncio.Event()
    watching = asyncio.create_task(_watch(files, lags, over))
    began_s, given = time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while (elapsed_s := time.monotonic() - began_s) < seconds:
            for _ in range(int(elapsed_s * PER_SECOND) - given):
                group.create_task(_live(store, lags))
                given += 1
            await asyncio.sleep(TICK_S)
    over.set()
    await watching
    return lags


async def _live(store: RedisStore, lags: Lags) -> None:
    """One whole life; each of its writes is waited for in the read model."""
    task_id, task = new_id(), None
    for command in (
        SubmitTask(new_submission()),
        StartTask(1, "bench", LEASE_MS),
        CompleteTask(1, RESULT),
    ):
        done = await transact(store, task_id, command, known=task)
        task = done.task
        assert done.position is not None
        lags.wrote(done.position)


async def _watch(files: ModelFiles, lags: Lags, over: asyncio.Event) -> None:
    path = files.current()
    assert path is not None
    with contextlib.closing(open_reader(path)) as db:
        while not over.is_set() or lags:
            row = db.execute(_CHECKPOINT).fetchone()
            if row is not None:
                lags.seen(row[0])
            await asyncio.sleep(LOOK_S)
