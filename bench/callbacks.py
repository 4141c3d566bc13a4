"""Callbacks to many healthy hosts, with and without one beside them that never answers."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

from msgspec import Raw

from bench.measure import Goal, Measured, alternate, percentile, plain_row, row
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.workload import KB_ID, new_id
from consumers.pool import Pool
from consumers.programs import child_env, notifier_program
from ledger.commands import CancelTask, SubmitTask
from ledger.events import TaskSubmitted
from ledger.settings import LogLevel, Settings
from ledger.store import Store
from ledger.transact import transact

HOSTS: Final = 50
HANGING: Final = "127.0.1.1"
HANGING_CALLBACKS: Final = 500
"""What the hanging host has waiting when the clock starts: far more than it may take at once."""

ENDS_A_SECOND: Final = 100
ROUNDS: Final = 3
GOAL: Final = Goal(ratio_max=1.5)
PATIENCE_S: Final = 60
ANSWER: Final = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"


class Hosts:
    """Servers on addresses of their own. Each post's path is the task's id."""

    def __init__(self) -> None:
        self.arrived: dict[str, float] = {}
        self.hung = 0
        self.urls: list[str] = []
        self.hanging_url = ""
        self._never = asyncio.Event()
        self._changed = asyncio.Event()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.arrived) < count:
                self._changed.clear()
                await self._changed.wait()

    async def until_hanging(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self.hung:
                self._changed.clear()
                await self._changed.wait()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readuntil(b"}")
                path = head.split(b" ", 2)[1].decode()
                self.arrived.setdefault(path[1:], time.monotonic())
                self._changed.set()
                writer.write(ANSWER)
        writer.close()

    async def hang(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hung += 1
        self._changed.set()
        await self._never.wait()
        writer.close()

    def release(self) -> None:
        self._never.set()


async def run(scale: Scale) -> Sequence[Measured]:
    count = 200 if scale.recovery_rounds == 1 else 1_000
    p50: list[float] = []
    async with run_server("always") as server:

        async def without() -> float:
            return percentile(await _delays_ms(server, count, hanging=False), 99)

        async def beside_one() -> float:
            delays_ms = await _delays_ms(server, count, hanging=True)
            p50.append(percentile(delays_ms, 50))
            return percentile(delays_ms, 99)

        pairs = await alternate(ROUNDS, without, beside_one)
    title = f"from an end to its callback at one of {HOSTS} hosts, {ENDS_A_SECOND} a second"
    return [
        row(
            f"{title}, while another hangs with {HANGING_CALLBACKS} waiting, p99",
            "ms",
            pairs,
            floor_name="the same, and none hangs",
            goal=GOAL,
        ),
        plain_row(f"{title}, while another hangs, p50", "ms", p50),
    ]


async def _delays_ms(server: BenchServer, count: int, *, hanging: bool) -> list[float]:
    await server.empty()
    async with _hosts() as hosts, server.store() as store:
        urls = [f"{hosts.urls[i % HOSTS]}/{{task_id}}" for i in range(count)]
        tasks = await _submitted(store, urls)
        stuck = [hosts.hanging_url] * HANGING_CALLBACKS if hanging else []
        for task_id in await _submitted(store, stuck):
            await transact(store, task_id, CancelTask())
        async with _notifier(server):
            if hanging:
                await hosts.until_hanging()
            return await _measured(store, hosts, tasks)


async def _measured(store: Store, hosts: Hosts, tasks: Sequence[str]) -> list[float]:
    ended: dict[str, float] = {}
    # The first ones find neither connections nor the notifier's process warm.
    for task_id in tasks[:HOSTS]:
        await transact(store, task_id, CancelTask())
    await hosts.until(HOSTS)
    began = time.monotonic()
    for i, task_id in enumerate(tasks[HOSTS:]):
        await asyncio.sleep(began + i / ENDS_A_SECOND - time.monotonic())
        ended[task_id] = time.monotonic()
        await transact(store, task_id, CancelTask())
    await hosts.until(len(tasks))
    return [(hosts.arrived[task_id] - at) * 1000 for task_id, at in ended.items()]


async def _submitted(store: Store, urls: Sequence[str]) -> list[str]:
    async def submit(url: str) -> str:
        task_id = new_id()
        submission = TaskSubmitted("health_check", KB_ID, Raw(b"{}"), callback_url=url)
        await transact(store, task_id, SubmitTask(submission))
        return task_id

    return await asyncio.gather(*map(submit, urls))


@contextlib.asynccontextmanager
async def _hosts() -> AsyncGenerator[Hosts]:
    hosts = Hosts()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(hosts.release)
        for i in range(HOSTS):
            server = await asyncio.start_server(hosts.answer, f"127.0.0.{i + 2}", 0)
            stack.callback(server.close)
            address, port = server.sockets[0].getsockname()
            hosts.urls.append(f"http://{address}:{port}")
        server = await asyncio.start_server(hosts.hang, HANGING, 0)
        stack.callback(server.close)
        hosts.hanging_url = f"http://{HANGING}:{server.sockets[0].getsockname()[1]}"
        yield hosts


@contextlib.asynccontextmanager
async def _notifier(server: BenchServer) -> AsyncGenerator[None]:
    """A process as `ledgerq notifier` is one, with the usual settings."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
        settings = Settings(redis_url=server.url, data_dir=folder, log_level=LogLevel.ERROR)
        pool = Pool([notifier_program(settings, child_env(settings, os.environ))])
        running = asyncio.create_task(pool.run())
        try:
            await pool.started()
            yield
        finally:
            pool.kill()
            pool.stop()
            await running
