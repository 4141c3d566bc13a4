"""Ends the attempts of workers that were lost: their leases ran out without a heartbeat."""

import random
from typing import Final

import structlog
from msgspec.structs import replace

from ledger.codec import Meta
from ledger.commands import FailAttempt
from ledger.events import ErrorKind
from ledger.rejections import Rejection, RejectionCode
from ledger.retry_policy import RetryPolicy
from ledger.store import Store
from ledger.transact import transact

log = structlog.get_logger("reaper")

META: Final = Meta(actor="reaper")

PAUSE_CAP_MS: Final = 500
"""Longest pause before an attempt that follows a lost one: the task has waited for as long as the
lease already, and its handler is not to blame. So a crash costs a task no more than its lease and
two seconds, however often it was retried before."""


async def fail_lost_attempt(store: Store, task_id: str, attempt: int, retry: RetryPolicy) -> None:
    """Turn an expired lease into a failed attempt; its task is retried as `retry` says, since the
    handler's own policy is known to its workers alone, but within PAUSE_CAP_MS.

    Raises Rejection: TASK_NOT_FOUND, and what may be tried again.
    """
    jitter = random.random()  # noqa: S311 - spreads retries
    message = "the worker was lost: its lease ran out without a heartbeat"
    cap_ms = min(retry.cap_ms, PAUSE_CAP_MS)
    soon = replace(retry, base_ms=min(retry.base_ms, cap_ms), cap_ms=cap_ms)
    command = FailAttempt(attempt, message, ErrorKind.WORKER_LOST, jitter, soon)
    try:
        await transact(store, task_id, command, meta=META)
    except Rejection as rejection:
        if rejection.retryable or rejection.code is RejectionCode.TASK_NOT_FOUND:
            raise
        # Somebody was faster: the attempt ended in the same moment, or another reaper saw it.
        log.info("attempt_not_lost", task_id=task_id, attempt=attempt, reason=rejection.message)
    else:
        log.warning("worker_lost", task_id=task_id, attempt=attempt)
