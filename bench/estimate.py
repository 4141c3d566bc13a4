"""How often the truth falls inside the estimate: a backlog of tasks that take varied times.

One worker, two types that share its slots; how long a task takes is drawn from a lognormal
distribution, whose longest tenth takes about eight times as long as its shortest. Once a few tasks
were measured, the whole backlog is submitted, and while it is worked off, tasks drawn by lot, and
some of those that run, are asked when they will be completed. Each answer is compared with what the
ledger says of its end.

Inside means: completed within 20 % of the time that the estimate gave it from when it was asked, or
within one second of it, whichever is more.
"""

import asyncio
import functools
import random
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from bench.children import child
from bench.http_load import Connection, Request
from bench.measure import Measured, percentile, plain_row
from bench.rest import TASKS_PATH
from bench.roles import Options
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.workload import KB_ID, SLOW_TYPES, new_id
from ledger.commands import SubmitTask
from ledger.events import TaskSubmitted
from ledger.redis_store import RedisStore
from ledger.transact import transact

MEANS_S: Final[dict[str, float]] = dict(zip(SLOW_TYPES, (0.2, 0.05), strict=True))
SIGMA: Final = 0.8
CONCURRENCY: Final = 10
PRIMING_TASKS: Final = 40
"""Of each type, measured before the backlog comes."""

INSIDE_SHARE: Final = 0.2
INSIDE_S: Final = 1.0
SEED: Final = 3
ASK_EVERY_S: Final = 0.5
DONE_TIMEOUT_S: Final = 120


class Asked(msgspec.Struct):
    """The part of a task that is looked at."""

    id: str
    status: str
    estimated_completion: datetime | None
    completed_at: datetime | None


class Look(msgspec.Struct, frozen=True):
    """An estimate, and how it turned out. Times in s from when it was asked."""

    was_running: bool
    estimate_s: float
    truth_s: float

    @property
    def inside(self) -> bool:
        return self.error_s <= INSIDE_S or self.within_share

    @property
    def within_share(self) -> bool:
        return self.error_s <= INSIDE_SHARE * self.estimate_s

    @property
    def error_s(self) -> float:
        return abs(self.truth_s - self.estimate_s)


async def run(scale: Scale) -> Sequence[Measured]:
    """Shares of estimates that the truth fell inside, and how far off they were."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
        async with (
            run_server("memory") as server,
            child("projector", Options(server.url, read_model_dir=folder)) as projector,
            child("api", Options(server.url, read_model_dir=folder)) as api,
            server.store() as store,
        ):
            projector.begin()
            looks, unknown = await _look(server, store, api.url, scale.estimated_tasks)
    return _rows(looks, unknown)


async def _look(
    server: BenchServer, store: RedisStore, api_url: str, count: int
) -> tuple[list[Look], int]:
    total = count + PRIMING_TASKS * len(SLOW_TYPES)
    lots = random.Random(SEED)  # noqa: S311 - the same backlog each time
    async with child("worker", Options(server.url, total, CONCURRENCY)) as worker:
        worker.begin()
        for task_type in SLOW_TYPES:
            primed = [await _submit(store, task_type, lots) for _ in range(PRIMING_TASKS)]
            await _ended(store, primed)
        types = lots.choices(SLOW_TYPES, k=count)
        backlog = await asyncio.gather(*(_submit(store, t, lots) for t in types))
        asked, unknown = await _ask_until_done(store, api_url, backlog, lots)
        await worker.worked()
    return [look for answer in asked if (look := await _outcome(store, *answer))], unknown


async def _submit(store: RedisStore, task_type: str, lots: random.Random) -> str:
    # The mean of a lognormal distribution is exp(mu + sigma^2 / 2).
    seconds = MEANS_S[task_type] * lots.lognormvariate(-(SIGMA**2) / 2, SIGMA)
    payload = msgspec.Raw(msgspec.json.encode({"seconds": seconds}))
    task_id = new_id()
    await transact(store, task_id, SubmitTask(TaskSubmitted(task_type, KB_ID, payload)))
    return task_id


async def _ended(store: RedisStore, task_ids: Sequence[str]) -> None:
    """Return once all these tasks have ended."""
    left = set(task_ids)
    async with asyncio.timeout(DONE_TIMEOUT_S):
        while left:
            position = await store.last_position(0)
            tasks = await asyncio.gather(*map(store.load, left))
            left = {task.id for task in tasks if task is not None and not task.finished}
            if left:
                await store.events_after(position, 1, 1_000)


async def _ask_until_done(
    store: RedisStore, api_url: str, backlog: Sequence[str], lots: random.Random
) -> tuple[list[tuple[float, Asked]], int]:
    """(when, what was answered) of the tasks that had an estimate; how many of the unfinished had
    none."""
    connection = await Connection.open(api_url)
    asked: list[tuple[float, Asked]] = []
    unknown = 0
    waiting = asyncio.create_task(_ended(store, backlog))
    while not waiting.done():
        await asyncio.wait([waiting], timeout=ASK_EVERY_S)
        running = [name for w in await store.workers() for name in w.report.task_ids]
        for task_id in lots.sample(backlog, 10) + lots.sample(running, min(3, len(running))):
            request = Request(f"{api_url}{TASKS_PATH}/{task_id}")
            answer = await connection.ask(request.as_bytes())
            task = msgspec.json.decode(answer, type=Asked)
            if task.estimated_completion is not None:
                asked.append((store.now_ms() / 1000, task))
            elif task.status in ("queued", "processing"):
                unknown += 1
    await connection.close()
    await waiting
    return asked, unknown


async def _outcome(store: RedisStore, asked_at_s: float, asked: Asked) -> Look | None:
    task = await store.load(asked.id)
    assert task is not None
    assert asked.estimated_completion is not None
    if task.state.completed_at is None:
        return None
    return Look(
        asked.status == "processing",
        asked.estimated_completion.timestamp() - asked_at_s,
        task.state.completed_at / 1000 - asked_at_s,
    )


def _rows(looks: Sequence[Look], unknown: int) -> list[Measured]:
    rows: list[Measured] = []
    for title, of_running in (("waiting", False), ("running", True)):
        chosen = [look for look in looks if look.was_running is of_running]
        if not chosen:
            continue
        inside = 100 * sum(look.inside for look in chosen) / len(chosen)
        rows.append(plain_row(f"inside, {len(chosen)} {title} tasks", "%", [inside]))
        off = functools.partial(percentile, [look.error_s for look in chosen])
        closer = 100 * sum(look.within_share for look in chosen) / len(chosen)
        rows.append(plain_row(f"within {INSIDE_SHARE:.0%} alone, {title}", "%", [closer]))
        rows.append(plain_row(f"off by, {title}, p50", "s", [off(50)]))
        rows.append(plain_row(f"off by, {title}, p90", "s", [off(90)]))
    left = [look.truth_s for look in looks if not look.was_running]
    rows.append(plain_row("time left when asked, waiting, p50", "s", [percentile(left, 50)]))
    rows.append(plain_row("asked, and nothing known", "tasks", [float(unknown)]))
    return rows
