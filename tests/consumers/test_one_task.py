"""One task all the way: what its handler is given, and what the ledger keeps of it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from consumers import Context
from consumers.handlers import load_handlers
from ledger.codec import decode_meta
from ledger.commands import StartTask
from ledger.events import TaskProgressed
from ledger.redis_store import RedisStore
from ledger.task import Status
from ledger.transact import transact
from tests.consumers.working import (
    Logged,
    cancel,
    events_of,
    handles,
    kinds,
    scheduling,
    signal,
    submit,
    until,
    working,
)
from tests.given import TRACE


async def test_a_task_is_completed_with_its_result(store: RedisStore) -> None:
    async def add(context: Context, payload: dict[str, int]) -> dict[str, int]:
        await context.progress(50, "half")
        return {"sum": payload["a"] + payload["b"]}

    task_id = await submit(store, "add", {"a": 1, "b": 2})
    submitted = await store.load(task_id)
    async with working(store, handles("add", add), worker_id="w7"):
        task = await until(store, task_id, Status.COMPLETED)

    assert submitted is not None
    assert submitted.status is Status.QUEUED
    assert await kinds(store, task_id) == [
        "TaskSubmitted",
        "TaskStarted",
        "TaskProgressed",
        "TaskCompleted",
    ]
    state = task.state
    assert msgspec.json.decode(state.result) == {"sum": 3}
    assert (state.progress, state.message, state.attempt, state.worker_id) == (100, "half", 1, "w7")
    assert state.started_at is not None
    assert state.completed_at is not None
    assert state.created_at <= state.started_at <= state.completed_at == state.updated_at


async def test_a_handler_is_told_about_its_task(store: RedisStore) -> None:
    seen: list[Any] = []

    async def look(context: Context, payload: Any) -> None:
        left = (context.deadline - datetime.now(UTC)).total_seconds()
        seen.append((payload, context.kb_id, context.metadata, context.attempt, context.task_type))
        seen.append((context.task_id, 0 < left <= 60, bool(context.canceled)))

    payload = {"text": "grüße ✓", "deep": [{"n": 1.5, "none": None}]}
    metadata = msgspec.Raw(b'{"who": "me"}')
    async with working(store, handles("look", look)):
        task_id = await submit(
            store, "look", payload, kb_id="kb-9", metadata=metadata, timeout_s=60
        )
        await until(store, task_id, Status.COMPLETED)

    assert seen == [
        (payload, "kb-9", {"who": "me"}, 1, "look"),
        (task_id, True, False),
    ]


async def test_without_metadata_the_context_has_none(store: RedisStore) -> None:
    async def look(context: Context, _: Any) -> bool:
        return context.metadata is None

    async with working(store, handles("look", look)):
        task = await until(store, await submit(store, "look"), Status.COMPLETED)

    assert bytes(task.state.result) == b"true"


async def test_the_log_of_a_handler_names_its_task(store: RedisStore, logged: Logged) -> None:
    async def talk(context: Context, _: Any) -> None:
        context.log.info("parsed", pages=3)

    async with working(store, handles("talk", talk)):
        task_id = await submit(store, "talk")
        await until(store, task_id, Status.COMPLETED)

    (record,) = logged.of("parsed")
    assert record["pages"] == 3
    assert (record["task_id"], record["task_type"], record["attempt"]) == (task_id, "talk", 1)


async def test_a_handler_that_returns_nothing_has_the_result_null(store: RedisStore) -> None:
    async def nothing(context: Context, payload: Any) -> None: ...

    async with working(store, handles("nothing", nothing)):
        task = await until(store, await submit(store, "nothing"), Status.COMPLETED)

    assert bytes(task.state.result) == b"null"


async def test_a_plain_function_reports_progress_without_await(store: RedisStore) -> None:
    def plain(context: Context, _: Any) -> None:
        context.progress(30, "in a thread")

    async with working(store, handles("plain", plain)):
        task_id = await submit(store, "plain")
        await until(store, task_id, Status.COMPLETED)

    assert await events_of(store, task_id, TaskProgressed) == [TaskProgressed(1, 30, "in a thread")]


async def test_progress_may_be_reported_from_a_thread_of_an_async_handler(
    store: RedisStore,
) -> None:
    async def mixed(context: Context, _: Any) -> None:
        await asyncio.to_thread(context.progress, 40, "from a thread")

    async with working(store, handles("mixed", mixed)):
        task_id = await submit(store, "mixed")
        await until(store, task_id, Status.COMPLETED)

    assert await events_of(store, task_id, TaskProgressed) == [
        TaskProgressed(1, 40, "from a thread")
    ]


async def test_many_reports_become_few_events_and_the_last_one_is_kept(store: RedisStore) -> None:
    async def chatty(context: Context, _: Any) -> None:
        for step in range(1_000):
            await context.progress(step // 10, f"step {step}")
            if step % 100 == 0:
                await asyncio.sleep(0)

    async with working(store, handles("chatty", chatty)):
        task_id = await submit(store, "chatty")
        await until(store, task_id, Status.COMPLETED)

    reported = await events_of(store, task_id, TaskProgressed)
    assert 1 <= len(reported) < 100
    assert reported[-1] == TaskProgressed(1, 99, "step 999")


async def test_progress_can_be_seen_while_the_handler_runs(store: RedisStore) -> None:
    seen = asyncio.Event()

    async def slow(context: Context, _: Any) -> None:
        await context.progress(10, "parsing")
        await signal(seen)

    async with working(store, handles("slow", slow)):
        task_id = await submit(store, "slow")
        task = await until(store, task_id, lambda task: task.state.progress == 10)
        seen.set()
        await until(store, task_id, Status.COMPLETED)

    assert (task.status, task.state.message) == (Status.PROCESSING, "parsing")


@pytest.mark.parametrize("percent", [-1, 101, float("nan")])
async def test_progress_out_of_range_is_the_handlers_mistake(
    store: RedisStore, percent: float
) -> None:
    async def wrong(context: Context, _: Any) -> None:
        await context.progress(percent)  # pyright: ignore[reportArgumentType] # the mistake

    async with working(store, handles("wrong", wrong, permanent=(ValueError,))):
        task = await until(store, await submit(store, "wrong"), Status.FAILED)

    assert task.state.error_message == f"ValueError: progress: expected 0 to 100, got {percent!r}"


async def test_a_message_that_is_no_text_is_shown_as_well_as_can_be(store: RedisStore) -> None:
    async def odd(context: Context, _: Any) -> None:
        await context.progress(10, "a file named \udcff.txt")

    async with working(store, handles("odd", odd)):
        task = await until(store, await submit(store, "odd"), Status.COMPLETED)

    assert task.state.message == "a file named ?.txt"


async def test_a_canceled_task_is_seen_by_its_handler(store: RedisStore) -> None:
    started, noticed = asyncio.Event(), list[bool]()

    async def patient(context: Context, _: Any) -> None:
        started.set()
        try:
            await context.canceled
        finally:
            noticed.append(bool(context.canceled))

    async with working(store, handles("patient", patient)):
        task_id = await submit(store, "patient")
        await signal(started)
        await cancel(store, task_id)

    assert noticed == [True]
    assert (await kinds(store, task_id))[-1] == "TaskCanceled"


async def test_health_check_needs_no_handlers_of_the_users(store: RedisStore) -> None:
    builtin = load_handlers(None)["health_check"]
    async with working(store, builtin):
        task_id = await submit(store, "health_check", {"ping": 1})
        task = await until(store, task_id, Status.COMPLETED)

    result = msgspec.json.decode(task.state.result)
    assert (result["status"], result["attempt"], result["echo"]) == ("healthy", 1, {"ping": 1})


@pytest.mark.parametrize(("trace", "told"), [(TRACE, TRACE), ("", None)])
async def test_a_handler_can_go_on_with_the_trace_of_whoever_submitted_its_task(
    store: RedisStore, trace: str, told: str | None
) -> None:
    async def on_loop(context: Context, _: Any) -> str | None:
        return context.traceparent

    def in_thread(context: Context, _: Any) -> str | None:
        return context.traceparent

    async with working(store, handles("loop", on_loop), handles("thread", in_thread)):
        tasks = [
            await until(store, await submit(store, kind, trace=trace), Status.COMPLETED)
            for kind in ("loop", "thread")
        ]

    assert [msgspec.json.decode(task.state.result) for task in tasks] == [told, told]


async def test_all_that_workers_and_schedulers_write_of_a_task_is_in_its_trace(
    store: RedisStore,
) -> None:
    async def fail_once(context: Context, _: Any) -> None:
        await context.progress(50)
        if context.attempt == 2:
            raise ValueError("not this time")

    later = store.now_ms() + 1
    task_id = await submit(store, trace=TRACE, schedule_for=later)
    async with scheduling(store):
        await until(store, task_id, lambda task: task.state.waiting_until is None)
        await transact(store, task_id, StartTask(1, "a worker that is gone", 1))
        async with working(store, handles("work", fail_once)):
            await until(store, task_id, Status.COMPLETED)

    history = [(event.type, decode_meta(event.meta)) for event in await store.history(task_id)]
    assert {(kind, meta.actor) for kind, meta in history[1:]} >= {
        ("TaskReleased", "scheduler"),
        ("AttemptFailed", "reaper"),
        ("RetryScheduled", "reaper"),
        ("TaskStarted", "w1"),
        ("TaskProgressed", "w1"),
        ("AttemptFailed", "w1"),
        ("TaskCompleted", "w1"),
    }
    assert {meta.trace for _, meta in history} == {TRACE}
