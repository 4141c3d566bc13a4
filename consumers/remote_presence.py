"""Workers elsewhere, as the process knows them that they call: what they hold, and that they live.

A worker that has called lately, or waits in a call, is announced as any worker is. One that falls
silent while it holds tasks is left to be found lost; one that holds none has simply gone.
"""

import asyncio
import contextlib
from collections.abc import Generator, Iterable
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from ledger.events import NO_JSON
from ledger.redis_store import ForeignKey
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Store
from ledger.task import Task
from ledger.workers import WORKER_TASK_IDS_MAX, WorkerReport, WorkerState

log = structlog.get_logger("remote")

WORKERS_MAX: Final = 10_000
"""Of one process; further ones are refused."""

ANNOUNCED_AT_ONCE: Final = 64

Lease = tuple[str, int]
"""(task id, attempt)"""


class Holding(msgspec.Struct, gc=False):
    """An attempt that a worker runs. Times in ms, by the ledger's clock."""

    task: Task
    """As far as this process knows, and without what may be large: see `_light`."""
    started_at: int
    lease_until: int
    """As far as this process knows: others may have renewed it."""

    @property
    def timeout_s(self) -> int:
        """How long it may take."""
        return self.task.submission.timeout_s

    @property
    def deadline(self) -> int:
        """When its time is up."""
        return self.started_at + 1_000 * self.timeout_s


class Identity(msgspec.Struct, frozen=True):
    """What a worker says of itself."""

    id: str
    host: str = ""
    pid: int = 0
    concurrency: int = 0
    task_types: frozenset[str] = frozenset()


class RemoteWorker:
    """One worker."""

    def __init__(self, worker_id: str, now_ms: int) -> None:
        self.id = worker_id
        self.started_at = now_ms
        self.heard_s = 0.0
        """By the loop's clock."""
        self.running: dict[Lease, Holding] = {}
        self.leaving = False
        self._identity = Identity(worker_id)
        self._introduced = False
        self._waiting = 0
        self._succeeded = self._failed = self._task_ms = 0

    @property
    def waits(self) -> bool:
        """Whether it is in a call that waits for tasks."""
        return self._waiting > 0

    @property
    def is_one(self) -> bool:
        """Whether it is a worker, as far as this process knows: it asked for tasks, or has some."""
        return self._introduced or bool(self.running)

    def introduce(self, identity: Identity) -> None:
        """Take note of who it is."""
        self._introduced = True
        known = self._identity
        self._identity = Identity(
            self.id,
            identity.host or known.host,
            identity.pid or known.pid,
            max(identity.concurrency, known.concurrency),
            known.task_types | identity.task_types,
        )

    @contextlib.contextmanager
    def waiting(self) -> Generator[None]:
        """While it waits in a call."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            self.heard_s = asyncio.get_running_loop().time()

    def hold(self, task: Task, now_ms: int) -> None:
        """It runs an attempt, which was started or renewed now."""
        state = task.state
        started_at = now_ms if state.started_at is None else state.started_at
        self.running[task.id, state.attempt] = Holding(
            _light(task), started_at, now_ms + state.lease_ms
        )

    def told(self, lease: Lease, task: Task) -> None:
        """An attempt goes on, and the task has changed."""
        holding = self.running.get(lease)
        if holding is not None:
            holding.task = _light(task)

    def ended(self, lease: Lease, task: Task, *, succeeded: bool | None) -> None:
        """An attempt of its own came to an end; None: without a verdict."""
        holding = self.running.pop(lease, None)
        if succeeded is None:
            return
        if succeeded:
            self._succeeded += 1
        else:
            self._failed += 1
        if holding is not None:
            self._task_ms += max(0, task.state.updated_at - holding.started_at)

    def forget_expired(self, now_ms: int) -> None:
        """What it has not renewed is not its own any more."""
        expired = [lease for lease, held in self.running.items() if held.lease_until < now_ms]
        for lease in expired:
            del self.running[lease]

    def report(self, lease_ms: int) -> WorkerReport:
        """What is told of it."""
        running = [task_id for task_id, _ in self.running]
        if self.leaving:
            state = WorkerState.DRAINING
        else:
            state = WorkerState.BUSY if running else WorkerState.IDLE
        identity = self._identity
        return WorkerReport(
            self.id,
            identity.host,
            identity.pid,
            tuple(sorted(identity.task_types)),
            max(identity.concurrency, len(running), 1),
            lease_ms,
            self.started_at,
            state,
            len(running),
            tuple(running[:WORKER_TASK_IDS_MAX]),
            self._succeeded,
            self._failed,
            self._task_ms,
        )


class RemotePresence:
    """All workers that call this process. `announce` again and again."""

    def __init__(self, store: Store, *, lease_ms: int) -> None:
        self._store = store
        self._lease_ms = lease_ms
        self._workers: dict[str, RemoteWorker] = {}
        self._told_foreign_key = False

    def heard(self, worker_id: str) -> RemoteWorker:
        """The worker, which has just called. Raises Rejection when there are too many."""
        worker = self._workers.get(worker_id)
        if worker is None:
            if len(self._workers) >= WORKERS_MAX:
                raise Rejection(
                    RejectionCode.SERVICE_UNAVAILABLE,
                    f"{WORKERS_MAX} workers are known here already; try again later",
                )
            worker = self._workers[worker_id] = RemoteWorker(worker_id, self._store.now_ms())
        worker.heard_s = asyncio.get_running_loop().time()
        return worker

    async def announce(self) -> None:
        """Say who is there. Raises Rejection while the ledger is out of reach."""
        now_s, now_ms = asyncio.get_running_loop().time(), self._store.now_ms()
        there: list[RemoteWorker] = []
        gone: list[RemoteWorker] = []
        for worker in tuple(self._workers.values()):
            silent_ms = 0.0 if worker.waits else 1_000 * (now_s - worker.heard_s)
            if silent_ms <= self._lease_ms:
                worker.forget_expired(now_ms)
                if worker.is_one:
                    there.append(worker)
            else:
                del self._workers[worker.id]
                if worker.is_one and not worker.running:
                    gone.append(worker)
        for start in range(0, len(there), ANNOUNCED_AT_ONCE):
            some = there[start : start + ANNOUNCED_AT_ONCE]
            await asyncio.gather(*(self._announce(worker) for worker in some))
        await self._retire(gone)

    async def leave(self, worker: RemoteWorker) -> None:
        """The worker has ended in order. Raises Rejection."""
        self._workers.pop(worker.id, None)
        await self._retire([worker])

    async def close(self) -> None:
        """This process ends: those that hold nothing are nobody's to miss, the others come back to
        another one."""
        await self._retire([w for w in self._workers.values() if not w.running])
        self._workers.clear()

    async def _announce(self, worker: RemoteWorker) -> None:
        try:
            await self._store.announce(worker.report(self._lease_ms))
        except ForeignKey as error:
            # Working goes before being seen.
            if not self._told_foreign_key:
                log.error("worker_not_announced", worker_id=worker.id, reason=str(error))
            self._told_foreign_key = True

    async def _retire(self, workers: Iterable[RemoteWorker]) -> None:
        with contextlib.suppress(ForeignKey):
            await asyncio.gather(*(self._store.retire(worker.id) for worker in workers))


def _light(task: Task) -> Task:
    """A task as reports need it: its payload and metadata, which no report changes, are no memory
    of this process for as long as the task runs."""
    light = replace(task.submission, payload=_NO_PAYLOAD, metadata=NO_JSON)
    return Task(task.id, task.version, light, task.state)


_NO_PAYLOAD: Final = msgspec.Raw(b"{}")
