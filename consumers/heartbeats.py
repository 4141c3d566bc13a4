"""A worker's heartbeats: they renew its leases, and find out which are its own no longer."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from consumers.attempt import Attempt, StopReason
from consumers.pauses import Pauses
from consumers.presence import Presence
from ledger.codec import Undecodable
from ledger.store import Store
from ledger.task import Status

log = structlog.get_logger("worker")

Lease = tuple[str, int]
"""(task id, attempt)"""


class Heartbeats:
    """`beat` again and again."""

    def __init__(
        self,
        store: Store,
        presence: Presence,
        pauses: Pauses,
        attempts: Mapping[Lease, Attempt],
        is_draining: Callable[[], bool],
        *,
        worker_id: str,
        lease_ms: int,
        heartbeat_ms: int,
    ) -> None:
        self._store = store
        self._presence = presence
        self._pauses = pauses
        self._attempts = attempts
        self._is_draining = is_draining
        self._worker_id = worker_id
        self._lease_ms = lease_ms
        self._heartbeat_s: Final = heartbeat_ms / 1000
        self._renewed_at: float | None = None

    async def beat(self) -> float:
        """Renew all leases held; stop what holds none any more. Then learn what is paused, and say
        that we are there. Returns the seconds until the next one."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        silent_s = 0.0 if self._renewed_at is None else began - self._renewed_at
        lost = await self._renew()
        self._renewed_at = began
        if lost and silent_s * 1000 > self._lease_ms:
            await self._tell_fenced(lost, silent_s)
        else:
            for attempt in lost:
                log.info("attempt_stopped", task_id=attempt.task_id, attempt=attempt.number)
        # First, since it only reads: a server that has no memory left answers it.
        await self._pauses.learn()
        await self._presence.announce(self._attempts.values(), draining=self._is_draining())
        # A cancel waits for the next heartbeat: what this one took does not make it wait longer.
        return max(0.0, self._heartbeat_s - (loop.time() - began))

    async def _renew(self) -> list[Attempt]:
        """The attempts that hold no lease any more; their handlers were stopped."""
        held = {key: attempt for key, attempt in self._attempts.items() if attempt.holds_lease}
        by_partition: dict[int, list[Lease]] = {}
        for lease in held:
            partition = self._store.partition_of(lease[0])
            by_partition.setdefault(partition, []).append(lease)
        lost: list[Attempt] = []
        for partition, leases in by_partition.items():
            for gone in await self._store.renew(partition, leases, self._lease_ms):
                attempt = held[gone]
                if attempt.holds_lease and not attempt.ending:
                    attempt.stop(StopReason.LEASE_GONE)
                    lost.append(attempt)
        return lost

    async def _tell_fenced(self, lost: list[Attempt], silent_s: float) -> None:
        """Say what became of tasks while nothing was heard of this worker."""
        canceled = await asyncio.gather(*map(self._was_canceled, lost))
        log.warning(
            "worker_fenced",
            worker_id=self._worker_id,
            silent_s=round(silent_s, 1),
            tasks=canceled.count(False),
            hint="nothing was heard of it for longer than its leases; it goes on with other work",
        )
        for attempt, was_canceled in zip(lost, canceled, strict=True):
            log.warning(
                "attempt_stopped" if was_canceled else "attempt_fenced",
                worker_id=self._worker_id,
                task_id=attempt.task_id,
                attempt=attempt.number,
            )

    async def _was_canceled(self, attempt: Attempt) -> bool:
        try:
            task = await self._store.load(attempt.task_id)
        except Undecodable as error:
            # Damaged meanwhile: the worker's other tasks have no part in that.
            log.error("task_unreadable", task_id=attempt.task_id, reason=str(error))
            return False
        return task is not None and task.status is Status.CANCELED
