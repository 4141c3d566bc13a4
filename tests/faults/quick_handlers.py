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
    """Do next to nothing, but let go of the loop, so that a kill meets many that are at work."""
    await asyncio.sleep(0.002)
    return payload["i"]


@handler("vector_storage", executor="process")
def linger(context: Context, payload: dict[str, str]) -> None:
    """Hold a lock as long as this process lives."""
    lock = os.open(payload["lock"], os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    context.progress(1, "holds the lock")
    time.sleep(LONG_S)
