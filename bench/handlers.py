"""The handler that the bench's workers run: it does nothing, or tells when it was reached."""

import time
from typing import Any

from bench.workload import TASK_TYPE
from consumers import Context, handler

waits_ms: list[float] = []
"""From a submission that carries its time to the start of its handler, in order of the starts."""


@handler(TASK_TYPE)
async def no_op(context: Context, payload: dict[str, Any]) -> None:
    sent_ns = payload.get("sent_ns")
    if sent_ns is not None:
        waits_ms.append((time.monotonic_ns() - sent_ns) / 1e6)
