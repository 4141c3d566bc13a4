"""A worker's own account of itself, which its heartbeats carry to the ledger."""

import asyncio
import os
import socket
from collections.abc import Iterable
from typing import Final

import structlog

from consumers.attempt import Attempt
from ledger.redis_store import ForeignKey
from ledger.rejections import Rejection
from ledger.store import Store
from ledger.workers import WORKER_TASK_IDS_MAX, WorkerReport, WorkerState

log = structlog.get_logger("worker")

RETIRE_TIMEOUT_S: Final = 1.0
"""A worker that ends while the ledger is out of reach does not wait longer to say so: it is shown
as lost for a while."""


class Presence:
    """What a worker counts, and how it shows itself to others."""

    def __init__(
        self,
        store: Store,
        worker_id: str,
        *,
        task_types: Iterable[str],
        concurrency: int,
        lease_ms: int,
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._task_types = tuple(sorted(task_types))
        self._concurrency = concurrency
        self._lease_ms = lease_ms
        self._started_at: int | None = None
        self._succeeded = self._failed = self._task_ms = 0
        self._told_foreign_key = False

    def count(self, attempt: Attempt) -> None:
        """Take an attempt into account that has ended, if its outcome was its own to say."""
        if attempt.succeeded is None:
            return
        if attempt.succeeded:
            self._succeeded += 1
        else:
            self._failed += 1
        state = attempt.task.state
        self._task_ms += state.updated_at - (state.started_at or state.updated_at)

    async def announce(self, attempts: Iterable[Attempt], *, draining: bool) -> None:
        """Say what the worker is at. Raises Rejection while the ledger is out of reach."""
        try:
            await self._store.announce(self._report(attempts, draining))
        except ForeignKey as error:
            # Working goes before being seen.
            if not self._told_foreign_key:
                log.error("worker_not_announced", worker_id=self._worker_id, reason=str(error))
            self._told_foreign_key = True

    async def retire(self) -> None:
        """Say that the worker has ended; if nobody hears it, it is taken for lost."""
        try:
            async with asyncio.timeout(RETIRE_TIMEOUT_S):
                await self._store.retire(self._worker_id)
        except (Rejection, TimeoutError, ForeignKey) as error:
            # The time-out has no text of its own.
            reason = str(error) or f"the ledger did not answer within {RETIRE_TIMEOUT_S:g} s"
            log.info("worker_not_retired", worker_id=self._worker_id, reason=reason)

    def _report(self, attempts: Iterable[Attempt], draining: bool) -> WorkerReport:
        if self._started_at is None:
            self._started_at = self._store.now_ms()
        running = [attempt.task_id for attempt in attempts if attempt.started]
        if draining:
            state = WorkerState.DRAINING
        else:
            state = WorkerState.BUSY if running else WorkerState.IDLE
        return WorkerReport(
            self._worker_id,
            socket.gethostname(),
            os.getpid(),
            self._task_types,
            self._concurrency,
            self._lease_ms,
            self._started_at,
            state,
            len(running),
            tuple(running[:WORKER_TASK_IDS_MAX]),
            self._succeeded,
            self._failed,
            self._task_ms,
        )
