"""What no worker can serve: set aside with its reason, told once, and in nobody's way."""

import asyncio
from typing import Any

import pytest
from uuid_utils import uuid7

from consumers import Context
from ledger.commands import StartTask
from ledger.events import Priority
from ledger.identity import SYSTEM
from ledger.keys import GROUP, PartitionKeys
from ledger.placement import Queue
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.task import Status
from ledger.transact import transact
from tests.consumers.working import (
    Logged,
    handles,
    kinds,
    scheduling,
    signal,
    submit,
    until,
    working,
)

KEYS = PartitionKeys(0)
READY = KEYS.ready(Queue("work", Priority.NORMAL))
GONE = str(uuid7())


async def well(context: Context, _: Any) -> str:
    return "well"


async def command(store: RedisStore, *arguments: str | int | bytes) -> Any:
    """A command as it is, past the ledger's own code."""
    return await send(store.client, arguments)


async def task_gone(store: RedisStore) -> str:
    await command(store, "XADD", READY, "*", "task", GONE, "kb", "kb")
    return "there is no such task"


async def no_task(store: RedisStore) -> str:
    await command(store, "XADD", READY, "*", "who", "knows")
    return "there is no such task"


async def not_even_text(store: RedisStore) -> str:
    await command(store, "XADD", READY, "*", "task", b"\xff\x00", "kb", b"\xfe")
    return "there is no such task"


async def a_snapshot_that_cannot_be_read(store: RedisStore) -> str:
    task_id = await submit(store)
    await command(store, "HSET", KEYS.task(task_id), "state", "garbage")
    return f"the snapshot of task {task_id} cannot be read"


async def a_snapshot_that_is_too_deep(store: RedisStore) -> str:
    task_id = await submit(store, payload=b'{"a":' * 5_000 + b"1" + b"}" * 5_000)
    return f"the snapshot of task {task_id} cannot be read"


async def a_snapshot_of_an_unknown_version(store: RedisStore) -> str:
    task_id = await submit(store)
    await command(store, "HSET", KEYS.task(task_id), "version", "seven")
    return f"the snapshot of task {task_id} has no version"


async def a_task_that_is_no_hash(store: RedisStore) -> str:
    task_id = await submit(store)
    await command(store, "SET", KEYS.task(task_id), "a string")
    return f"the snapshot of task {task_id} has no version, but b'WRONGTYPE"


async def a_task_of_another_type(store: RedisStore) -> str:
    task_id = await submit(store, "something_else")
    await command(store, "XADD", READY, "*", "task", task_id, "kb", "kb")
    return "the task is of another type, something_else"


UNSERVABLE = [
    a_task_of_another_type,
    task_gone,
    no_task,
    not_even_text,
    a_snapshot_that_cannot_be_read,
    a_snapshot_that_is_too_deep,
    a_snapshot_of_an_unknown_version,
    a_task_that_is_no_hash,
]


@pytest.mark.parametrize("leave", UNSERVABLE)
async def test_an_entry_that_cannot_be_served_is_set_aside(
    store: RedisStore, logged: Logged, leave: Any
) -> None:
    reason = await leave(store)
    async with working(store, handles("work", well), concurrency=1):
        await until(store, await submit(store), Status.COMPLETED)

    ((_, kept),) = await command(store, "XRANGE", KEYS.set_aside, "-", "+")
    fields = dict(zip(kept[::2], kept[1::2], strict=True))
    assert fields[b"queue"] == b"work:normal"
    assert fields[b"reason"].decode().startswith(reason)
    (told,) = logged.of("entry_set_aside")
    assert (told["level"], told["entry"]) == ("error", fields[b"entry"].decode())
    assert await command(store, "XLEN", READY) == 0
    assert (await command(store, "XPENDING", READY, GROUP))[0] == 0


async def test_an_entry_that_meets_a_waiting_worker_is_set_aside_too(
    store: RedisStore, logged: Logged
) -> None:
    async with working(store, handles("work", well)):
        await until(store, await submit(store), Status.COMPLETED)
        for leave in (task_gone, no_task, not_even_text):
            await leave(store)
        await until(store, await submit(store), Status.COMPLETED)

    assert len(logged.of("entry_set_aside")) == 3
    assert await command(store, "XLEN", READY) == 0


async def test_bad_members_of_the_due_and_lease_sets_do_not_stop_the_scheduler(
    store: RedisStore, logged: Logged
) -> None:
    await command(store, "ZADD", KEYS.due, 1, GONE, 2, "garbage", 3, b"\xff")
    await command(store, "ZADD", KEYS.leases, 1, f"{GONE}:1", 2, "garbage", 3, b"\xff:\xff")
    unreadable = await submit(store, schedule_for=store.now_ms())
    await command(store, "HSET", KEYS.task(unreadable), "state", "garbage")
    lost = await submit(store)
    await transact(store, lost, StartTask(1, "a worker that is gone", 1))
    async with scheduling(store):
        scheduled = await submit(store, schedule_for=store.now_ms())
        await until(store, scheduled, lambda task: task.state.waiting_until is None)
        await until(store, lost, Status.RETRYING)

    assert await kinds(store, scheduled) == ["TaskSubmitted", "TaskReleased"]
    told = [record["task_id"] for record in logged.of("overdue_task_unservable")]
    assert sorted(told) == sorted({GONE, "", "garbage", "\ufffd", unreadable})


async def test_a_due_task_that_cannot_be_moved_does_not_stop_the_scheduler(
    store: RedisStore, logged: Logged
) -> None:
    due: dict[str, Any] = {"schedule_for": store.now_ms()}
    stuck = await submit(store, priority=Priority.LOW, **due)
    await command(store, "SET", KEYS.ready(Queue("work", Priority.LOW)), "not ours")
    async with scheduling(store):
        await until(
            store, await submit(store, **due), lambda task: task.state.waiting_until is None
        )
        told = await logged.comes("overdue_task_unservable")

    assert told["task_id"] == stuck
    assert "ready:work:low" in told["reason"]


async def test_a_worker_that_lost_a_task_which_cannot_be_read_goes_on(
    store: RedisStore, logged: Logged
) -> None:
    started = asyncio.Event()

    async def wait(context: Context, _: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    async with working(store, handles("wait", wait), handles("work", well), lease_ms=1):
        lost = await submit(store, "wait")
        await signal(started)
        await command(store, "HSET", KEYS.task(lost), "state", "garbage")
        await command(store, "ZREM", KEYS.leases, f"{lost}:1")
        told = await logged.comes("task_unreadable")
        await logged.comes("attempt_fenced")
        await until(store, await submit(store), Status.COMPLETED)

    assert told["task_id"] == lost


async def test_a_state_of_the_system_that_cannot_be_read_stops_nobody(
    store: RedisStore, logged: Logged
) -> None:
    await command(store, "HSET", KEYS.task(SYSTEM), "version", "seven")
    async with scheduling(store), working(store, handles("work", well)):
        await logged.comes("pauses_unreadable")
        await logged.comes("upkeep_failed")
        due = await submit(store, schedule_for=store.now_ms())
        await until(store, due, Status.COMPLETED)
