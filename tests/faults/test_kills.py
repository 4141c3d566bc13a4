"""kill -9 of a worker, of the API, of the projector and of Valkey, each in the middle of 2,000
tasks.

Afterwards every acknowledged task is there, and came to its end once; and the read model, which a
projector has kept level meanwhile, is what a rebuild makes. What was acknowledged is all
that a client can know: it sends again, under the same ids, what was not.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import msgspec
import pytest
from uuid_utils import uuid7

from ledger.commands import SubmitTask
from ledger.keys import PartitionKeys
from ledger.redis_store import RedisStore, StoreOptions
from ledger.store import Position
from ledger.task import Status
from ledger.transact import transact
from projections.check import check
from tests.checks import Counts, check_ledger
from tests.faults.program import Program
from tests.given import a_submission
from tests.projections.watching import projecting
from tests.servers import PERSISTENT, Server, make_server, valkey_binary

TASKS = 2_000
CLIENTS = 20
BATCH = 10
"""Tasks in one request to the API."""
PATIENCE_S = 90
KILLS_AT = (TASKS // 4, TASKS // 2)
"""Each kill comes when so many tasks are done, or were acknowledged."""

PATIENT = StoreOptions(timeout_ms=15_000)

pytestmark = pytest.mark.timeout(150)

WORKER_SETTINGS = {
    "LEDGERQ_HANDLERS": "tests.faults.quick_handlers",
    "LEDGERQ_LEASE_MS": "2000",
    "LEDGERQ_HEARTBEAT_MS": "200",
    "LEDGERQ_PENDING_IDLE_MS": "300",
    "LEDGERQ_RETRY_BASE_MS": "50",
    "LEDGERQ_LOG_LEVEL": "warning",
}


class Harm(NamedTuple):
    """How many acknowledged tasks are lost, how many tasks ended more than once, and how many
    projections are not what a rebuild makes."""

    lost: int
    doubled: int
    different: int


NO_HARM = Harm(0, 0, 0)


@pytest.fixture
def server() -> Iterator[Server]:
    """A Valkey that answers a write after its fsync."""
    with make_server(valkey_binary(), *PERSISTENT) as server:
        yield server


@pytest.fixture
async def store(server: Server) -> AsyncIterator[RedisStore]:
    """The test's own connection: it waits for the server longer than any outage here lasts."""
    store = await RedisStore.open(server.url, PATIENT)
    yield store
    await store.close()


@pytest.fixture
async def worker(server: Server, tmp_path: Path) -> AsyncIterator[Program]:
    """A worker process."""
    async with _role("worker", server, tmp_path) as program:
        yield program


@pytest.fixture
async def _scheduler(server: Server, tmp_path: Path) -> AsyncIterator[None]:
    async with _role("scheduler", server, tmp_path):
        yield


@pytest.fixture
async def projector(server: Server, tmp_path: Path) -> AsyncIterator[Program]:
    """A projector process, which keeps a read model in the test's folder."""
    async with _role("projector", server, tmp_path) as program:
        yield program


@contextlib.asynccontextmanager
async def _role(role: str, server: Server, folder: Path) -> AsyncGenerator[Program]:
    env = {
        **WORKER_SETTINGS,
        "LEDGERQ_REDIS_URL": server.url,
        "LEDGERQ_READ_MODEL_DIR": str(folder / "read-model"),
    }
    program = await Program.started(folder / f"{role}.log", env, "consumers.roles", role, role)
    try:
        yield program
    finally:
        await program.kill()


# -- the clients ------------------------------------------------------------------------------


async def submit_all(store: RedisStore, *, hangs: bool = False) -> list[str]:
    """Every task, handed to the ledger itself by many clients; the ids that were acknowledged."""
    acknowledged: list[str] = []
    numbers = iter(range(TASKS))

    async def client() -> None:
        for i in numbers:
            task_id = str(uuid7())
            payload = msgspec.json.encode({"i": i, "hangs": hangs})
            submission = a_submission(task_type="embedding_generation", payload=payload)
            await transact(store, task_id, SubmitTask(submission))
            acknowledged.append(task_id)

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())
    return acknowledged


class Watched:
    """The ledger as it grows: how many tasks are done."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._position = Position(0, "0-0")
        self._done = 0

    async def until_done(self, count: int) -> None:
        """Return as soon as so many tasks have come to their end."""
        async with asyncio.timeout(PATIENCE_S):
            while self._done < count:
                for event in await self._store.events_after(self._position, 1_000, wait_ms=1_000):
                    self._position = event.position
                    self._done += event.type in ("TaskCompleted", "TaskFailed", "TaskCanceled")


async def lost_and_doubled(store: RedisStore, acknowledged: list[str]) -> tuple[int, int]:
    """How many acknowledged tasks are not there and completed, and how many tasks came to an end
    more than once. The ledger is in order otherwise."""
    counts = await check_ledger(store)
    assert await store.client.zcard(PartitionKeys(0).leases) == 0
    assert await store.client.zcard(PartitionKeys(0).due) == 0
    lost = [
        task_id
        for task_id in acknowledged
        if task_id not in counts.tasks or counts.tasks[task_id].status is not Status.COMPLETED
    ]
    doubled = [task_id for task_id, finals in counts.finals.items() if finals != 1]
    assert len(acknowledged) == len(set(acknowledged)) == TASKS
    assert results_of(counts) == set(range(TASKS))
    return len(lost), len(doubled)


async def differences(store: RedisStore, projector: Program, folder: Path) -> int:
    """How many projections of the read model differ from what a rebuild makes, once a projector
    has come to the end of the ledger."""
    await projector.stop()
    async with projecting(store, folder / "read-model") as watched:
        await watched.level()
        found = await check(watched.files, store)
    assert found.events >= 3 * TASKS
    return sum(each.difference is not None for each in found.projections)


def results_of(counts: Counts) -> set[int]:
    return {msgspec.json.decode(task.state.result) for task in counts.tasks.values()}


async def harm_done(
    store: RedisStore, acknowledged: list[str], projector: Program, folder: Path
) -> Harm:
    lost, doubled = await lost_and_doubled(store, acknowledged)
    return Harm(lost, doubled, await differences(store, projector, folder))


def report(capsys: pytest.CaptureFixture[str], killed: str, found: Harm) -> None:
    with capsys.disabled():
        sys.stdout.write(
            f"\nkill -9 of {killed}: {TASKS} tasks, {found.lost} lost, {found.doubled} double,"
            f" {found.different} projections different\n"
        )


# -- the kills --------------------------------------------------------------------------------


@pytest.mark.usefixtures("_scheduler")
async def test_killing_the_worker_loses_and_doubles_nothing(
    store: RedisStore,
    worker: Program,
    projector: Program,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    watched = Watched(store)
    submitting = asyncio.create_task(submit_all(store, hangs=True))
    for count in KILLS_AT:
        await watched.until_done(count)
        await worker.kill()
        await worker.start()
    acknowledged = await submitting
    await watched.until_done(TASKS)

    found = await harm_done(store, acknowledged, projector, tmp_path)
    report(capsys, "the worker", found)
    assert found == NO_HARM
    interrupted = (await check_ledger(store)).events["AttemptFailed"]
    assert interrupted > 0, "no kill met a task at work"


@pytest.mark.usefixtures("_scheduler", "worker")
async def test_killing_valkey_loses_and_doubles_nothing(
    server: Server,
    store: RedisStore,
    projector: Program,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    watched = Watched(store)
    submitting = asyncio.create_task(submit_all(store))
    for count in KILLS_AT:
        await watched.until_done(count)
        server.kill()
        server.start()
    acknowledged = await submitting
    await watched.until_done(TASKS)

    found = await harm_done(store, acknowledged, projector, tmp_path)
    report(capsys, "Valkey", found)
    assert found == NO_HARM


@pytest.mark.usefixtures("_scheduler", "worker")
async def test_killing_the_projector_counts_nothing_twice(
    store: RedisStore, projector: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched = Watched(store)
    submitting = asyncio.create_task(submit_all(store))
    for count in KILLS_AT:
        await watched.until_done(count)
        await projector.kill()
        await projector.start()
    acknowledged = await submitting
    await watched.until_done(TASKS)

    found = await harm_done(store, acknowledged, projector, tmp_path)
    report(capsys, "the projector", found)
    assert found == NO_HARM


@pytest.mark.usefixtures("_scheduler", "worker")
async def test_killing_the_api_loses_and_doubles_nothing(
    server: Server,
    store: RedisStore,
    projector: Program,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    arguments = ("api.cli", "api", "--port", str(port), "--grpc-port", "0", "--redis", server.url)
    api = await Program.started(tmp_path / "api.log", {"LEDGERQ_LOG_LEVEL": "warning"}, *arguments)
    acknowledged: list[str] = []
    batches, kills = iter(range(0, TASKS, BATCH)), list(KILLS_AT)

    async def client() -> None:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            for first in batches:
                acknowledged.extend(await post_until_acknowledged(http, first))
                if kills and len(acknowledged) >= kills[0]:
                    kills.pop(0)
                    await api.kill()
                    await api.start()

    try:
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())
        await Watched(store).until_done(TASKS)
    finally:
        await api.kill()

    assert not kills
    found = await harm_done(store, acknowledged, projector, tmp_path)
    report(capsys, "the API", found)
    assert found == NO_HARM


async def post_until_acknowledged(http: httpx2.AsyncClient, first: int) -> list[str]:
    """One batch, sent again under its key until the API says that it has it; the tasks' ids."""
    body = [
        {"task_type": "embedding_generation", "kb_id": "kb", "payload": {"i": i}}
        for i in range(first, first + BATCH)
    ]
    while True:
        with contextlib.suppress(httpx2.TransportError):
            answer = await http.post(
                "/api/v1/tasks/batch", json=body, headers={"Idempotency-Key": f"from {first}"}
            )
            if answer.status_code in (200, 201):
                return [task["id"] for task in answer.json()["tasks"]]
            assert answer.status_code == 503, answer.text
        await asyncio.sleep(0.05)  # a client's pause before it tries again, not a wait for anything


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_killing_a_worker_ends_what_its_handlers_run_in_processes(
    store: RedisStore, worker: Program, tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    payload = msgspec.json.encode({"lock": str(lock)})
    submission = a_submission(task_type="vector_storage", payload=payload)
    await transact(store, str(uuid7()), SubmitTask(submission))
    position = Position(0, "0-0")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            events = await store.events_after(position, 100, wait_ms=1_000)
            if any(event.type == "TaskProgressed" for event in events):
                break
            position = events[-1].position if events else position
        await worker.kill()
        descriptor = os.open(lock, os.O_RDWR)
        try:
            await asyncio.to_thread(fcntl.flock, descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)
