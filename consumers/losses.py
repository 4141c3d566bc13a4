"""Records workers that fell silent: one event for each time, whoever sees it."""

import asyncio

import structlog

from consumers.grace import Grace
from ledger.codec import Meta
from ledger.store import Store
from ledger.system.commands import RecordWorkerLost
from ledger.system.transact import transact_system
from ledger.workers import WorkerSeen, WorkerState

log = structlog.get_logger("scheduler")


class Losses:
    """`look` now and then. Any number may look: the version of the system lets one of them win."""

    def __init__(self, store: Store, meta: Meta, grace: Grace) -> None:
        """`grace`: of an outage, in which nobody could be heard."""
        self._store = store
        self._grace = grace
        self._meta = meta
        self._recorded: dict[str, int] = {}
        """Workers that are known to be recorded as lost, by when they had been heard."""

    async def look(self) -> None:
        """Record those that were lost since. Raises Rejection, ForeignKey, Undecodable."""
        asked_s = asyncio.get_running_loop().time()
        workers = await self._store.workers()
        self._grace.answered(asked_s)
        if self._grace.lasts:
            return
        lost = {w.report.id: w for w in workers if w.state is WorkerState.LOST}
        for worker_id, worker in lost.items():
            if self._recorded.get(worker_id) != worker.last_heartbeat:
                await self._record(worker)
        # Whoever came back is forgotten, and so is whoever is not shown any more.
        self._recorded = {name: worker.last_heartbeat for name, worker in lost.items()}

    async def _record(self, worker: WorkerSeen) -> None:
        report = worker.report
        command = RecordWorkerLost(
            report.id, report.host, report.pid, worker.last_heartbeat, report.running
        )
        done = await transact_system(self._store, command, self._meta)
        if done.events:
            log.warning("worker_lost", worker_id=report.id, running=report.running)
