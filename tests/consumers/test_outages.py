"""The ledger goes away and comes back: workers take up work again by themselves."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import pytest

from consumers import Context
from consumers.scheduler import Scheduler
from ledger.commands import StartTask
from ledger.events import TaskStarted
from ledger.identity import SYSTEM
from ledger.redis_connection import connect, send
from ledger.redis_store import RedisStore, StoreOptions
from ledger.rejections import Rejection
from ledger.task import Status
from ledger.transact import transact
from tests.checks import check_ledger
from tests.consumers.working import (
    PATIENCE_S,
    Logged,
    events_of,
    handles,
    kinds,
    scheduling,
    signal,
    submit,
    until,
    working,
)
from tests.contracts.store import a_report
from tests.servers import PERSISTENT, Server, make_server, valkey_binary

IMPATIENT = StoreOptions(timeout_ms=200)
"""A store that notices an outage soon."""


async def well(context: Context, _: Any) -> str:
    return "well"


class Held:
    """A handler that says when it starts, and returns when it is told to."""

    def __init__(self) -> None:
        self.started, self.finish = asyncio.Event(), asyncio.Event()

        async def hold(context: Context, _: Any) -> str:
            self.started.set()
            await signal(self.finish)
            return "held"

        self.handler = handles("hold", hold)


@contextlib.asynccontextmanager
async def opened(url: str, options: StoreOptions | None = None) -> AsyncGenerator[RedisStore]:
    store = await _opened(url, options)
    try:
        yield store
    finally:
        await store.close()


async def _opened(url: str, options: StoreOptions | None) -> RedisStore:
    """A busy machine may take longer to begin than an impatient store waits."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(Rejection):
                return await RedisStore.open(url, options)


async def drop_connections(url: str) -> None:
    """The server closes every connection, this one's own last."""
    client = connect(url, timeout_ms=5_000, connections_max=1)
    await send(client, ("CLIENT", "KILL", "TYPE", "normal"))
    await client.aclose()


# -- dropped connections ----------------------------------------------------------------------


async def test_a_waiting_worker_whose_connection_is_dropped_takes_up_work_again(
    store: RedisStore, ledger_url: str
) -> None:
    async with working(store, handles("work", well)):
        for _ in range(3):
            await drop_connections(ledger_url)
            await until(store, await submit(store), Status.COMPLETED)


async def test_connections_that_are_dropped_all_the_time_cost_no_task(
    store: RedisStore, ledger_url: str
) -> None:
    async with (
        working(store, handles("work", well), pending_idle_ms=100, concurrency=5),
        scheduling(store),
    ):
        task_ids: list[str] = []
        for _ in range(20):
            task_ids += [await submit(store) for _ in range(5)]
            await drop_connections(ledger_url)
        for task_id in task_ids:
            await until(store, task_id, Status.COMPLETED)

    counts = await check_ledger(store)
    assert counts.in_status(Status.COMPLETED) == len(counts.finals) == 100


async def test_a_result_gets_through_though_the_connection_was_dropped_meanwhile(
    store: RedisStore, ledger_url: str
) -> None:
    held = Held()
    async with working(store, held.handler):
        task_id = await submit(store, "hold")
        await signal(held.started)
        await drop_connections(ledger_url)
        held.finish.set()
        await until(store, task_id, Status.COMPLETED)

    assert await kinds(store, task_id) == ["TaskSubmitted", "TaskStarted", "TaskCompleted"]


# -- a server that is down for a while --------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that keeps what it acknowledged."""
    with make_server(valkey_binary(), *PERSISTENT) as server:
        yield server


@pytest.fixture
async def impatient(server: Server) -> AsyncIterator[RedisStore]:
    """The worker's store."""
    async with opened(server.url, IMPATIENT) as store:
        yield store


@pytest.fixture
async def other(server: Server) -> AsyncIterator[RedisStore]:
    """The submitter's store: it waits for the server longer than any outage here lasts."""
    async with opened(server.url, StoreOptions(timeout_ms=15_000)) as store:
        yield store


async def test_a_waiting_worker_outlives_the_server(
    server: Server, impatient: RedisStore, other: RedisStore, logged: Logged
) -> None:
    async with working(impatient, handles("work", well), worker_id="w1"):
        await until(other, await submit(other), Status.COMPLETED)
        server.kill()
        await logged.comes("ledger_out_of_reach")
        server.start()
        await until(other, await submit(other), Status.COMPLETED)
        await logged.comes("ledger_back")

    (told,) = logged.of("ledger_out_of_reach")
    assert told["role"] == "worker w1"
    assert len(logged.of("ledger_back")) == 1


async def test_a_loop_that_stood_still_is_no_outage(
    server: Server, other: RedisStore, logged: Logged
) -> None:
    async def block(context: Context, _: Any) -> None:
        time.sleep(1.7)  # noqa: ASYNC251 - as what must not be does

    # Longer than a busy machine keeps an answer back, and shorter than what blocks.
    async with opened(server.url, StoreOptions(timeout_ms=1_500)) as store:
        async with working(store, handles("work", block), loop_blocked_ms=100):
            for _ in range(2):
                await until(other, await submit(other), Status.COMPLETED)
            await logged.comes("event_loop_moves_again", 2)

    assert logged.of("ledger_out_of_reach") == []


async def test_what_a_handler_returns_during_an_outage_is_delivered_after_it(
    server: Server, impatient: RedisStore, other: RedisStore, logged: Logged
) -> None:
    held = Held()
    async with working(impatient, held.handler, lease_ms=60_000):
        task_id = await submit(other, "hold")
        await signal(held.started)
        server.kill()
        held.finish.set()
        delayed = await logged.comes("write_delayed")
        server.start()
        task = await until(other, task_id, Status.COMPLETED)

    assert delayed["task_id"] == task_id
    assert bytes(task.state.result) == b'"held"'
    assert len(await events_of(other, task_id, TaskStarted)) == 1
    assert len(logged.of("ledger_out_of_reach")) <= 1


@pytest.mark.parametrize(("grace_s", "last_event"), [(60, "TaskStarted"), (0, "RetryScheduled")])
async def test_leases_that_ran_out_during_an_outage_are_left_alone_for_a_while(
    server: Server,
    impatient: RedisStore,
    other: RedisStore,
    monkeypatch: pytest.MonkeyPatch,
    grace_s: float,
    last_event: str,
) -> None:
    scheduler = Scheduler(impatient, sweep_interval_ms=20, outage_grace_s=grace_s)
    task_id = await submit(other)
    await transact(other, task_id, StartTask(1, "w1", lease_ms=1))
    server.kill()
    with pytest.raises(Rejection, match="cannot be reached"):
        await scheduler.step()
    server.start()
    await other.last_position(0)
    await scheduler.step()

    assert (await kinds(other, task_id))[-1] == last_event


@pytest.mark.parametrize("timeout_ms", [250, 15_000], ids=["calls give up", "calls wait it out"])
async def test_the_grace_begins_with_the_first_answer_after_an_outage(
    server: Server, other: RedisStore, monkeypatch: pytest.MonkeyPatch, timeout_ms: int
) -> None:
    """It outlasts a lease and the grace, whether or not anything of it was said."""
    monkeypatch.setattr("consumers.scheduler.UPKEEP_S", 0)
    grace_s, lease_ms = 0.4, 500
    async with opened(server.url, StoreOptions(timeout_ms=timeout_ms)) as store:
        scheduler = Scheduler(store, sweep_interval_ms=20, outage_grace_s=grace_s, beat_s=0.2)
        await _until_lost(other, scheduler, await _started(other, lease_ms=1))
        held = await _started(other, lease_ms=lease_ms)
        await other.announce(a_report("w7", lease_ms=lease_ms))

        server.kill()
        back = asyncio.Event()
        waiting = asyncio.create_task(_first_answer(scheduler, back))
        await asyncio.sleep(0.25 + grace_s + 0.3)
        server.start()
        back.set()
        await asyncio.wait_for(waiting, PATIENCE_S)

        assert (await kinds(other, held))[-1] == "TaskStarted"
        assert await other.history(SYSTEM) == []
        # It is over, too: whoever does not come back is lost.
        await _until_lost(other, scheduler, held)
        await scheduler.step()
        assert [r.type for r in await other.history(SYSTEM)] == ["WorkerLost"]


async def _started(store: RedisStore, lease_ms: int) -> str:
    task_id = await submit(store)
    await transact(store, task_id, StartTask(1, "w1", lease_ms=lease_ms))
    return task_id


async def _first_answer(scheduler: Scheduler, back: asyncio.Event) -> None:
    """One step, and another one when the ledger is back, if that one gave up."""
    try:
        await scheduler.step()
    except Rejection:
        await back.wait()
        await scheduler.step()


async def _until_lost(store: RedisStore, scheduler: Scheduler, task_id: str) -> None:
    """Step until the attempt is counted lost."""
    async with asyncio.timeout(PATIENCE_S):
        while (await kinds(store, task_id))[-1] == "TaskStarted":
            with contextlib.suppress(Rejection):
                await scheduler.step()


async def test_a_worker_can_be_stopped_during_an_outage(
    server: Server, impatient: RedisStore, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.worker.FINAL_WRITES_TIMEOUT_S", 0.3)
    held = Held()
    async with working(impatient, held.handler, drain_timeout_ms=0) as worker:
        await submit(impatient, "hold")
        await signal(held.started)
        server.kill()
        await logged.comes("ledger_out_of_reach")
        worker.stop()

    assert logged.of("worker_stopped")
    server.start()
