"""Ends the attempts of workers that were lost: their leases ran out without a heartbeat."""

import asyncio
import random
from collections.abc import Sequence
from typing import Final

import structlog

from ledger.codec import Meta
from ledger.commands import FailAttempt
from ledger.events import ErrorKind
from ledger.rejections import Rejection
from ledger.store import Store
from ledger.transact import transact

log = structlog.get_logger("reaper")

META: Final = Meta(actor="reaper")


async def fail_lost_attempts(store: Store, expired: Sequence[tuple[str, int]]) -> None:
    """Turn each expired lease, (task id, attempt), into a failed attempt; its task is retried."""
    await asyncio.gather(*(_fail_lost(store, *lease) for lease in expired))


async def _fail_lost(store: Store, task_id: str, attempt: int) -> None:
    jitter = random.random()  # noqa: S311 - spreads retries
    message = "the worker was lost: its lease ran out without a heartbeat"
    command = FailAttempt(attempt, message, ErrorKind.WORKER_LOST, jitter)
    try:
        await transact(store, task_id, command, meta=META)
    except Rejection as rejection:
        if rejection.retryable:
            raise
        # Somebody was faster: the attempt ended in the same moment, or another reaper saw it.
        log.info("attempt_not_lost", task_id=task_id, attempt=attempt, reason=rejection.message)
    else:
        log.warning("worker_lost", task_id=task_id, attempt=attempt)
