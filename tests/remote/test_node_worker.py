"""The example worker in Node.js, which has the proto alone."""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from api.grpc import task_service_pb2 as pb
from api.grpc.server import GrpcServer
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.remote.calls import Remote

FOLDER: Final = Path(__file__).parent.parent.parent / "examples" / "node_worker"
NODE: Final = shutil.which("node")
END_TIMEOUT_S: Final = 20

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="there is no node on this machine"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules").is_dir(),
        reason="examples/node_worker has no node_modules: run `npm ci` there",
    ),
]


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Results may have so many bytes as the test says."""
    return msgspec.structs.replace(settings, result_bytes_max=getattr(request, "param", 1_000))


async def test_a_worker_in_node_does_its_tasks_and_leaves_in_order(
    server: tuple[GrpcServer, int], remote: Remote, store: RedisStore
):
    tasks = [await remote.submit(payload=b'{"text": "one two  three"}') for _ in range(20)]
    bad = await remote.submit(payload=b"{}")

    async with _worker(server[1]) as said:
        ended = [await _ended(remote, task.id) for task in (*tasks, bad)]
        [worker] = await _workers(store)

    assert {task.status for task in ended[:-1]} == {pb.TASK_STATUS_COMPLETED}
    assert {task.result for task in ended[:-1]} == {b'{"words":3,"language":"node","attempt":1}'}
    assert ended[-1].status == pb.TASK_STATUS_FAILED
    assert ended[-1].error_message == "the payload has no text"
    assert ended[0].worker_id == worker.report.id
    assert worker.report.concurrency == 8
    assert '"what":"stopped"' in said[-1]
    assert await store.workers() == []


@pytest.mark.parametrize("settings", [10], indirect=True)
async def test_a_result_that_is_refused_fails_its_task(
    server: tuple[GrpcServer, int], remote: Remote
):
    task = await remote.submit(payload=b'{"text": "one"}')

    async with _worker(server[1]):
        ended = await _ended(remote, task.id)

    assert (ended.status, ended.error_kind) == (pb.TASK_STATUS_FAILED, pb.ERROR_KIND_PERMANENT)
    assert ended.error_message.startswith("result: expected at most 10 bytes")


async def _ended(remote: Remote, task_id: str) -> Any:
    task = await remote.get(task_id, wait_ms=15_000)
    assert task.status in (pb.TASK_STATUS_COMPLETED, pb.TASK_STATUS_FAILED), task
    return task


async def _workers(store: RedisStore) -> list[Any]:
    async with asyncio.timeout(END_TIMEOUT_S):
        while not (found := await store.workers()):  # noqa: ASYNC110 - its next heartbeat
            await asyncio.sleep(0.05)
    return found


@contextlib.asynccontextmanager
async def _worker(port: int) -> AsyncGenerator[list[str]]:
    """While it runs; afterwards, what it said."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        *(NODE, "worker.js", f"127.0.0.1:{port}"),
        cwd=FOLDER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said: list[str] = []
    try:
        yield said
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
            raise
        said += output.decode().splitlines()
