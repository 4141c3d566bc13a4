"""Workers elsewhere, in whatever language: they take tasks, report on them and keep their leases by
calls to a process of the service, and are workers of the ledger like any other.

What a worker process does for its handlers is done for them here: claims, starts, and the account
of who is there.
"""

import asyncio
import functools
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

import structlog

from consumers.remote_claims import RemoteQueue
from consumers.remote_leases import RemoteLeases, RemoteOptions, is_run_by
from consumers.remote_presence import Identity, Lease, RemotePresence, RemoteWorker
from consumers.service import Outage, Service
from ledger.codec import Meta
from ledger.commands import (
    AbandonAttempt,
    Command,
    CompleteTask,
    ReportProgress,
    StartTask,
)
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Claimed, Store
from ledger.task import Task
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


class RemoteWorkers:
    """`start`; `take`, `report` and, of `leases`, `beat` for workers; `stop`, then `close`."""

    def __init__(self, store: Store, options: RemoteOptions) -> None:
        self.options = options
        self._store = store
        self._queues: dict[tuple[str, ...], tuple[RemoteQueue, asyncio.Task[None]]] = {}
        self._presence = RemotePresence(store, lease_ms=options.lease_ms)
        self.leases = RemoteLeases(store, self._presence, options)
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
            pending_idle_ms=self.options.pending_idle_ms,
            beat_s=self.options.heartbeat_ms / 1000,
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
        lease_ms = self.options.lease_ms
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
        started: list[Task | BaseException | None] = [*known]
        left = [index for index, task in enumerate(known) if task is None]
        by_themselves = await asyncio.gather(
            *(self._started(queue, worker, claimed[i], wishes[i], meta) for i in left),
            return_exceptions=True,
        )
        for index, outcome in zip(left, by_themselves, strict=True):
            started[index] = outcome
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
        meta: Meta,
    ) -> Task | None:
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
        until = loop.time() + self.options.lease_ms / 1000
        while loop.time() < until:
            try:
                task = await self._store.load(task_id)
                if task is not None and is_run_by(task, attempt, worker_id):
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
        done = await transact(self._store, task_id, command, meta=meta, known=task, patient=True)
        if not done.events and holding is not None:
            # It holds already, by what is remembered: nothing was written that would have told
            # whether that is out of date.
            done = await transact(self._store, task_id, command, meta=meta)
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

    # -- what goes on by itself ---------------------------------------------------------------

    async def _announce(self) -> float:
        await self._presence.announce()
        return self.options.heartbeat_ms / 1000

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
