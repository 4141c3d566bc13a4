"""The handlers that the bench's workers run: one does nothing, or tells when it was reached; two
take their time, as long as the payload says."""

import asyncio
import time
from typing import Any

from bench.workload import SLOW_TYPES, TASK_TYPE
from consumers import Context, handler

waits_ms: list[float] = []
"""From a submission that carries its time to the start of its handler, in order of the starts."""


@handler(TASK_TYPE)
async def no_op(context: Context, payload: dict[str, Any]) -> None:
    sent_ns = payload.get("sent_ns")
    if sent_ns is not None:
        waits_ms.append((time.monotonic_ns() - sent_ns) / 1e6)


async def take_time(context: Context, payload: dict[str, Any]) -> None:
    await asyncio.sleep(payload["seconds"])


for task_type in SLOW_TYPES:
    handler(task_type)(take_time)
