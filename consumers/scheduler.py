"""Releases tasks whose time has come: scheduled ones, and those that wait for another attempt.

Attempts of lost workers are found by the same look at the clock, and handed to `reaper`. Now and
then it records the workers themselves as lost, brings the limits to every partition where an API
process did not get so far, and sees that the counts which these go by are right. Any number of
schedulers may run: versions let one of them win.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from consumers.followers_watch import FollowersWatch
from consumers.grace import Grace
from consumers.losses import Losses
from consumers.reaper import fail_lost_attempt
from consumers.service import Service
from ledger.codec import Meta, Undecodable
from ledger.commands import ReleaseTask
from ledger.identity import is_task_id
from ledger.redis_store import ForeignKey
from ledger.rejections import Rejection, RejectionCode
from ledger.retry_policy import DEFAULT_RETRY_POLICY, RetryPolicy
from ledger.store import Store
from ledger.system.state import INITIAL
from ledger.transact import transact

log = structlog.get_logger("scheduler")

ROUND_TASKS_MAX: Final = 256
"""Tasks that one round releases, and leases that it ends, in each partition."""

OUTAGE_GRACE_S: Final = 3.0
"""After an outage, leases that ran out during it are left alone so long: the workers that hold them
are as good as ever, and their heartbeats are on the way."""

BEAT_S: Final = 1.0
"""Between heartbeats of workers: what is shorter takes no lease, and is no outage."""

UPKEEP_S: Final = 1.0
"""Between looks at workers and limits."""

RECOUNT_EVERY_S: Final = 10.0
"""Between looks at the counts that limits go by, which are nearly always right."""

META: Final = Meta(actor="scheduler")


class Scheduler:
    """A role: `service.run()` until `service.stop()`."""

    def __init__(
        self,
        store: Store,
        *,
        sweep_interval_ms: int,
        outage_grace_s: float = OUTAGE_GRACE_S,
        beat_s: float = BEAT_S,
        retry: RetryPolicy = DEFAULT_RETRY_POLICY,
        followers: FollowersWatch | None = None,
    ) -> None:
        """`followers`: the watch over subscriptions, if there is one to keep."""
        self._store = store
        self._retry = retry
        self._sweep_interval_s = sweep_interval_ms / 1000
        self._unservable: set[str] = set()
        self._grace = Grace(gap_s=self._sweep_interval_s + beat_s, grace_s=outage_grace_s)
        self._losses = Losses(store, META, self._grace)
        self._followers = followers
        self._system = INITIAL
        self._upkeep_at = self._recount_at = float("-inf")
        self._upkeep_failing = False
        self.service = Service("scheduler", self.step)

    async def step(self) -> float:
        """Release what is due and end what expired; seconds until there may be more."""
        try:
            pause_s = min([await self._sweep(p) for p in range(self._store.partitions)])
            await self._keep_up()
            return pause_s
        except Rejection:
            self._grace.failed()
            raise

    async def _keep_up(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._upkeep_at:
            return
        self._upkeep_at = now_s + UPKEEP_S
        try:
            if await self._store.system_version() != self._system.version:
                self._system = await self._store.load_system()
            await self._store.spread_limits(self._system)
            self._grace.answered(now_s)
            await self._losses.look()
            await self._recount(now_s)
            if self._followers is not None:
                await self._followers.look()
            self._upkeep_failing = False
        except (ForeignKey, Undecodable) as error:
            # Tasks go before this: what is due is released all the same.
            if not self._upkeep_failing:
                log.error("upkeep_failed", reason=str(error))
            self._upkeep_failing = True

    async def _recount(self, now_s: float) -> None:
        """See that the counts which limits go by are right: the ledger may be older than limits, or
        may have been damaged."""
        if now_s < self._recount_at:
            return
        self._recount_at = now_s + RECOUNT_EVERY_S
        for partition in range(self._store.partitions):
            names = await self._store.recount(partition)
            if names:
                log.warning("admitted_recounted", partition=partition, names=names)

    async def _sweep(self, partition: int) -> float:
        # What cannot be served comes up each time, and must not crowd out the rest.
        count = ROUND_TASKS_MAX + len(self._unservable)
        asked_s = asyncio.get_running_loop().time()
        overdue = await self._store.overdue(partition, count)
        self._grace.answered(asked_s)
        expired = () if self._grace.lasts else overdue.expired
        steps = [
            *((task_id, self._release(task_id, overdue.now_ms)) for task_id in overdue.due),
            *((lost[0], fail_lost_attempt(self._store, *lost, self._retry)) for lost in expired),
        ]
        await asyncio.gather(*(self._try(task_id, step) for task_id, step in steps))
        if max(len(overdue.due), len(overdue.expired)) >= count:
            return 0.0
        if overdue.next_in_ms is None:
            return self._sweep_interval_s
        # What is submitted meanwhile may be due earlier, hence never longer than the interval.
        return min(overdue.next_in_ms / 1000 + 0.001, self._sweep_interval_s)

    async def _try(self, task_id: str, step: Coroutine[Any, Any, None]) -> None:
        """A task that is not there, or that cannot be read or moved, is told once, and stops no
        others."""
        asked_s = asyncio.get_running_loop().time()
        try:
            if is_task_id(task_id):
                await step
                return self._grace.answered(asked_s)
            fault = "not the id of a task"
        except (ForeignKey, Undecodable) as error:
            fault = str(error)
        except Rejection as rejection:
            if rejection.code is not RejectionCode.TASK_NOT_FOUND:
                raise
            fault = rejection.message
        finally:
            step.close()
        if task_id not in self._unservable:
            self._unservable.add(task_id)
            log.error("overdue_task_unservable", task_id=task_id, reason=fault)
        return None

    async def _release(self, task_id: str, now_ms: int) -> None:
        try:
            await transact(self._store, task_id, ReleaseTask(), meta=META, now_ms=now_ms)
        except Rejection as rejection:
            if rejection.retryable or rejection.code is RejectionCode.TASK_NOT_FOUND:
                raise
            log.info("not_released", task_id=task_id, reason=rejection.message)
