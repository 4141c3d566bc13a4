"""The connection breaks at the worst moment: what was written is written once, and known to be."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from ledger.codec import Meta
from ledger.commands import CancelTask, CompleteTask, ReportProgress, SubmitTask
from ledger.events import Priority
from ledger.keys import PartitionKeys
from ledger.placement import Queue
from ledger.redis_connection import send as send_command
from ledger.redis_store import RedisStore, StoreOptions
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Conflict, Written
from ledger.task import Status
from ledger.transact import transact
from tests.contracts.store import (
    QUEUES,
    RESULT,
    SIGNAL_MS,
    append,
    claim,
    new_id,
    send,
    stale,
    start,
    submit,
)
from tests.faults.proxy import Proxy, run_proxy
from tests.given import a_submission
from tests.places import places_of
from tests.servers import PERSISTENT, Server, make_server, valkey_binary

A_SCRIPT = b"EVAL"
QUICK = StoreOptions(timeout_ms=1_000)
PATIENT = StoreOptions(timeout_ms=20_000)


@pytest.fixture
async def proxy(ledger_url: str) -> AsyncIterator[Proxy]:
    async with run_proxy(ledger_url) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy) -> AsyncIterator[RedisStore]:
    """A store behind the proxy."""
    store = await RedisStore.open(proxy.url, PATIENT)
    yield store
    await store.close()


@pytest.fixture
async def other(ledger_url: str) -> AsyncIterator[RedisStore]:
    """Another process's store, whose connection is sound."""
    store = await RedisStore.open(ledger_url)
    yield store
    await store.close()


# -- the reply is lost ------------------------------------------------------------------------


async def test_an_append_whose_reply_is_lost_is_written_once(store: RedisStore, proxy: Proxy):
    task_id = new_id()
    proxy.cut_reply(A_SCRIPT)

    outcome = await append(store, task_id, None, SubmitTask(a_submission()))

    assert proxy.struck.is_set()
    assert outcome == Written(await store.last_position(0))
    assert [r.version for r in await store.history(task_id)] == [1]
    assert len(await claim(store, 10)) == 1


async def test_a_batch_whose_reply_is_lost_is_written_once(store: RedisStore, proxy: Proxy):
    ids = [new_id() for _ in range(20)]
    proxy.cut_reply(A_SCRIPT)

    outcomes = await asyncio.gather(
        *(append(store, task_id, None, SubmitTask(a_submission())) for task_id in ids)
    )

    assert proxy.struck.is_set()
    histories = [await store.history(task_id) for task_id in ids]
    assert [len(history) for history in histories] == [1] * 20
    assert outcomes == [Written(history[0].position) for history in histories]


async def test_an_append_whose_reply_is_lost_is_known_even_when_it_was_built_on(
    store: RedisStore, other: RedisStore, proxy: Proxy
):
    task_id = new_id()

    async def somebody_cancels() -> None:
        await transact(other, task_id, CancelTask("by another"))

    proxy.cut_reply(A_SCRIPT, meanwhile=somebody_cancels)

    done = await transact(store, task_id, SubmitTask(a_submission(body_sha256="a1")))

    assert proxy.struck.is_set()
    recorded = await store.history(task_id)
    assert [r.type for r in recorded] == ["TaskSubmitted", "TaskCanceled"]
    assert (done.task.version, done.position) == (1, recorded[0].position)


async def test_a_command_that_was_built_on_is_not_carried_out_again(
    store: RedisStore, other: RedisStore, proxy: Proxy
):
    task = await start(store, await submit(store))

    async def the_work_goes_on() -> None:
        await send(other, task, ReportProgress(60, "by another"))

    proxy.cut_reply(A_SCRIPT, meanwhile=the_work_goes_on)

    done = await transact(store, task.id, ReportProgress(40, "mine"), known=task)

    recorded = await store.history(task.id)
    assert [r.version for r in recorded] == [1, 2, 3, 4]
    assert (done.task.version, done.position) == (3, recorded[2].position)


async def test_a_conflict_after_a_lost_reply_is_still_a_conflict(
    store: RedisStore, other: RedisStore, proxy: Proxy
):
    task = await start(store, await submit(store))
    free = new_id()

    async def somebody_completes() -> None:
        await send(other, task, CompleteTask(1, RESULT))

    proxy.cut_request(A_SCRIPT, meanwhile=somebody_completes)

    written, refused = await asyncio.gather(
        transact(store, free, SubmitTask(a_submission())),
        transact(store, task.id, CancelTask(), known=task),
        return_exceptions=True,
    )

    assert not isinstance(written, BaseException)
    assert isinstance(refused, Rejection)
    assert refused.code is RejectionCode.TASK_NOT_CANCELABLE
    assert [r.type for r in await store.history(task.id)][2:] == ["TaskCompleted"]


async def test_a_history_that_cannot_be_read_spoils_no_other_answer(
    store: RedisStore, other: RedisStore, proxy: Proxy
):
    spoiled, well = new_id(), new_id()
    keys = PartitionKeys(0)

    async def somebody_writes_rubbish() -> None:
        entry = await send_command(other.client, ("XADD", keys.events, "*", "rub", "bish"))
        fields = ("version", 9, "commit", "another", "last", entry)
        await send_command(other.client, ("HSET", keys.task(spoiled), *fields))

    proxy.cut_reply(A_SCRIPT, meanwhile=somebody_writes_rubbish)

    unknown, written = await asyncio.gather(
        *(append(store, task_id, None, SubmitTask(a_submission())) for task_id in (spoiled, well))
    )

    assert unknown == Conflict(9)
    [recorded] = await store.history(well)
    assert written == Written(recorded.position)


async def test_a_claim_whose_reply_is_lost_is_handed_out_again(store: RedisStore, proxy: Proxy):
    tasks = [await submit(store) for _ in range(3)]
    proxy.cut_reply(A_SCRIPT)

    claimed = await claim(store, 2)

    assert proxy.struck.is_set()
    assert claimed == [tasks[2]], "the first two are pending: their delivery was lost"
    assert set(await stale(store, 2)) >= {tasks[0].id, tasks[1].id}


# -- the request is lost ----------------------------------------------------------------------


async def test_an_append_that_never_arrived_is_sent_again(store: RedisStore, proxy: Proxy):
    task_id = new_id()
    proxy.cut_request(A_SCRIPT)

    outcome = await append(store, task_id, None, SubmitTask(a_submission()))

    assert proxy.struck.is_set()
    assert outcome == Written(await store.last_position(0))
    assert len(await store.history(task_id)) == 1


async def test_a_read_is_simply_sent_again(store: RedisStore, proxy: Proxy):
    task = await submit(store)
    proxy.cut_reply(A_SCRIPT)

    assert await store.load(task.id) == task
    assert proxy.struck.is_set()


async def test_a_server_that_forgot_the_scripts_gets_them_again(
    store: RedisStore, other: RedisStore
):
    task = await submit(store)
    await other.client.script_flush()

    await start(store, task)
    await other.client.script_flush()

    assert (await store.renew(0, [(task.id, 1)], 60_000)) == []
    assert [r.version for r in await store.history(task.id)] == [1, 2]


async def test_a_reply_lost_while_the_script_is_sent_again_is_still_one_append(
    store: RedisStore, other: RedisStore, proxy: Proxy
):
    await other.client.script_flush()
    proxy.cut_reply(A_SCRIPT)

    task = await submit(store)

    assert proxy.struck.is_set()
    assert [r.version for r in await store.history(task.id)] == [1]


async def test_a_caller_who_gives_up_leaves_no_reply_for_the_next(store: RedisStore):
    await store.claim(0, QUEUES, 1, [])
    for _ in range(3):
        waiter = asyncio.create_task(store.wait_ready(0, QUEUES, 9_000))
        task = await submit(store, task_type="health_check")
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter

        assert await store.load(task.id) == task
        assert await store.history(new_id()) == []


# -- the server is away -----------------------------------------------------------------------


@pytest.fixture
async def quick(proxy: Proxy) -> AsyncIterator[RedisStore]:
    """A store that soon gives up."""
    store = await RedisStore.open(proxy.url, QUICK)
    yield store
    proxy.accept()
    proxy.let_go()
    await store.close()


async def unavailable(store: RedisStore, task_id: str) -> None:
    """Every kind of call says so, in bounded time."""
    calls = [
        submit(store, task_id=task_id),
        store.load(task_id),
        store.history(task_id),
        store.claim(0, QUEUES, 1, []),
        store.wait_ready(0, QUEUES, 100),
        store.renew(0, [(task_id, 1)], 1),
        store.overdue(0, 1),
    ]
    async with asyncio.timeout(SIGNAL_MS / 1000):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, Rejection), outcome
        assert outcome.code is RejectionCode.SERVICE_UNAVAILABLE
        assert outcome.retryable


async def test_a_server_that_is_away_for_longer_makes_the_ledger_unavailable(
    quick: RedisStore, proxy: Proxy
):
    kept, refused = await submit(quick), new_id()
    await proxy.refuse()

    await unavailable(quick, refused)

    proxy.accept()
    assert await quick.load(refused) is None
    assert await quick.load(kept.id) == kept
    assert (await submit(quick, task_id=refused)).version == 1


async def test_a_server_that_does_not_answer_makes_the_ledger_unavailable(
    quick: RedisStore, proxy: Proxy
):
    task_id = new_id()
    proxy.hold()

    await unavailable(quick, task_id)

    proxy.let_go()
    task = await submit(quick, task_id=task_id)
    assert task.version == 1, "what ran unseen is found, not written again"
    assert len(await quick.history(task_id)) == 1


async def test_a_server_that_is_away_for_a_moment_is_not_noticed(store: RedisStore, proxy: Proxy):
    await proxy.refuse()
    submitting = asyncio.create_task(submit(store))
    reading = asyncio.create_task(store.last_position(0))
    await proxy.refused.wait()

    proxy.accept()

    task = await submitting
    await reading
    assert [r.version for r in await store.history(task.id)] == [1]


# -- the server dies --------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with make_server(valkey_binary(), *PERSISTENT) as server:
        yield server


async def test_what_was_acknowledged_is_there_after_a_kill(server: Server):
    store = await RedisStore.open(server.url, PATIENT)
    running = await start(store, await submit(store))
    waiting = await submit(store, priority=Priority.HIGH)
    due = await submit(store, schedule_for=store.now_ms() + 600_000)
    places = await places_of(store)

    server.kill()
    server.start()

    for task in (running, waiting, due):
        assert await store.load(task.id) == task
    assert await places_of(store) == places
    assert await claim(store, 10) == [waiting]
    await store.close()


async def test_writers_outlive_a_server_that_is_killed_under_them(server: Server):
    store = await RedisStore.open(server.url, PATIENT)
    await submit(store)
    ids = [new_id() for _ in range(200)]
    half_way = asyncio.Event()

    async def writer(own: list[str]) -> None:
        for i, task_id in enumerate(own):
            if i == len(own) // 2:
                half_way.set()
            await transact(store, task_id, SubmitTask(a_submission()), meta=Meta(actor="w"))

    async with asyncio.TaskGroup() as group:
        for i in range(8):
            group.create_task(writer(ids[i::8]))
        await half_way.wait()
        server.kill()
        server.start()

    assert [len(await store.history(task_id)) for task_id in ids] == [1] * 200
    tasks = await asyncio.gather(*(store.load(task_id) for task_id in ids))
    assert {task.status for task in tasks if task is not None} == {Status.QUEUED}
    assert len(await claim(store, 1_000, [Queue("document_processing", Priority.NORMAL)])) == 201
    await store.close()
