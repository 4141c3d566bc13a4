"""A worker that speaks gRPC, beside one of our own: both drain a full queue of no-op tasks.

Client and server are processes of their own. How many calls a task takes is what makes the
difference: a call costs Python far more than a task. Where each task has its own, the client costs
two thirds of what the server does, and takes that from it on a machine of two cores: hence the same
once more with one that costs little (`bench.http2_load`).
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final

import grpc
import msgspec
from google.protobuf.message import Message

from api.grpc import task_service_pb2 as pb
from api.grpc.task_service_pb2_grpc import TaskServiceStub
from bench.children import child
from bench.drain import drains_per_s
from bench.http2_load import LightStub
from bench.measure import Goal, Measured, alternate, row
from bench.roles import Options
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.submit import CALLERS
from bench.workload import TASK_TYPE, submit

GOAL: Final = Goal(ratio_min=0.2)
IN_FLIGHT: Final = 200
FLOOR: Final = f"a worker process of ours, {IN_FLIGHT} in flight"
WAIT_MS: Final = 1_000


Call = Callable[[str, Message], Awaitable[Any]]
"""Calls a method, at once; its answer is what is waited for."""


async def work(
    target: str, count: int, loops: int, at_once: int, *, together: bool, light: bool
) -> tuple[float, float]:
    """Take `count` tasks, `at_once` with each call, and end them, with one call or one each; when
    it began and ended (s, of the loop's clock)."""
    loop = asyncio.get_running_loop()
    async with (_light if light else _usual)(target) as call:
        worker = _Worker(call, count, together=together)
        began = loop.time()
        await asyncio.gather(*(worker.run(at_once) for _ in range(loops)))
        # Not when the loops ended, which may wait for more.
        return began, worker.ended


@contextlib.asynccontextmanager
async def _usual(target: str) -> AsyncGenerator[Call]:
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = TaskServiceStub(channel)
        yield lambda method, request: getattr(stub, method)(request)


@contextlib.asynccontextmanager
async def _light(target: str) -> AsyncGenerator[Call]:
    stub = await LightStub.open(target)
    try:
        yield stub.call
    finally:
        stub.close()


class _Worker:
    def __init__(self, call: Call, count: int, *, together: bool) -> None:
        self._call = call
        self._left = count
        self._end = self._end_together if together else self._end_each
        self.ended = 0.0

    async def run(self, at_once: int) -> None:
        while self._left > 0:
            asked = pb.GetPendingTasksRequest(
                worker_id="bench", task_types=[TASK_TYPE], max_tasks=at_once, wait_ms=WAIT_MS
            )
            tasks = (await self._call("GetPendingTasks", asked)).tasks
            self._left -= len(tasks)
            updates = [
                pb.StatusUpdate(task_id=t.id, attempt=t.attempt, completed=_NOTHING) for t in tasks
            ]
            if updates:
                await self._end(updates)
                self.ended = asyncio.get_running_loop().time()

    async def _end_together(self, updates: Sequence[pb.StatusUpdate]) -> None:
        reports = pb.UpdateStatusBatchRequest(worker_id="bench", updates=updates)
        answer = await self._call("UpdateStatusBatch", reports)
        assert not any(result.HasField("error") for result in answer.results)

    async def _end_each(self, updates: Sequence[pb.StatusUpdate]) -> None:
        reports = [pb.UpdateStatusRequest(worker_id="bench", update=update) for update in updates]
        # All are on their way before the first is waited for.
        for answer in [self._call("UpdateStatus", report) for report in reports]:
            await answer


_NOTHING: Final = pb.Completed(result=b"null")


class _Way(msgspec.Struct, frozen=True):
    """How a worker goes about it."""

    title: str
    loops: int
    at_once: int
    together: bool = False
    light: bool = False
    goal: Goal | None = None


WAYS: Final = (
    _Way("gRPC worker, 100 tasks a call", 4, 100, together=True, goal=GOAL),
    _Way(
        "gRPC worker that costs little, 100 tasks a call, each ended with its own",
        *(4, 100),
        light=True,
        goal=GOAL,
    ),
    _Way("gRPC worker, 100 tasks a call, each ended with its own", 4, 100, goal=GOAL),
    _Way("gRPC worker, one task a call", 50, 1),
)


async def remote_per_s(server: BenchServer, count: int, way: _Way) -> float:
    """Tasks per second of a worker elsewhere, from a queue that holds them all, and of an API that
    has just begun: they differ by a tenth and more for as long as they live."""
    await server.empty()
    async with server.store() as store:
        await submit(store, count, CALLERS)
    async with child("grpc_api", Options(server.url)) as api:
        options = Options(
            *(server.url, count, way.loops),
            target=api.url,
            at_once=way.at_once,
            together=way.together,
            light=way.light,
        )
        async with child("remote_worker", options) as worker:
            worker.begin()
            worked = await worker.worked()
    return count / (worked.ended - worked.began)


async def run(scale: Scale) -> Sequence[Measured]:
    """Many tasks a call; many taken with a call, each ended with its own; and one a call."""
    rows: list[Measured] = []
    async with run_server("memory") as server:
        floor = functools.partial(drains_per_s, server, scale.lives, IN_FLIGHT)
        for way in WAYS:
            figure = functools.partial(remote_per_s, server, scale.lives, way)
            pairs = await alternate(scale.rounds, floor, figure)
            rows.append(row(way.title, "tasks/s", pairs, floor_name=FLOOR, goal=way.goal))
    return rows
