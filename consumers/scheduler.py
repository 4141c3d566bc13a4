"""Releases tasks whose time has come: scheduled ones, and those that wait for another attempt.

Lost workers are found by the same look at the clock, and handed to `reaper`. Any number of
schedulers may run: the version of a task lets one of them win.
"""

import asyncio
from typing import Final

import structlog

from consumers.reaper import fail_lost_attempts
from consumers.service import Service
from ledger.codec import Meta
from ledger.commands import ReleaseTask
from ledger.rejections import Rejection
from ledger.store import Store
from ledger.transact import transact

log = structlog.get_logger("scheduler")

ROUND_TASKS_MAX: Final = 256
"""Tasks that one round releases, and leases that it ends, in each partition."""

META: Final = Meta(actor="scheduler")


class Scheduler:
    """A role: `service.run()` until `service.stop()`."""

    def __init__(self, store: Store, *, sweep_interval_ms: int) -> None:
        self._store = store
        self._sweep_interval_s = sweep_interval_ms / 1000
        self.service = Service("scheduler", self.step)

    async def step(self) -> float:
        """Release what is due and end what expired; seconds until there may be more."""
        pauses = [await self._sweep(p) for p in range(self._store.partitions)]
        return min(pauses)

    async def _sweep(self, partition: int) -> float:
        overdue = await self._store.overdue(partition, ROUND_TASKS_MAX)
        await asyncio.gather(*(self._release(task_id, overdue.now_ms) for task_id in overdue.due))
        await fail_lost_attempts(self._store, overdue.expired)
        if max(len(overdue.due), len(overdue.expired)) >= ROUND_TASKS_MAX:
            return 0.0
        if overdue.next_in_ms is None:
            return self._sweep_interval_s
        # What is submitted meanwhile may be due earlier, hence never longer than the interval.
        return min(overdue.next_in_ms / 1000 + 0.001, self._sweep_interval_s)

    async def _release(self, task_id: str, now_ms: int) -> None:
        try:
            await transact(self._store, task_id, ReleaseTask(), meta=META, now_ms=now_ms)
        except Rejection as rejection:
            if rejection.retryable:
                raise
            log.info("not_released", task_id=task_id, reason=rejection.message)
