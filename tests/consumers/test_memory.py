"""A worker keeps nothing of the tasks that it has ended."""

import asyncio
from typing import Any, Final

from consumers import Context, PermanentError
from consumers.attempt import Attempt
from ledger.redis_store import RedisStore
from ledger.task import Task
from tests.consumers.working import handles, submit, until, working
from tests.remains import BYTES_A_ROUND_MAX, bytes_a_round, cyclic_garbage

AT_ONCE: Final = 20


async def work(context: Context, payload: dict[str, Any]) -> dict[str, Any]:
    """Reports progress, and fails every other time."""
    await context.progress(50, "half")
    if payload["n"] % 2:
        raise PermanentError("odd")
    return payload


def is_over(task: Task) -> bool:
    return task.finished


async def ended(store: RedisStore, count: int) -> None:
    """Submit so many at once, again and again, and wait until they have ended."""
    for _ in range(0, count, AT_ONCE):
        ids = await asyncio.gather(*(submit(store, payload={"n": n}) for n in range(AT_ONCE)))
        for task_id in ids:
            await until(store, task_id, is_over)


async def test_an_attempt_that_has_ended_is_freed_without_looking_for_cycles(store: RedisStore):
    async with working(store, handles("work", work)):
        await ended(store, AT_ONCE)
        with cyclic_garbage() as garbage:
            await ended(store, AT_ONCE)

    assert [found for found in garbage if isinstance(found, Attempt | Context | Task)] == []


async def test_a_worker_does_not_grow_with_the_tasks_that_it_ends(store: RedisStore):
    async def submit_and_wait(count: int) -> None:
        await ended(store, count)

    async with working(store, handles("work", work)):
        grown = await bytes_a_round(submit_and_wait, warm_up=5 * AT_ONCE, rounds=15 * AT_ONCE)

    assert grown < BYTES_A_ROUND_MAX
