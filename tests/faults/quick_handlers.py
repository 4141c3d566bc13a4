"""Handlers of the workers that `test_kills` kills."""

import asyncio
import fcntl
import os
import time
from typing import Any

from consumers import Context, handler

LONG_S = 600


@handler("embedding_generation")
async def touch(context: Context, payload: dict[str, Any]) -> int:
    """Do next to nothing; the very first task takes until its worker is killed, so that the kill
    meets one at work."""
    if payload["i"] == 0 and payload.get("hangs") and context.attempt == 1:
        await asyncio.Event().wait()
    return payload["i"]


@handler("vector_storage", executor="process")
def linger(context: Context, payload: dict[str, str]) -> None:
    """Hold a lock as long as this process lives."""
    lock = os.open(payload["lock"], os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    context.progress(1, "holds the lock")
    time.sleep(LONG_S)
