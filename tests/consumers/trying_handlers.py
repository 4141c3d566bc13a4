"""Handlers for workers in processes of their own; what happens to them is told in the log."""

import asyncio
import time
from typing import Any

from consumers import Context, handler


@handler("hold")
async def hold(context: Context, payload: dict[str, Any]) -> int:
    """Stay, at the first attempt, until told to stop."""
    context.log.info("held")
    if context.attempt == 1:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            context.log.info("let_go")
            raise
    return context.attempt


@handler("take_time")
async def take_time(context: Context, payload: dict[str, float]) -> int:
    context.log.info("begun")
    await asyncio.sleep(payload["seconds"])
    return context.attempt


@handler("hang")
async def hang(context: Context, payload: dict[str, float]) -> int:
    """Hold up the whole loop, at the first attempt."""
    if context.attempt == 1:
        time.sleep(payload["seconds"])  # noqa: ASYNC251 - what must not be done
    return context.attempt


@handler("be_quick")
async def be_quick(context: Context, payload: dict[str, Any]) -> None:
    return
