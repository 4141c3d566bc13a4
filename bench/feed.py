"""The live feed: a thousand WebSockets, ten on each of a hundred knowledge bases.

200 events a second happen, in turn in each knowledge base, so 2,000 messages a second are told. How
long each is on its way is measured from the ledger's time of the event; then again while each
client is cut off at times left to chance and resumes. Beside it, how long a change of status takes
to be seen by who asks every two seconds.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from bench.children import child
from bench.http_load import Connection, Request, close_all
from bench.measure import Goal, Measured, percentile, plain_row, row
from bench.roles import Options, Worked
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.watching import KB_IDS
from bench.workload import new_id, new_submission
from ledger.commands import CancelTask, SubmitTask
from ledger.store import Store
from ledger.transact import transact

CLIENTS: Final = 1_000
EVENTS_A_SECOND: Final = 200
POLL_S: Final = 2.0
POLLERS: Final = 50
DELIVERY_GOAL: Final = Goal(figure_max=250.0)
NONE_GOAL: Final = Goal(figure_max=0.0)
POLLED: Final = "asked for every 2 s"


async def run(scale: Scale) -> Sequence[Measured]:
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as data_dir:
        async with (
            run_server("always") as server,
            child("api", Options(server.url, data_dir=data_dir)) as api,
        ):
            steady = await _told(server, api.url, scale.feed_s, cuts=0)
            cut = await _told(server, api.url, scale.feed_s, cuts=2)
            polled_ms = await _polled_ms(server, api.url)
    title = f"{CLIENTS:,} WebSockets, {EVENTS_A_SECOND} events/s"
    again = f"{title}, each cut off twice"
    pushed = percentile(steady.waits_ms, 50)
    return [
        plain_row(
            f"{title}: delivery, p99",
            "ms",
            [percentile(steady.waits_ms, 99)],
            goal=DELIVERY_GOAL,
        ),
        plain_row(f"{again}: delivery, p99", "ms", [percentile(cut.waits_ms, 99)]),
        plain_row(f"{again}: lost", "messages", [steady.lost + cut.lost], goal=NONE_GOAL),
        plain_row(f"{again}: doubled", "messages", [steady.doubled + cut.doubled], goal=NONE_GOAL),
        row(
            "a change of status is known, p50",
            "ms",
            [(pushed, percentile(polled_ms, 50))],
            floor_name=POLLED,
        ),
    ]


async def _told(server: BenchServer, url: str, seconds: int, *, cuts: int) -> Worked:
    options = Options(server.url, CLIENTS, target=url, seconds=seconds, cuts=cuts)
    async with child("watchers", options) as watchers, server.store() as store:
        watchers.begin()
        await _happen(store, seconds)
        watchers.begin()  # to compare
        return await watchers.worked()


async def _happen(store: Store, seconds: int) -> None:
    """Tasks are submitted and, two seconds later, canceled: at an even pace."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    waiting: list[str] = []
    async with asyncio.TaskGroup() as group:
        for number in range(seconds * EVENTS_A_SECOND):
            await asyncio.sleep(began + number / EVENTS_A_SECOND - loop.time())
            # The tasks of a hundred knowledge bases are in work: submit to each in turn.
            if number % 2 and len(waiting) >= len(KB_IDS):
                step = transact(store, waiting.pop(0), CancelTask())
            else:
                task_id = new_id()
                waiting.append(task_id)
                kb_id = KB_IDS[number // 2 % len(KB_IDS)]
                step = transact(store, task_id, SubmitTask(new_submission(kb_id=kb_id)))
            group.create_task(step)


class Seen(msgspec.Struct):
    """What is looked at in an answer."""

    status: str
    completed_at: datetime | None


async def _polled_ms(server: BenchServer, url: str) -> list[float]:
    """How long after the end of its task each of some callers knew of it."""
    async with server.store() as store:
        connections = [await Connection.open(url) for _ in range(POLLERS)]
        waits = await asyncio.gather(*(_poll(store, url, c) for c in connections))
        await close_all(connections)
    return list(waits)


async def _poll(store: Store, url: str, connection: Connection) -> float:
    task_id = new_id()
    await transact(store, task_id, SubmitTask(new_submission()))
    message = Request(f"{url}/api/v1/tasks/{task_id}").as_bytes()
    loop = asyncio.get_running_loop()

    async def end() -> None:
        await asyncio.sleep(random.uniform(0, 2 * POLL_S))  # noqa: S311
        await transact(store, task_id, CancelTask())

    ending = asyncio.create_task(end())
    due = loop.time()
    while True:
        seen = msgspec.json.decode(await connection.ask(message), type=Seen)
        if seen.completed_at is not None:
            await ending
            return (time.time() - seen.completed_at.timestamp()) * 1_000
        due += POLL_S
        await asyncio.sleep(due - loop.time())
