"""Coroutines that hold up the event loop: found, and named."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from consumers import Context
from consumers.loop_watch import LoopWatch
from consumers.meters import Meter
from consumers.worker import Worker
from ledger.redis_store import RedisStore
from ledger.task import Status
from tests.consumers.working import (
    PATIENCE_S,
    QUICK,
    Logged,
    handles,
    running,
    submit,
    until,
)


async def block(context: Context, _: Any) -> None:
    hold_everything_up()


async def block_in_a_task_of_its_own(context: Context, _: Any) -> None:
    async def inner() -> None:
        hold_everything_up()

    await asyncio.create_task(inner())


def hold_everything_up() -> None:
    time.sleep(0.5)


@pytest.mark.parametrize("function", [block, block_in_a_task_of_its_own])
async def test_a_handler_that_blocks_the_loop_is_named_with_the_line_where_it_does(
    store: RedisStore, logged: Logged, function: Callable[..., Any]
) -> None:
    meter = Meter()
    options = replace(QUICK, loop_blocked_ms=100)
    worker = Worker(store, {"work": handles("work", function)}, options, meter=meter)
    async with running(worker):
        task_id = await submit(store)
        await until(store, task_id, Status.COMPLETED)
        await logged.comes("event_loop_moves_again")

    # On a busy machine other things may hold up the loop too, however shortly.
    by_handler = [each for each in logged.of("event_loop_blocked") if "hold_every" in each["at"]]
    [blocked] = by_handler
    assert (blocked["task_id"], blocked["task_type"]) == (task_id, "work")
    assert blocked["at"].startswith(f"{__file__}:")
    assert blocked["at"].endswith("in hold_everything_up: time.sleep(0.5)")
    assert meter.meters.loop_blocks["work"] >= 1
    assert 0.1 < meter.meters.loop_blocked_seconds["work"] < PATIENCE_S


async def test_a_loop_that_no_handler_holds_up_is_told_too(logged: Logged) -> None:
    told: list[tuple[str, float]] = []

    def on_moves(task_type: str, seconds: float) -> None:
        told.append((task_type, seconds))

    watching = asyncio.create_task(LoopWatch(0.1, lambda _: None, on_moves).run())
    await asyncio.sleep(0)
    hold_everything_up()
    await logged.comes("event_loop_moves_again")
    watching.cancel()
    await asyncio.wait([watching])

    assert [task_type for task_type, _ in told] == [""]
    assert logged.of("event_loop_blocked")[0]["task_id"] is None


async def test_a_loop_that_moves_is_not_told(store: RedisStore, logged: Logged) -> None:
    async def wait(context: Context, _: Any) -> None:
        await asyncio.sleep(0.8)

    options = replace(QUICK, loop_blocked_ms=500)
    async with running(Worker(store, {"work": handles("work", wait)}, options)):
        await until(store, await submit(store), Status.COMPLETED)

    assert logged.of("event_loop_blocked") == []


async def test_a_process_that_was_stopped_is_not_blamed_on_a_handler(logged: Logged) -> None:
    """SIGSTOP stops this process too, so another one says SIGCONT."""
    watching = asyncio.create_task(LoopWatch(1.0, lambda _: None, lambda _, __: None).run())
    await asyncio.sleep(0)
    waker = await asyncio.create_subprocess_shell(f"sleep 2.5; kill -CONT {os.getpid()}")
    os.kill(os.getpid(), signal.SIGSTOP)
    async with asyncio.timeout(PATIENCE_S):
        await waker.wait()
        # The thread logs it, at its next look.
        while not logged.of("process_stood_still"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.wait([watching])

    assert logged.of("event_loop_blocked") == []
