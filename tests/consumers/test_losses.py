"""Lost workers are recorded, once each time; and limits reach every partition."""

import asyncio
import signal as signals
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from consumers.grace import Grace
from consumers.losses import Losses
from consumers.scheduler import Scheduler
from ledger.codec import Meta, decode_meta
from ledger.identity import SYSTEM
from ledger.keys import WORKERS, PartitionKeys
from ledger.redis_store import RedisStore, StoreOptions
from ledger.settings import Settings
from ledger.system.commands import PauseQueue, SetLimit
from ledger.system.events import LimitScope, WorkerLost
from ledger.system.transact import transact_system
from ledger.task import Status
from ledger.workers import WorkerSeen, WorkerState
from tests.consumers.role_process import role_process
from tests.consumers.working import (
    PATIENCE_S,
    Logged,
    handles,
    scheduling,
    submit,
    until,
    working,
)
from tests.contracts.store import a_report

META = Meta("scheduler")
NO_GRACE = Grace(gap_s=0, grace_s=0)


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.scheduler.UPKEEP_S", 0.02)


async def losses(store: RedisStore, count: int) -> list[WorkerLost]:
    """The losses that are recorded, as soon as there are so many."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            position = await store.last_position(0)
            events = [r.system_event() for r in await store.history(SYSTEM)]
            found = [event for event in events if isinstance(event, WorkerLost)]
            if len(found) >= count:
                return found
            await store.events_after(position, 1, wait_ms=1_000)


async def seen_as(store: RedisStore, state: WorkerState) -> WorkerSeen:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for worker in await store.workers():
                if worker.state is state:
                    return worker
            await asyncio.sleep(0.005)


async def test_a_lost_worker_is_recorded_once_however_many_look(store: RedisStore) -> None:
    await store.announce(a_report("w7", lease_ms=1, running=3))
    lost = await seen_as(store, WorkerState.LOST)

    async with scheduling(store), scheduling(store):
        await losses(store, 1)
        await asyncio.gather(*(Losses(store, META, NO_GRACE).look() for _ in range(5)))

    history = await store.history(SYSTEM)
    assert [r.system_event() for r in history] == [
        WorkerLost("w7", "h1", 7, lost.last_heartbeat, 3)
    ]
    assert decode_meta(history[0].meta).actor == "scheduler"


async def test_a_worker_that_retires_is_not_lost(store: RedisStore) -> None:
    await store.announce(a_report("w7", lease_ms=1))
    await store.retire("w7")

    await Losses(store, META, NO_GRACE).look()

    assert await store.history(SYSTEM) == []


async def test_a_worker_that_comes_back_and_is_lost_again_is_recorded_again(
    store: RedisStore,
) -> None:
    looking = Losses(store, META, NO_GRACE)
    for _ in range(2):
        await store.announce(a_report("w7", lease_ms=1))
        await seen_as(store, WorkerState.LOST)
        await looking.look()
        await looking.look()

    first, second = await losses(store, 2)
    assert first.last_heartbeat < second.last_heartbeat


async def test_a_stopped_worker_is_lost_and_seen_again_when_it_goes_on(
    store: RedisStore, ledger_url: str, tmp_path: Path
) -> None:
    settings = Settings(
        redis_url=ledger_url,
        data_dir=str(tmp_path),
        lease_ms=2_000,
        heartbeat_ms=100,
    )
    with role_process("-m", "consumers.roles", "worker", "w", cwd=tmp_path, settings=settings) as w:
        alive = await seen_as(store, WorkerState.IDLE)
        async with scheduling(store):
            w.signal(signals.SIGSTOP)
            [lost] = await losses(store, 1)
            shown = await seen_as(store, WorkerState.LOST)
            w.signal(signals.SIGCONT)
            back = await seen_as(store, WorkerState.IDLE)

    assert lost.worker_id == alive.report.id == shown.report.id == back.report.id
    assert (lost.pid, lost.running) == (alive.report.pid, 0)


async def test_workers_that_an_outage_kept_from_saying_so_are_spared(store: RedisStore) -> None:
    await store.announce(a_report("w7", lease_ms=1))
    await seen_as(store, WorkerState.LOST)
    scheduler = Scheduler(store, sweep_interval_ms=20, outage_grace_s=600)

    await scheduler.step()

    assert await store.history(SYSTEM) == []


async def test_what_cannot_be_read_stops_no_task(store: RedisStore, logged: Logged) -> None:
    client: Any = store.client
    await client.set(WORKERS, "not ours")

    async def nothing(*_: Any) -> None:
        return

    async with scheduling(store), working(store, handles("work", nothing)):
        await logged.comes("upkeep_failed")
        due = await submit(store, schedule_for=store.now_ms() + 30)
        await until(store, due, Status.COMPLETED)

    assert len(logged.of("upkeep_failed")) == 1


# -- limits ---------------------------------------------------------------------------------------


@pytest.fixture
async def wide(ledger_url: str) -> AsyncIterator[RedisStore]:
    """A ledger of three partitions."""
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=3))
    yield store
    await store.close()


async def held(store: RedisStore, limits: dict[str, int]) -> None:
    """Return once every partition holds these limits of types."""
    expected = {(LimitScope.TYPE, name): limit for name, limit in limits.items()}
    async with asyncio.timeout(PATIENCE_S):
        for partition in range(store.partitions):
            while True:
                if await store.limits_held(partition) == expected:
                    break
                await asyncio.sleep(0.005)


async def test_limits_that_did_not_get_to_a_partition_are_brought_there(wide: RedisStore) -> None:
    """As when an API process ends after it has recorded a limit."""
    await transact_system(wide, SetLimit(LimitScope.TYPE, "work", 9), META)

    async with scheduling(wide):
        await held(wide, {"work": 3})
        client: Any = wide.client
        await client.delete(PartitionKeys(2).limits)
        await held(wide, {"work": 3})
        await transact_system(wide, SetLimit(LimitScope.TYPE, "work", 3), META)
        await transact_system(wide, PauseQueue("work"), META)
        await held(wide, {"work": 1})


async def test_a_scheduler_with_nothing_to_bring_writes_nothing(store: RedisStore) -> None:
    await transact_system(store, PauseQueue("work"), META)
    scheduler = Scheduler(store, sweep_interval_ms=20, outage_grace_s=0)

    await scheduler.step()

    client: Any = store.client
    assert await client.exists(PartitionKeys(0).limits) == 0
