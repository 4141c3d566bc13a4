"""The work that is simulated: what a handler does is in the payload that the client made up."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgspec

from consumers.classification import PermanentError, RetryLater
from consumers.context import Context
from consumers.handlers import ExecutorKind, Handler
from ledger.retry_policy import RetryPolicy
from tests.simulation.checks import HandlerRun
from tests.simulation.plan import RETRY_BASE_MS, RETRY_CAP_MS, TASK_TYPES

POLICY: Final = RetryPolicy(base_ms=RETRY_BASE_MS, cap_ms=RETRY_CAP_MS)

ENDINGS: Final = (
    *("return",) * 10,
    *("fail", "fail", "later", "permanent", "hang", "ignore", "cancel itself"),
)
"""How an attempt may go, and how often."""

STUBBORN_S_MAX: Final = 7.0
"""Longer than the grace that a stopped handler is given."""


def draw_payload(chance: Random, *, is_quick: bool) -> bytes:
    """Work for one task: how long an attempt takes, and how each of the first ones ends."""
    if is_quick:
        return msgspec.json.encode({"seconds": chance.random() * 0.05, "endings": ["return"]})
    seconds = chance.choice((0.0, 0.0, 0.1, 0.5, 1.5)) * (0.5 + chance.random())
    endings = [chance.choice(ENDINGS) for _ in range(chance.choice((1, 1, 2)))]
    return msgspec.json.encode(
        {"seconds": seconds, "endings": endings, "stubborn": chance.random() * STUBBORN_S_MAX}
    )


def handlers(began: Callable[[str, int], HandlerRun]) -> dict[str, Handler]:
    """The handlers of one worker; each call reports to `began`, and on what that gives back."""

    async def work(context: Context, payload: dict[str, Any]) -> dict[str, Any]:
        run = began(context.task_id, context.attempt)
        try:
            await _work(context, payload, run)
        except asyncio.CancelledError:
            run.told_s = asyncio.get_running_loop().time()
            raise
        finally:
            run.ended = True
        return {"attempt": context.attempt}

    return {kind: Handler(kind, work, ExecutorKind.ASYNC, POLICY) for kind in TASK_TYPES}


async def _work(context: Context, payload: dict[str, Any], run: HandlerRun) -> None:
    endings = payload["endings"]
    ending = endings[context.attempt - 1] if context.attempt <= len(endings) else "return"
    seconds = payload["seconds"]
    if seconds:
        await asyncio.sleep(seconds / 2)
        await context.progress(50, "half")
        await asyncio.sleep(seconds / 2)
    match ending:
        case "fail":
            raise ValueError("made up")
        case "later":
            raise RetryLater(0.5)
        case "permanent":
            raise PermanentError("made up for good")
        case "hang":
            await asyncio.sleep(3_600)
        case "ignore":
            await _ignore_the_end(payload["stubborn"], run)
        case "cancel itself":
            raise asyncio.CancelledError
        case _:
            pass


async def _ignore_the_end(seconds: float, run: HandlerRun) -> None:
    """Sleep on for a while after being stopped."""
    loop = asyncio.get_running_loop()
    try:
        await asyncio.sleep(3_600)
    except asyncio.CancelledError:
        run.told_s = until_s = loop.time()
        until_s += seconds
        while loop.time() < until_s:
            try:
                await asyncio.sleep(until_s - loop.time())
            except asyncio.CancelledError:
                continue
