"""The leases of workers elsewhere: what their heartbeats renew, and what has ended meanwhile."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec

from consumers.remote_presence import Lease, RemotePresence, RemoteWorker
from ledger.codec import Meta
from ledger.commands import FailAttempt
from ledger.events import ErrorKind
from ledger.rejections import Rejection
from ledger.retry_policy import RetryPolicy
from ledger.store import Store
from ledger.task import Status, Task
from ledger.transact import transact


class RemoteOptions(msgspec.Struct, frozen=True):
    """The settings of the same names say more."""

    lease_ms: int
    heartbeat_ms: int
    pending_idle_ms: int
    retry: RetryPolicy

    def failure(
        self, attempt: int, message: str, kind: ErrorKind, retry_after_ms: int | None = None
    ) -> FailAttempt:
        """The command that ends an attempt with an error, by the policy for retries."""
        jitter = random.random()  # noqa: S311 - spreads retries
        return FailAttempt(attempt, message, kind, jitter, self.retry, retry_after_ms)


class EndedBy(Enum):
    """Why an attempt is not its worker's any more."""

    CANCELED = "canceled"
    TIMED_OUT = "timed out"
    LOST = "lost"


class RemoteLeases:
    """Of the workers that call one process."""

    def __init__(self, store: Store, presence: RemotePresence, options: RemoteOptions) -> None:
        self._store = store
        self._presence = presence
        self._options = options

    async def beat(
        self, worker_id: str, leases: Sequence[Lease], meta: Meta, *, leaving: bool
    ) -> list[tuple[Lease, EndedBy]]:
        """Renew a worker's leases; those that are not its own any more. Raises Rejection."""
        worker = self._presence.heard(worker_id)
        worker.leaving = leaving
        asked = list(dict.fromkeys(leases))
        ended = await self._learn(worker, [one for one in asked if one not in worker.running])
        held = [lease for lease in asked if lease in worker.running]
        now_ms = self._store.now_ms()
        holdings = {lease: worker.running[lease] for lease in held}
        over = {lease: one.timeout_s for lease, one in holdings.items() if one.deadline <= now_ms}
        # A report of the worker's own may end one of them meanwhile.
        await asyncio.gather(*(self._time_out(worker, *one, meta) for one in over.items()))
        gone = await self._renew(worker, [lease for lease in held if lease not in over], now_ms)
        ended += [(lease, EndedBy.TIMED_OUT) for lease in over]
        ended += await self._reasons(worker, gone)
        if leaving and not worker.running:
            await self._presence.leave(worker)
        return ended

    async def _learn(
        self, worker: RemoteWorker, leases: Sequence[Lease]
    ) -> list[tuple[Lease, EndedBy]]:
        """Of leases that another process gave out, or nobody; those that are not the worker's."""
        tasks = await asyncio.gather(*(self._store.load(task_id) for task_id, _ in leases))
        ended: list[tuple[Lease, EndedBy]] = []
        now_ms = self._store.now_ms()
        for lease, task in zip(leases, tasks, strict=True):
            if task is not None and is_run_by(task, lease[1], worker.id):
                worker.hold(task, now_ms)
            elif (reason := _reason(task, lease, worker.id)) is not None:
                ended.append((lease, reason))
        return ended

    async def _renew(
        self, worker: RemoteWorker, leases: Iterable[Lease], now_ms: int
    ) -> list[Lease]:
        """Those that hold no longer."""
        by_partition: dict[int, list[Lease]] = {}
        for lease in leases:
            partition = self._store.partition_of(lease[0])
            by_partition.setdefault(partition, []).append(lease)
        lease_ms = self._options.lease_ms
        gone: list[Lease] = []
        for partition, some in by_partition.items():
            gone += await self._store.renew(partition, some, lease_ms)
            for lease in some:
                if lease in worker.running:
                    worker.running[lease].lease_until = now_ms + lease_ms
        return gone

    async def _reasons(
        self, worker: RemoteWorker, gone: Sequence[Lease]
    ) -> list[tuple[Lease, EndedBy]]:
        for lease in gone:
            worker.running.pop(lease, None)
        tasks = await asyncio.gather(*(self._store.load(task_id) for task_id, _ in gone))
        reasons = [_reason(task, one, worker.id) for one, task in zip(gone, tasks, strict=True)]
        return [(one, why) for one, why in zip(gone, reasons, strict=True) if why is not None]

    async def _time_out(self, worker: RemoteWorker, lease: Lease, limit_s: int, meta: Meta) -> None:
        task_id, attempt = lease
        command = self._options.failure(
            attempt, f"the attempt took longer than {limit_s} s", ErrorKind.TIMEOUT
        )
        try:
            done = await transact(self._store, task_id, command, meta=meta)
        except Rejection as rejection:
            if rejection.retryable:
                raise
            worker.running.pop(lease, None)
        else:
            worker.ended(lease, done.task, succeeded=False if done.events else None)


def is_run_by(task: Task, attempt: int, worker_id: str) -> bool:
    """Whether that attempt goes on, and is the worker's."""
    state = task.state
    return (
        state.status is Status.PROCESSING
        and state.attempt == attempt
        and state.worker_id == worker_id
    )


def _reason(task: Task | None, lease: Lease, worker_id: str) -> EndedBy | None:
    """Why a lease does not hold; None when the worker itself has ended the attempt."""
    if task is None or task.state.attempt != lease[1]:
        return EndedBy.LOST
    state = task.state
    if state.worker_id not in (None, worker_id):
        return EndedBy.LOST
    if state.status is Status.CANCELED:
        return EndedBy.CANCELED
    if state.status is Status.COMPLETED:
        return None
    match state.error_kind:
        case ErrorKind.TIMEOUT:
            return EndedBy.TIMED_OUT
        case ErrorKind.WORKER_LOST:
            return EndedBy.LOST
        case _:
            return None if state.status in (Status.RETRYING, Status.FAILED) else EndedBy.LOST
