"""On the loop, in a thread, in a process: a handler's result and its errors mean the same."""

import asyncio
import os
import threading
from typing import Any

import msgspec
import pytest

from consumers import Context, PermanentError, RetryLater, RetryPolicy
from consumers.handlers import Handler, load_handlers
from ledger.events import AttemptFailed, ErrorKind, RetryScheduled, TaskProgressed
from ledger.redis_store import RedisStore
from ledger.task import Status
from tests.consumers.working import (
    AT_ONCE,
    events_of,
    handles,
    kinds,
    scheduling,
    submit,
    until,
    working,
)
from tests.given import TRACE

MODULE = "tests.consumers.process_handlers"


def in_process(task_type: str) -> Handler:
    """A handler of `process_handlers`; the worker needs `module=MODULE`."""
    return load_handlers(MODULE)[task_type]


async def test_a_plain_function_runs_in_a_thread_of_its_own(store: RedisStore) -> None:
    def where(context: Context, _: Any) -> str:
        return threading.current_thread().name

    async with working(store, handles("where", where)):
        task_id = await submit(store, "where")
        task = await until(store, task_id, Status.COMPLETED)

    assert msgspec.json.decode(task.state.result) == f"handler-{task_id}"


async def test_a_process_gets_all_that_a_handler_is_told(store: RedisStore) -> None:
    async with working(store, in_process("process_add"), module=MODULE):
        task_id = await submit(
            store,
            "process_add",
            {"a": 1, "b": 2},
            kb_id="kb-9",
            metadata=msgspec.Raw(b'{"x":1}'),
            trace=TRACE,
        )
        task = await until(store, task_id, Status.COMPLETED)

    result = msgspec.json.decode(task.state.result)
    told = (result["sum"], result["attempt"], result["kb_id"], result["metadata"])
    assert told == (3, 1, "kb-9", {"x": 1})
    assert result["traceparent"] == TRACE
    assert await events_of(store, task_id, TaskProgressed) == [TaskProgressed(1, 50, "half")]


async def test_a_process_is_used_again_and_gone_in_the_end(store: RedisStore) -> None:
    pids: list[int] = []
    async with working(store, in_process("process_add"), module=MODULE):
        for _ in range(2):
            task_id = await submit(store, "process_add", {"a": 1, "b": 2})
            task = await until(store, task_id, Status.COMPLETED)
            pids.append(msgspec.json.decode(task.state.result)["pid"])

    assert pids[0] == pids[1]
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


async def test_a_process_runs_coroutines_too(store: RedisStore) -> None:
    async with working(store, in_process("process_async"), module=MODULE):
        task_id = await submit(store, "process_async", {"a": 1, "b": 2})
        task = await until(store, task_id, Status.COMPLETED)

    assert bytes(task.state.result) == b"3"
    assert await events_of(store, task_id, TaskProgressed) == [TaskProgressed(1, 50, "half")]


async def fail_async(context: Context, payload: dict[str, str]) -> None:
    fail_plain(context, payload)


def fail_plain(context: Context, payload: dict[str, str]) -> None:
    raise {
        "retryable": ValueError("not this time"),
        "permanent": PermanentError("never"),
        "lookup": KeyError("k"),
        "odd": ValueError("\udcff"),
        "later": RetryLater(90, "busy"),
        "index": IndexError("i"),
    }[payload["how"]]


CLASSES: Any = {"permanent": (LookupError,), "retryable": (IndexError,)}
FAILING = {
    "async": handles("fail", fail_async, **CLASSES),
    "thread": handles("fail", fail_plain, **CLASSES),
    "process": in_process("process_raise"),
}


@pytest.mark.parametrize("executor", list(FAILING))
async def test_an_error_is_retried_until_the_retries_are_spent(
    store: RedisStore, executor: str
) -> None:
    handler = FAILING[executor]
    async with working(store, handler, module=MODULE), scheduling(store):
        task_id = await submit(store, handler.task_type, {"how": "retryable"}, max_retries=2)
        task = await until(store, task_id, Status.FAILED)

    retry = ["TaskStarted", "AttemptFailed", "RetryScheduled", "TaskReleased"]
    last = ["TaskStarted", "AttemptFailed", "TaskFailed"]
    assert await kinds(store, task_id) == ["TaskSubmitted", *retry, *retry, *last]
    assert (task.state.attempt, task.state.retry_count) == (3, 2)
    assert task.state.error_message == "ValueError: not this time"
    assert task.state.error_kind is ErrorKind.RETRYABLE


@pytest.mark.parametrize("executor", list(FAILING))
@pytest.mark.parametrize(
    ("how", "message"), [("permanent", "PermanentError: never"), ("lookup", "KeyError: 'k'")]
)
async def test_a_permanent_error_is_not_retried(
    store: RedisStore, executor: str, how: str, message: str
) -> None:
    handler = FAILING[executor]
    async with working(store, handler, module=MODULE):
        task = await until(
            store, await submit(store, handler.task_type, {"how": how}), Status.FAILED
        )

    assert (task.state.attempt, task.state.error_message) == (1, message)
    assert task.state.error_kind is ErrorKind.PERMANENT


@pytest.mark.parametrize("executor", list(FAILING))
async def test_an_error_below_a_permanent_one_may_be_worth_another_attempt(
    store: RedisStore, executor: str
) -> None:
    handler = FAILING[executor]
    async with working(store, handler, module=MODULE):
        task_id = await submit(store, handler.task_type, {"how": "index"})
        task = await until(store, task_id, Status.RETRYING)

    assert (task.state.error_message, task.state.retry_count) == ("IndexError: i", 1)


@pytest.mark.parametrize("executor", list(FAILING))
async def test_a_task_is_put_off_without_a_retry_being_counted(
    store: RedisStore, executor: str
) -> None:
    handler = FAILING[executor]
    async with working(store, handler, module=MODULE):
        task_id = await submit(store, handler.task_type, {"how": "later"}, max_retries=0)
        task = await until(store, task_id, Status.RETRYING)

    [failed] = await events_of(store, task_id, AttemptFailed)
    [scheduled] = await events_of(store, task_id, RetryScheduled)
    assert failed == AttemptFailed(1, "RetryLater: busy", ErrorKind.RETRYABLE)
    assert scheduled.retry_at - task.state.updated_at == 90_000
    assert (task.state.retry_count, task.state.postponements) == (0, 1)


async def test_a_task_that_was_put_off_is_done_when_its_time_has_come(store: RedisStore) -> None:
    async def limited(context: Context, _: Any) -> int:
        if context.attempt < 3:
            raise RetryLater(0)
        return context.attempt

    async with working(store, handles("limited", limited)), scheduling(store):
        task_id = await submit(store, "limited", max_retries=0)
        task = await until(store, task_id, Status.COMPLETED)

    assert (bytes(task.state.result), task.state.retry_count) == (b"3", 0)


@pytest.mark.parametrize("executor", list(FAILING))
async def test_an_error_text_that_json_cannot_carry_is_shown_as_well_as_can_be(
    store: RedisStore, executor: str
) -> None:
    handler = FAILING[executor]
    async with working(store, handler, module=MODULE):
        task_id = await submit(store, handler.task_type, {"how": "odd"}, max_retries=0)
        task = await until(store, task_id, Status.FAILED)

    assert task.state.error_message == "ValueError: ?"


async def test_the_pause_before_a_retry_is_the_handlers_own(store: RedisStore) -> None:
    async def fail(context: Context, _: Any) -> None:
        raise ValueError("not this time")

    policy = RetryPolicy(base_ms=60_000, cap_ms=60_000, spread=0)
    async with working(store, handles("fail", fail, retry=policy), retry=AT_ONCE):
        task_id = await submit(store, "fail")
        task = await until(store, task_id, Status.RETRYING)

    (scheduled,) = await events_of(store, task_id, RetryScheduled)
    assert scheduled.retry_at - task.state.updated_at == 60_000


async def test_the_workers_retry_policy_holds_where_a_handler_has_none(store: RedisStore) -> None:
    async def fail(context: Context, _: Any) -> None:
        raise ValueError("not this time")

    handler = msgspec.structs.replace(handles("fail", fail), retry=None)
    policy = RetryPolicy(base_ms=70_000, cap_ms=70_000, spread=0)
    async with working(store, handler, retry=policy):
        task_id = await submit(store, "fail")
        task = await until(store, task_id, Status.RETRYING)

    (scheduled,) = await events_of(store, task_id, RetryScheduled)
    assert scheduled.retry_at - task.state.updated_at == 70_000


async def test_a_task_that_succeeds_at_last_shows_no_error(store: RedisStore) -> None:
    async def stubborn(context: Context, _: Any) -> str:
        if context.attempt < 3:
            raise ValueError(f"attempt {context.attempt}")
        return "at last"

    async with working(store, handles("stubborn", stubborn)), scheduling(store):
        task_id = await submit(store, "stubborn")
        task = await until(store, task_id, Status.COMPLETED)

    failures = await events_of(store, task_id, AttemptFailed)
    assert [f.error_message for f in failures] == ["ValueError: attempt 1", "ValueError: attempt 2"]
    assert (task.state.error_message, task.state.error_kind) == ("", None)
    assert bytes(task.state.result) == b'"at last"'


async def fail_twice(first: BaseException, second: BaseException) -> None:
    async def fail(error: BaseException) -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        group.create_task(fail(first))
        group.create_task(fail(second))


@pytest.mark.parametrize(
    ("second", "kind"),
    [(PermanentError("b"), ErrorKind.PERMANENT), (ValueError("b"), ErrorKind.RETRYABLE)],
)
async def test_a_group_of_errors_is_permanent_when_all_of_them_are(
    store: RedisStore, second: Exception, kind: ErrorKind
) -> None:
    async def fail(context: Context, _: Any) -> None:
        await fail_twice(PermanentError("a"), second)

    async with working(store, handles("fail", fail)):
        task_id = await submit(store, "fail", max_retries=0)
        task = await until(store, task_id, Status.FAILED)

    assert task.state.error_kind is kind
