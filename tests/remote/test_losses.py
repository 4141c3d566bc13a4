"""Workers that vanish, servers that stop, a ledger that is away: nothing is lost."""

import asyncio
from typing import Any

import grpc
import msgspec
import pytest

from api.app import create_app
from api.grpc import task_service_pb2 as pb
from api.grpc.server import GrpcServer
from consumers import remote_workers
from consumers.scheduler import Scheduler
from ledger.codec import Meta
from ledger.events import ErrorKind
from ledger.redis_store import RedisStore, StoreOptions
from ledger.settings import Settings
from ledger.system.commands import PauseQueue, ResumeQueue
from ledger.system.transact import transact_system
from ledger.task import Status, Task
from tests.api.requests import UNKNOWN_ID
from tests.remote.calls import TYPE, WORKER, Remote, refused, submission
from tests.servers import make_server, valkey_binary

PATIENCE_S = 20


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, lease_ms=400, heartbeat_ms=100)


async def test_a_worker_that_vanishes_loses_its_lease_and_nothing_else(
    remote: Remote, store: RedisStore
):
    await remote.submit()
    [task] = await remote.take(worker_id="vanishes")

    async with _scheduling(store):
        [again] = await remote.take()
    late = await refused(remote.report(task, worker_id="vanishes", completed=pb.Completed()))
    done = await remote.report(again, completed=pb.Completed())

    assert (again.id, again.attempt, again.retry_count) == (task.id, 2, 1)
    assert (late.status, late.code) == (grpc.StatusCode.FAILED_PRECONDITION, "STALE_ATTEMPT")
    assert done.status == pb.TASK_STATUS_COMPLETED
    types = [event.type for event in await store.history(task.id)]
    assert types.count("TaskCompleted") == 1


async def test_heartbeats_keep_a_task_longer_than_its_lease(remote: Remote, store: RedisStore):
    await remote.submit()
    [task] = await remote.take()

    async with _scheduling(store):
        for _ in range(8):
            assert await remote.beat(task) == []
            await asyncio.sleep(0.1)

    assert (await _loaded(store, task.id)).state.attempt == 1
    assert (await remote.report(task, completed=pb.Completed())).version == 3


async def test_who_hangs_up_while_waiting_keeps_nothing_from_others(
    server: tuple[GrpcServer, int], remote: Remote
):
    asked = pb.GetPendingTasksRequest(worker_id="gone", task_types=[TYPE], wait_ms=30_000)
    for _ in range(3):
        call = remote.stub.GetPendingTasks(asked)
        await _waits(server[0], 1)
        call.cancel()
        await _waits(server[0], 0)

    task = await remote.submit()

    [taken] = await remote.take()
    assert (taken.id, taken.attempt) == (task.id, 1)


async def test_who_hangs_up_as_its_task_is_started_gives_it_back(
    remote: Remote, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    task = await remote.submit()
    starting, noticed = asyncio.Event(), asyncio.Event()
    real: Any = remote_workers.transact
    real_take: Any = remote_workers.RemoteWorkers.take

    async def slow(*arguments: Any, **named: Any) -> Any:
        done = await real(*arguments, **named)
        starting.set()
        await noticed.wait()
        return done

    async def take(*arguments: Any) -> Any:
        try:
            return await real_take(*arguments)
        finally:
            noticed.set()

    monkeypatch.setattr(remote_workers, "transact", slow)
    monkeypatch.setattr(remote_workers.RemoteWorkers, "take", take)
    call = remote.stub.GetPendingTasks(
        pb.GetPendingTasksRequest(worker_id="gone", task_types=[TYPE], wait_ms=30_000)
    )
    await starting.wait()
    monkeypatch.undo()
    call.cancel()
    # Before a scheduler looks, since on a busy machine the lease could be over by then.
    async with asyncio.timeout(PATIENCE_S):
        while (await _loaded(store, task.id)).status is Status.PROCESSING:
            await store.events_after(await store.last_position(0), 1, 50)

    async with _scheduling(store):
        [again] = await remote.take()

    assert (again.id, again.attempt, again.retry_count) == (task.id, 2, 0)
    state = (await _loaded(store, task.id)).state
    assert state.error_message == remote_workers.GONE_BEFORE_ANSWER
    assert state.error_kind is ErrorKind.WORKER_LOST


async def test_a_call_that_waits_answers_before_its_deadline(remote: Remote):
    task = await remote.submit()
    asked = pb.GetPendingTasksRequest(worker_id=WORKER, task_types=["vector_storage"])
    asked.wait_ms = 30_000

    none = await remote.stub.GetPendingTasks(asked, timeout=3)
    same = await remote.stub.GetTask(pb.GetTaskRequest(id=task.id, wait_ms=30_000), timeout=3)

    assert list(none.tasks) == []
    assert same.status == pb.TASK_STATUS_QUEUED


async def test_paused_types_are_not_taken(remote: Remote, store: RedisStore):
    await transact_system(store, PauseQueue(TYPE), Meta(actor="test"))
    task = await remote.submit()

    none = await remote.take(wait_ms=500)
    await transact_system(store, ResumeQueue(TYPE), Meta(actor="test"))
    [taken] = await remote.take()

    assert none == []
    assert taken.id == task.id


async def test_a_server_that_stops_lets_workers_go_and_keeps_their_leases(
    server: tuple[GrpcServer, int], remote: Remote, store: RedisStore
):
    await remote.submit()
    [task] = await remote.take()
    waiting = asyncio.create_task(remote.take(wait_ms=30_000))
    await _waits(server[0], 1)

    await server[0].stop()

    assert await waiting == []
    refusal = await refused(remote.take())
    assert refusal.status is grpc.StatusCode.UNAVAILABLE
    assert (await _loaded(store, task.id)).status is Status.PROCESSING


async def test_while_the_ledger_is_away_calls_are_unavailable_and_then_go_on(settings: Settings):
    with make_server(valkey_binary()) as away:
        store = await RedisStore.open(away.url, StoreOptions(timeout_ms=300))
        app = create_app(store, settings)
        server = GrpcServer(settings)
        port = await server.start()
        server.open(app)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                remote = Remote(channel)
                await remote.submit()
                assert len(await remote.take()) == 1
                waiting = asyncio.create_task(refused(remote.take(wait_ms=30_000)))
                away.kill()

                errors = [
                    await waiting,
                    await refused(remote.take(wait_ms=30_000)),
                    await refused(remote.call("SubmitTask", submission())),
                    await refused(remote.beat(pb.PendingTask(id=UNKNOWN_ID, attempt=1))),
                ]
                away.start()
                task = await _submitted(remote)
                [taken] = await remote.take()
        finally:
            await server.stop()
            await app.close()
            await store.close()

    assert {(e.status, e.code) for e in errors} == {
        (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
    }
    assert {e.metadata["retry-after"] for e in errors} == {"1"}
    assert taken.id == task.id


async def _submitted(remote: Remote) -> Any:
    """As soon as the ledger is back."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await remote.submit()
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                await asyncio.sleep(0.05)


class _scheduling:
    """While a scheduler runs."""

    def __init__(self, store: RedisStore) -> None:
        self._service = Scheduler(store, sweep_interval_ms=20, outage_grace_s=0, beat_s=0.1).service

    async def __aenter__(self) -> None:
        self._running = asyncio.create_task(self._service.run())

    async def __aexit__(self, *_: object) -> None:
        self._service.stop()
        await self._running


async def _waits(server: GrpcServer, count: int) -> None:
    """Return when so many calls wait for tasks."""
    async with asyncio.timeout(PATIENCE_S):
        while server.waiting != count:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.01)


async def _loaded(store: RedisStore, task_id: str) -> Task:
    task = await store.load(task_id)
    assert task is not None
    return task
