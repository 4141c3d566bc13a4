"""Workers and paused queues: nothing of a paused type is taken, what runs goes on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn

import pytest

from consumers import Context
from ledger.codec import Meta
from ledger.identity import SYSTEM
from ledger.keys import PartitionKeys
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Append
from ledger.system.commands import PauseQueue, ResumeQueue
from ledger.system.transact import transact_system
from ledger.task import Status
from tests.consumers.working import (
    PATIENCE_S,
    Counted,
    Logged,
    handles,
    kinds,
    signal,
    submit,
    until,
    working,
)

META = Meta("ann")


async def nothing(_context: Context, _payload: Any) -> None:
    return


async def pause(store: RedisStore, task_type: str = "work") -> None:
    await transact_system(store, PauseQueue(task_type), META)


async def resume(store: RedisStore, task_type: str = "work") -> None:
    await transact_system(store, ResumeQueue(task_type), META)


async def learned(store: RedisStore) -> None:
    """Return once every worker has asked again."""
    asked = Counted(store.system_version)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "system_version", asked)
        await asked.more(2)


async def test_nothing_of_a_paused_type_is_taken_until_it_is_resumed(store: RedisStore) -> None:
    async with working(store, handles("work", nothing), handles("other", nothing)):
        await until(store, await submit(store), Status.COMPLETED)
        await pause(store)
        await learned(store)

        waits = [await submit(store) for _ in range(3)]
        for _ in range(3):
            await until(store, await submit(store, "other"), Status.COMPLETED)
        waited = [await kinds(store, task_id) for task_id in waits]
        await resume(store)
        for task_id in waits:
            await until(store, task_id, Status.COMPLETED)

    assert waited == [["TaskSubmitted"]] * 3


async def test_a_worker_that_begins_knows_what_was_paused_before(store: RedisStore) -> None:
    await pause(store)
    waits = await submit(store)
    async with working(store, handles("work", nothing), handles("other", nothing)):
        await until(store, await submit(store, "other"), Status.COMPLETED)
        assert await kinds(store, waits) == ["TaskSubmitted"]


async def test_a_worker_all_of_whose_types_are_paused_waits_for_the_end_of_that(
    store: RedisStore, logged: Logged
) -> None:
    await pause(store)
    task_id = await submit(store)
    async with working(store, handles("work", nothing)):
        await logged.comes("pauses_changed")
        await learned(store)
        waited = await kinds(store, task_id)
        await resume(store)
        await until(store, task_id, Status.COMPLETED)

    assert waited == ["TaskSubmitted"]
    assert [record["paused"] for record in logged.of("pauses_changed")] == [["work"], []]


async def test_a_worker_all_of_whose_types_are_paused_stops_at_once(
    store: RedisStore, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.claiming.READY_WAIT_MS", 600_000)
    await pause(store)
    async with working(store, handles("work", nothing)):
        await logged.comes("pauses_changed")


@pytest.fixture
async def cut(ledger_url: str, store: RedisStore) -> AsyncIterator["Cut"]:
    """The connection of a worker, whose writes fail for now."""
    cut = Cut(await RedisStore.open(ledger_url))
    yield cut
    await cut.store.close()


class Cut:
    """A store that says of no write that it was made; `writes`: it is made all the same."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.writes = False
        self.released = Counted(store.release)
        self._append_all = store.append_all
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(store, "append_all", self._fail)
        self._patch.setattr(store, "append", self._fail_one)
        self._patch.setattr(store, "release", self.released)

    def mend(self) -> None:
        self._patch.undo()

    async def _fail(self, steps: Sequence[Append]) -> NoReturn:
        if self.writes:
            await self._append_all(steps)
        raise Rejection(RejectionCode.SERVICE_UNAVAILABLE, "the connection was cut")

    async def _fail_one(self, step: Append) -> NoReturn:
        await self._fail([step])


async def test_a_start_that_could_not_be_written_is_given_up_when_its_type_is_paused(
    store: RedisStore, cut: Cut, logged: Logged
) -> None:
    # given a worker that cannot write a start
    async with working(cut.store, handles("work", nothing)):
        task_id = await submit(store)
        await logged.comes("write_delayed")
        # when the type is paused
        await pause(store)
        await cut.released.more(1)
        cut.mend()
        # then the task is left to others, who begin it once the type is resumed
        waited = await kinds(store, task_id)
        await resume(store)
        await until(store, task_id, Status.COMPLETED)

    assert waited == ["TaskSubmitted"]


async def test_a_start_that_was_written_unheard_goes_on_though_its_type_is_paused(
    store: RedisStore, cut: Cut, logged: Logged
) -> None:
    # given a worker that writes a start, and does not hear of it
    cut.writes = True
    async with working(cut.store, handles("work", nothing)):
        task_id = await submit(store)
        await logged.comes("write_delayed")
        # when the type is paused
        await pause(store)
        await logged.comes("pauses_changed")
        cut.mend()
        # then the attempt that began goes on
        await until(store, task_id, Status.COMPLETED)

    assert await kinds(store, task_id) == ["TaskSubmitted", "TaskStarted", "TaskCompleted"]


async def test_what_runs_goes_on(store: RedisStore) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def work(context: Context, _: Any) -> None:
        started.set()
        await signal(go_on)

    async with working(store, handles("work", work)):
        task_id = await submit(store)
        await signal(started)
        await pause(store)
        await learned(store)
        go_on.set()
        await until(store, task_id, Status.COMPLETED)


async def test_a_type_that_is_paused_while_there_is_no_room_is_left_alone(
    store: RedisStore,
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def work(context: Context, _: Any) -> None:
        started.set()
        await signal(go_on)

    async with working(store, handles("work", work), handles("other", nothing), concurrency=1):
        first = await submit(store)
        await signal(started)
        waits = await submit(store)
        await pause(store)
        await learned(store)
        go_on.set()
        await until(store, first, Status.COMPLETED)
        await until(store, await submit(store, "other"), Status.COMPLETED)
        waited = await kinds(store, waits)
        await resume(store)
        await until(store, waits, Status.COMPLETED)

    assert waited == ["TaskSubmitted"]


async def test_what_a_read_delivers_that_began_before_the_pause_is_held_back(
    store: RedisStore, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is taken up at once when the queue is resumed, not when the claim is stale."""
    monkeypatch.setattr("consumers.claiming.READY_WAIT_MS", 600)
    waiting = asyncio.Event()
    wait_ready = store.wait_ready

    async def wait(*arguments: Any) -> Any:
        waiting.set()
        return await wait_ready(*arguments)

    monkeypatch.setattr(store, "wait_ready", wait)
    async with working(
        store, handles("work", nothing), handles("other", nothing), pending_idle_ms=600_000
    ):
        await signal(waiting)
        await pause(store)
        await logged.comes("pauses_changed")
        task_id = await submit(store)
        await until(store, await submit(store, "other"), Status.COMPLETED)
        waited = await kinds(store, task_id)
        await resume(store)
        await until(store, task_id, Status.COMPLETED)

    assert waited == ["TaskSubmitted"]


async def test_a_worker_that_cannot_learn_what_is_paused_works_all_the_same(
    store: RedisStore, logged: Logged
) -> None:
    client: Any = store.client
    await client.set(PartitionKeys(0).task(SYSTEM), "not ours")
    async with working(store, handles("work", nothing)):
        await until(store, await submit(store), Status.COMPLETED)
        async with asyncio.timeout(PATIENCE_S):
            await logged.comes("pauses_unreadable")

    assert len(logged.of("pauses_unreadable")) == 1
