"""Workers elsewhere, in whatever language: they take tasks, report on them and keep their leases by
calls to a process of the service, and are workers of the ledger like any other.

What a worker process does for its handlers is done for them here: claims, starts, the end of an
attempt whose time is up, the account of who is there.
"""

import asyncio
import functools
import random
from collections.abc import Coroutine, Iterable, Sequence
from enum import Enum
from typing import Any, Final

import msgspec
import structlog

from consumers.remote_claims import RemoteQueue
from consumers.remote_presence import Identity, Lease, RemotePresence, RemoteWorker
from consumers.service import Outage, Service
from ledger.codec import Meta
from ledger.commands import (
    AbandonAttempt,
    Command,
    CompleteTask,
    FailAttempt,
    ReportProgress,
    StartTask,
)
from ledger.events import ErrorKind
from ledger.rejections import Rejection, RejectionCode
from ledger.retry_policy import RetryPolicy
from ledger.store import Claimed, Store
from ledger.task import Status, Task
from ledger.transact import transact, transact_known

log = structlog.get_logger("remote")

LOOK_S: Final = 0.25
"""Who does not want to wait waits so long at most, while the queues are looked through."""

CONNECTIONS_MAX: Final = 32
"""Of the process's connections, so many may be in blocking reads for workers elsewhere: one for
each partition and set of task types that is asked for."""

WRITTEN_APART_MIN: Final = 16
"""So many starts of one call are written by themselves; fewer go with those of other calls."""

GIVE_BACK_PAUSE_S: Final = 0.5

GONE_BEFORE_ANSWER: Final = "the worker was gone before it was given the task"


class RemoteOptions(msgspec.Struct, frozen=True):
    """The settings of the same names say more."""

    lease_ms: int
    heartbeat_ms: int
    pending_idle_ms: int
    retry: RetryPolicy


class EndedBy(Enum):
    """Why an attempt is not its worker's any more."""

    CANCELED = "canceled"
    TIMED_OUT = "timed out"
    LOST = "lost"


class RemoteWorkers:
    """`start`; `take`, `report` and `beat` for workers; `stop`, then `close`."""

    def __init__(self, store: Store, options: RemoteOptions) -> None:
        self._store = store
        self._options = options
        self._queues: dict[tuple[str, ...], tuple[RemoteQueue, asyncio.Task[None]]] = {}
        self._presence = RemotePresence(store, lease_ms=options.lease_ms)
        self._spawned: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._announcing = Service(
            "remote workers", self._announce, outage=Outage("remote workers' presence")
        )

    def start(self) -> None:
        """Begin to say who is there."""
        self._spawn(self._announcing.run())

    def stop(self) -> None:
        """Claim nothing more; who waits gets nothing. Reports and heartbeats are taken still."""
        self._stopping = True
        for queue, _ in self._queues.values():
            queue.stop()

    async def close(self) -> None:
        """Give back what was claimed and not started, and end."""
        self.stop()
        self._announcing.stop()
        await asyncio.gather(*(run for _, run in self._queues.values()), return_exceptions=True)
        await asyncio.gather(*self._spawned, return_exceptions=True)
        try:
            await self._presence.close()
        except Rejection as rejection:
            log.info("workers_not_retired", reason=rejection.message)

    @property
    def waiting(self) -> int:
        """How many wait for tasks."""
        return sum(queue.waiting for queue, _ in self._queues.values())

    # -- take ---------------------------------------------------------------------------------

    async def take(
        self, identity: Identity, task_types: Iterable[str], count: int, wait_s: float, meta: Meta
    ) -> list[Task]:
        """At most `count` tasks, started for the worker, as soon as there is one; none when time is
        up. When this is cancelled, what was claimed meanwhile is given back.

        Raises Rejection (SERVICE_UNAVAILABLE).
        """
        if self._stopping:
            raise Rejection(RejectionCode.SERVICE_UNAVAILABLE, "the server is stopping; try again")
        queue = self._queue_of(tuple(sorted(set(task_types))))
        worker = self._presence.heard(identity.id)
        worker.introduce(identity)
        loop = asyncio.get_running_loop()
        until = loop.time() + max(wait_s, LOOK_S)
        with worker.waiting():
            while (left_s := until - loop.time()) > 0:
                claimed = await queue.ask(count, left_s)
                if not claimed:
                    break
                starting = self._spawn(self._start_all(queue, worker, claimed, meta))
                try:
                    tasks = await asyncio.shield(starting)
                except asyncio.CancelledError:
                    starting.add_done_callback(functools.partial(self._started_for_nobody, worker))
                    raise
                if tasks:
                    return tasks
        return []

    def undelivered(self, worker_id: str, tasks: Sequence[Task]) -> None:
        """The worker has gone without an answer: what was taken for it is given back, soon."""
        worker = self._presence.heard(worker_id)
        for task in tasks:
            worker.running.pop((task.id, task.state.attempt), None)
            self._spawn(self._give_back(worker.id, task.id, task.state.attempt))

    def _started_for_nobody(
        self, worker: RemoteWorker, starting: "asyncio.Task[list[Task]]"
    ) -> None:
        if not starting.cancelled() and starting.exception() is None:
            self.undelivered(worker.id, starting.result())

    def _queue_of(self, task_types: tuple[str, ...]) -> RemoteQueue:
        found = self._queues.get(task_types)
        if found is not None:
            return found[0]
        most = max(1, CONNECTIONS_MAX // self._store.partitions)
        if len(self._queues) >= most:
            idle = next((types for types, (q, _) in self._queues.items() if not q.waiting), None)
            if idle is None:
                raise Rejection(
                    RejectionCode.SERVICE_UNAVAILABLE,
                    f"workers wait here for {most} different sets of task types already",
                )
            self._queues.pop(idle)[0].stop()
        queue = RemoteQueue(
            self._store,
            task_types,
            pending_idle_ms=self._options.pending_idle_ms,
            beat_s=self._options.heartbeat_ms / 1000,
        )
        running = self._spawn(queue.run())
        running.add_done_callback(functools.partial(self._queue_ended, task_types, queue))
        self._queues[task_types] = queue, running
        return queue

    def _queue_ended(
        self, task_types: tuple[str, ...], queue: RemoteQueue, running: "asyncio.Task[None]"
    ) -> None:
        """The next one who asks gets a new one."""
        known = self._queues.get(task_types)
        if known is not None and known[0] is queue and not self._stopping:
            del self._queues[task_types]

    async def _start_all(
        self, queue: RemoteQueue, worker: RemoteWorker, claimed: Sequence[Claimed], meta: Meta
    ) -> list[Task]:
        """Those that could be started; the others are handed back, or not to be had. Raises
        Rejection when none was, and the ledger is out of reach."""
        lease_ms = self._options.lease_ms
        wishes: list[tuple[Task, Command]] = [
            (claim.task, StartTask(claim.task.state.attempt + 1, worker.id, lease_ms))
            for claim in claimed
            if claim.task is not None
        ]
        known: list[Task | None] = [None] * len(wishes)
        if len(wishes) >= WRITTEN_APART_MIN:
            try:
                known = await transact_known(self._store, wishes, meta)
            except Rejection as rejection:
                for claim, (task, _) in zip(claimed, wishes, strict=True):
                    self._start_unknown(queue, worker, claim, task)
                raise rejection from None
        started = await asyncio.gather(
            *(
                self._started(queue, worker, claim, wish, task, meta)
                for claim, wish, task in zip(claimed, wishes, known, strict=True)
            ),
            return_exceptions=True,
        )
        now_ms = self._store.now_ms()
        tasks = [task for task in started if isinstance(task, Task)]
        for task in tasks:
            worker.hold(task, now_ms)
        errors = [error for error in started if isinstance(error, BaseException)]
        if errors and not tasks:
            raise errors[0]
        return tasks

    async def _started(
        self,
        queue: RemoteQueue,
        worker: RemoteWorker,
        claim: Claimed,
        wish: tuple[Task, Command],
        known: Task | None,
        meta: Meta,
    ) -> Task | None:
        if known is not None:
            return known
        task, command = wish
        try:
            return (await transact(self._store, task.id, command, meta=meta, known=task)).task
        except Rejection as rejection:
            log.info("start_not_written", task_id=task.id, reason=rejection.message)
            if rejection.retryable:
                self._start_unknown(queue, worker, claim, task)
                raise
            # Canceled, or started by another worker, since it was claimed.
            await queue.drop(claim.delivery)
            return None

    def _start_unknown(
        self, queue: RemoteQueue, worker: RemoteWorker, claim: Claimed, task: Task
    ) -> None:
        """The ledger did not say whether it was started."""
        queue.hand_back([claim.delivery])
        self._spawn(self._give_back(worker.id, task.id, task.state.attempt + 1))

    async def _give_back(self, worker_id: str, task_id: str, attempt: int) -> None:
        """End an attempt that nobody works on, so that no retry is counted; if the ledger is away
        for longer than the lease, that ends it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._options.lease_ms / 1000
        while loop.time() < until:
            try:
                task = await self._store.load(task_id)
                if task is not None and _is_run_by(task, attempt, worker_id):
                    command = AbandonAttempt(attempt, GONE_BEFORE_ANSWER)
                    meta = Meta(actor=worker_id)
                    await transact(self._store, task_id, command, meta=meta, known=task)
                    log.info("task_given_back", task_id=task_id, worker_id=worker_id)
                return
            except Rejection as rejection:
                if not rejection.retryable:
                    return
            if self._stopping:
                return
            await asyncio.sleep(GIVE_BACK_PAUSE_S)

    # -- report -------------------------------------------------------------------------------

    async def report(
        self, worker_id: str, task_id: str, attempt: int, command: Command, meta: Meta
    ) -> Task:
        """Carry out what a worker says of an attempt of its own; the task afterwards.

        Raises Rejection: TASK_NOT_FOUND, STALE_ATTEMPT when the attempt is not the worker's,
        TASK_NOT_PROCESSING, and what may be tried again.
        """
        worker, lease = self._presence.heard(worker_id), (task_id, attempt)
        holding = worker.running.get(lease)
        task = holding.task if holding is not None else await self._own(worker_id, lease)
        postponements = task.state.postponements
        done = await transact(self._store, task_id, command, meta=meta, known=task)
        if isinstance(command, ReportProgress):
            worker.told(lease, done.task)
            return done.task
        succeeded = None
        if done.events and not isinstance(command, AbandonAttempt):
            succeeded = isinstance(command, CompleteTask)
            if done.task.state.postponements > postponements:
                succeeded = None
        worker.ended(lease, done.task, succeeded=succeeded)
        return done.task

    async def _own(self, worker_id: str, lease: Lease) -> Task:
        """The task of an attempt that another process gave out, or that is over. Raises Rejection
        where it is not the worker's."""
        task_id, attempt = lease
        task = await self._store.load(task_id)
        if task is None:
            raise Rejection(RejectionCode.TASK_NOT_FOUND, f"there is no task with the id {task_id}")
        owner = task.state.worker_id
        if task.state.attempt == attempt and owner is not None and owner != worker_id:
            raise Rejection(
                RejectionCode.STALE_ATTEMPT, f"attempt {attempt} of the task is another worker's"
            )
        return task

    def failure(
        self, attempt: int, message: str, kind: ErrorKind, retry_after_ms: int | None = None
    ) -> FailAttempt:
        """The command that ends an attempt with an error, by the policy of the settings."""
        jitter = random.random()  # noqa: S311 - spreads retries
        return FailAttempt(attempt, message, kind, jitter, self._options.retry, retry_after_ms)

    # -- heartbeats ---------------------------------------------------------------------------

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
            if task is not None and _is_run_by(task, lease[1], worker.id):
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
        command = self.failure(
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

    # -- what goes on by itself ---------------------------------------------------------------

    async def _announce(self) -> float:
        await self._presence.announce()
        return self._options.heartbeat_ms / 1000

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._spawned.discard(task)
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, Rejection):
                log.error("remote_work_failed", exc_info=error)


def _is_run_by(task: Task, attempt: int, worker_id: str) -> bool:
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
