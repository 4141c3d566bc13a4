"""Is memory flat under a steady load? The whole of `ledgerq up`, at half the rate of which this
machine is capable, with the resident memory of every process sampled."""

import asyncio
import contextlib
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.http_load import Connection, Request, close_all
from bench.measure import Goal, Measured, Row, Skipped
from bench.memory import STATUS, resident_mb
from bench.rest import TASKS_PATH
from bench.scale import Scale
from bench.slopes import Sample, slope
from bench.workload import request_body

CONNECTIONS: Final = 20
WORKERS: Final = 2
PEAK_S: Final = 10.0
SAMPLE_S: Final = 0.5
WARM_UP_TASKS: Final = 40_000
WARM_UP_S: Final = 60.0
"""Nothing counts before both are over: by then what has a bound is full. The projector's page cache
(16 MiB) takes some 20,000 tasks, the API's times as text some 4,000; its samples for estimates go
back 60 s.
"""

PEAK_TIMEOUT_S: Final = 120
READY_TIMEOUT_S: Final = 60
STOP_TIMEOUT_S: Final = 60
GOAL: Final = Goal(figure_max=100.0)
KIB_PER_MB: Final = 1e6 / 1024
KEEPS_HISTORY: Final = "valkey"
"""Its memory grows by design: nothing is trimmed yet."""


async def run(scale: Scale) -> Sequence[Measured]:
    """A row for each process: KiB/min, with twice its standard error to both sides."""
    if not await asyncio.to_thread(STATUS.exists):
        return [Skipped("soak", "there is no /proc here to read it from")]
    async with _service() as (url, pids):
        load = Load(url)
        peak = await load.peak()
        await load.warm_up(peak)
        samples: dict[str, list[Sample]] = {name: [] for name in pids}
        sampling = asyncio.create_task(_sample(pids, samples))
        done = await load.run(scale.soak_s, peak / 2)
        sampling.cancel()
        await asyncio.wait([sampling])
    pace = f"at {done / scale.soak_s:,.0f} tasks/s (peak {peak:,.0f}) for {scale.soak_s} s"
    return [_row(f"{name}, {pace}", name, taken, done) for name, taken in samples.items()]


def _row(title: str, name: str, taken: Sequence[Sample], done: int) -> Row:
    per_minute, error = slope([(at_s / 60, mb * KIB_PER_MB) for at_s, mb in taken])
    goal = None if name == KEEPS_HISTORY else GOAL
    if goal is None:
        minutes = (taken[-1][0] - taken[0][0]) / 60
        title += f", {per_minute * minutes * 1024 / done:,.0f} bytes a task"
    return Row(
        name=f"{title}, {taken[-1][1]:,.0f} MB resident",
        unit="KiB/min",
        figure=per_minute,
        low=per_minute - 2 * error,
        high=per_minute + 2 * error,
        goal=goal,
        met=None if goal is None else _met(goal, per_minute, 2 * error),
    )


def _met(goal: Goal, figure: float, error: float) -> bool | None:
    """None where the goal lies within the error: no verdict by luck."""
    most = goal.figure_max or 0.0
    return None if abs(figure - most) < error else figure <= most


class Load:
    """Submits over REST, one task a request."""

    def __init__(self, url: str) -> None:
        self._request = Request(url + TASKS_PATH, request_body())
        self._counts = Request(f"{url}/api/v1/stats/tasks").as_bytes()

    async def peak(self) -> float:
        """Whole lives per second, from a first submission to the last completion."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        given = await self.run(PEAK_S, None)
        connection = await Connection.open(self._request.url)
        async with asyncio.timeout(PEAK_TIMEOUT_S):
            while _completed(await connection.ask(self._counts)) < given:  # noqa: ASYNC110
                await asyncio.sleep(SAMPLE_S / 10)
        await connection.close()
        return given / (loop.time() - began)

    async def warm_up(self, peak: float) -> None:
        """At half the peak rate, until what has a bound is full."""
        await self.run(max(WARM_UP_S, 2 * WARM_UP_TASKS / peak), peak / 2)

    async def run(self, seconds: float, per_second: float | None) -> int:
        """How many tasks were submitted; as many as can be, or at a steady pace."""
        loop = asyncio.get_running_loop()
        connections = [await Connection.open(self._request.url) for _ in range(CONNECTIONS)]
        began, message, given = loop.time(), self._request.as_bytes(), 0

        async def ask(connection: Connection) -> None:
            nonlocal given
            while (elapsed_s := loop.time() - began) < seconds:
                if per_second is not None and given >= elapsed_s * per_second:
                    await asyncio.sleep((given + 1) / per_second - elapsed_s)
                    continue
                given += 1
                await connection.ask(message)

        try:
            await asyncio.gather(*map(ask, connections))
        finally:
            await close_all(connections)
        return given


def _completed(answer: bytes) -> int:
    return msgspec.json.decode(answer)["completed_tasks"]


async def _sample(pids: Mapping[str, int], samples: Mapping[str, list[Sample]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        for name, pid in pids.items():
            samples[name].append((loop.time(), resident_mb(pid)))
        await asyncio.sleep(SAMPLE_S)


@contextlib.asynccontextmanager
async def _service() -> AsyncGenerator[tuple[str, dict[str, int]]]:
    """`ledgerq up`, and its processes by name."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
        port = _free_port()
        up = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "api.cli",
                "up",
                "--port",
                str(port),
                "--grpc-port",
                "0",
                "--data-dir",
                folder,
            ),
            *("--handlers", "bench.handlers", "--processes", str(WORKERS), "--concurrency", "200"),
            *("--log-level", "error"),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert up.stdout is not None
            line = await asyncio.wait_for(up.stdout.readline(), READY_TIMEOUT_S)
            yield f"http://127.0.0.1:{port}", {"supervisor": up.pid, **_pids(line.decode())}
        finally:
            if up.returncode is None:
                up.send_signal(signal.SIGTERM)
                try:
                    await asyncio.wait_for(up.wait(), STOP_TIMEOUT_S)
                except TimeoutError:
                    up.kill()  # its children end with it
                    await up.wait()
                    raise


def _pids(line: str) -> dict[str, int]:
    """From what `up` says once it is ready: `processes: worker 11 12, api 13`."""
    found: dict[str, int] = {}
    for name, pids in re.findall(r"([a-z]+) ([\d ]+)(?:,|$)", line.partition("processes: ")[2]):
        for number, pid in enumerate(pids.split(), start=1):
            found[f"{name}-{number}" if " " in pids.strip() else name] = int(pid)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
