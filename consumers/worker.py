"""A worker process: runs the tasks that `consumers/claiming.py` takes for it, keeps their leases
(`consumers/heartbeats.py`) while they run, and comes to its end in order.
"""

import asyncio
import contextlib
import functools
import os
import secrets
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from consumers.attempt import Attempt, NotStarted, StopReason
from consumers.claiming import Claims, fault_of
from consumers.deadlines import Deadlines
from consumers.executors import Executors
from consumers.handlers import Handler
from consumers.heartbeats import Heartbeats
from consumers.loop_watch import LoopWatch
from consumers.meters import Meter
from consumers.pauses import Pauses
from consumers.presence import Presence
from consumers.recycling import Recycling
from consumers.service import Outage, Service
from consumers.slots import Slots
from ledger.codec import Meta
from ledger.rejections import Rejection
from ledger.retry_policy import DEFAULT_RETRY_POLICY, RetryPolicy
from ledger.store import Claimed, Delivery, Store
from ledger.task import Task
from ledger.transact import transact_known

log = structlog.get_logger("worker")

ABANDONED_THREADS_MAX: Final = 100
"""A worker with so many threads that nobody can stop drains and ends; its supervisor starts it
anew, without them."""

LEFT_BEHIND_MAX: Final = 100
"""The same for coroutines that ignore their end."""

FINAL_WRITES_TIMEOUT_S: Final = 10.0
"""After the drain, how long stopped attempts may take to write that they were given back."""


class WorkerOptions(msgspec.Struct, frozen=True):
    """Bounds of a worker; the settings of the same names say more."""

    concurrency: int = 50
    lease_ms: int = 15_000
    heartbeat_ms: int = 1_000
    pending_idle_ms: int = 5_000
    drain_timeout_ms: int = 30_000
    result_bytes_max: int = 1 << 20
    loop_blocked_ms: int = 0
    """0: nobody watches the loop."""
    max_memory_mib: int = 0
    max_tasks: int = 0
    retry: RetryPolicy = DEFAULT_RETRY_POLICY
    """Of handlers that bring none of their own."""


def new_worker_id() -> str:
    """`<host>-<pid>-<four random hex digits>`."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


class Worker:
    """`run` until `stop`, which drains: running tasks may finish, heartbeats go on meanwhile."""

    def __init__(
        self,
        store: Store,
        handlers: Mapping[str, Handler],
        options: WorkerOptions | None = None,
        *,
        module: str | None = None,
        worker_id: str | None = None,
        meter: Meter | None = None,
        on_leaving: Callable[[str], None] | None = None,
    ) -> None:
        """`on_leaving` is told why, when the worker ends of its own accord and another one may take
        its place already."""
        self.id = worker_id or new_worker_id()
        self._meter = meter or Meter()
        self._on_leaving = on_leaving
        self._leaving = False
        self._meta = Meta(actor=self.id)
        self._store = store
        self._handlers = handlers
        self._options = options or WorkerOptions()
        self._recycling = Recycling(
            memory_max_mib=self._options.max_memory_mib, tasks_max=self._options.max_tasks
        )
        self._executors = Executors(module, self._on_abandoned_threads)
        self._deadlines = Deadlines()
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        """In the order of their beginning: a run that is played again ends them in the same one."""
        self._stuck: set[asyncio.Task[None]] = set()
        """Those whose handlers were left behind."""
        self._slots = Slots(self._options.concurrency, self._attempts)
        self.tasks_taken = 0
        self._presence = Presence(
            store,
            self.id,
            task_types=handlers,
            concurrency=self._options.concurrency,
            lease_ms=self._options.lease_ms,
        )
        outage = Outage(f"worker {self.id}")
        self._loop_watch = LoopWatch(
            self._options.loop_blocked_ms / 1000,
            self._meter.loop_blocked,
            self._meter.loop_moves,
            on_stood=outage.stood_still,
            orphan_s=self._options.lease_ms / 1000,
        )
        self._pauses = pauses = Pauses(store, handlers)
        self._claims = Claims(
            store,
            handlers,
            pauses,
            self._slots,
            self._begin_all,
            outage,
            worker_id=self.id,
            pending_idle_ms=self._options.pending_idle_ms,
        )
        heartbeats = Heartbeats(
            store,
            self._presence,
            pauses,
            self._attempts,
            lambda: self.stopping,
            worker_id=self.id,
            lease_ms=self._options.lease_ms,
            heartbeat_ms=self._options.heartbeat_ms,
        )
        self._heartbeats = Service(
            "heartbeats",
            functools.partial(self._beat, heartbeats),
            outage=outage,
            # Leases must not run out while everybody waits to see whether the server is back.
            backoff_cap_s=self._options.heartbeat_ms / 1000,
        )

    async def run(self) -> None:
        """Work until `stop` is called and what was running has ended."""
        log.info("worker_started", worker_id=self.id, task_types=sorted(self._handlers))
        async with asyncio.TaskGroup() as whole:
            whole.create_task(self._heartbeats.run())
            watching = whole.create_task(self._loop_watch.run())
            try:
                await self._claims.run()
            finally:
                await self._claims.hand_back_all()
                await self._drain()
                self._heartbeats.stop()
                watching.cancel()
                await self._executors.close()
        await self._presence.retire()
        log.info("worker_stopped", worker_id=self.id, tasks_taken=self.tasks_taken)

    def stop(self) -> None:
        """Take nothing more; let what runs finish within the drain time-out."""
        self._leaving = False
        self._claims.stop()

    def leave(self, why: str) -> None:
        """Take nothing more, for another worker to take its place; let what runs finish, however
        long that takes within each task's own time limit. `stop` still sets the usual bound."""
        if self.stopping:
            return
        log.info("worker_leaving", worker_id=self.id, why=why)
        self.stop()
        self._leaving = True
        if self._on_leaving is not None:
            self._on_leaving(why)

    def _leave_if(self, why: str | None) -> None:
        if why is not None:
            self.leave(why)

    @property
    def stopping(self) -> bool:
        return self._claims.stopping

    # -- attempts -----------------------------------------------------------------------------

    def _begin_all(self, claimed: Sequence[Claimed]) -> None:
        """Work on what was claimed; the starts are written together."""
        begun: list[tuple[Delivery, Attempt]] = []
        for claim in claimed:
            fault = fault_of(claim)
            if claim.task is None or fault:
                self._spawn(self._claims.set_aside(claim.delivery, fault))
                continue
            attempt = self._attempt(claim.task)
            if attempt.key in self._attempts:
                continue  # an old claim of our own was taken for stale: it is on its way
            self._attempts[attempt.key] = attempt
            begun.append((claim.delivery, attempt))
        if begun:
            self._spawn(self._start_all(begun))

    async def _start_all(self, begun: Sequence[tuple[Delivery, Attempt]]) -> None:
        starts = [attempt.start for _, attempt in begun]
        try:
            started = await transact_known(self._store, starts, self._meta)
        except Rejection:
            started = [None] * len(begun)
        except BaseException:
            for _, attempt in begun:
                del self._attempts[attempt.key]
            raise
        for (delivery, attempt), task in zip(begun, started, strict=True):
            if task is not None:
                attempt.begin(task)
            # An attempt that did not begin tries by itself, and learns why.
            self._spawn(self._work_on(delivery, attempt))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._slots.freed()
        if task.cancelled():
            log.warning("attempt_cancelled", worker_id=self.id)
        elif (error := task.exception()) is not None:
            # The lease runs out, and the task is retried; the worker goes on with its others.
            log.error("attempt_broken", worker_id=self.id, exc_info=error)

    async def _work_on(self, delivery: Delivery, attempt: Attempt) -> None:
        try:
            await attempt.run()
            if not attempt.left_behind:
                self._count(attempt)
        except NotStarted:
            await self._claims.hand_back(delivery.partition, [delivery])
        except Rejection as rejection:
            await self._rejected(delivery, attempt, rejection)
        finally:
            if not attempt.left_behind:
                del self._attempts[attempt.key]

    def _on_left_behind(self, attempt: Attempt, stuck: asyncio.Task[None]) -> None:
        """A handler ignores its end: its slot is given to others, its task waits for it alone."""
        self._tasks.pop(stuck, None)
        self._stuck.add(stuck)
        stuck.add_done_callback(self._stuck.discard)
        self._spawn(self._finish_left_behind(attempt))
        self._end_with_too_many(len(self._stuck), LEFT_BEHIND_MAX, "handlers left behind")

    async def _finish_left_behind(self, attempt: Attempt) -> None:
        try:
            await attempt.finish_left_behind()
            self._count(attempt)
        except Rejection as rejection:
            self._log_unwritten(attempt, rejection)
        finally:
            del self._attempts[attempt.key]

    def _count(self, attempt: Attempt) -> None:
        self.tasks_taken += 1
        self._presence.count(attempt)
        self._leave_if(self._recycling.after_task(self.tasks_taken))

    async def _rejected(self, delivery: Delivery, attempt: Attempt, rejection: Rejection) -> None:
        told = {"task_id": attempt.task_id, "attempt": attempt.number, "reason": rejection.message}
        if attempt.started:
            self._log_unwritten(attempt, rejection)
        elif rejection.retryable:
            log.info("start_not_written", **told)
            await self._claims.hand_back(delivery.partition, [delivery])
        else:
            # Canceled, or started by another worker, since it was claimed.
            log.info("claim_dropped", **told)
            await self._claims.drop(delivery)

    def _log_unwritten(self, attempt: Attempt, rejection: Rejection) -> None:
        # Its lease runs out, and it is tried again.
        log.error(
            "outcome_not_written",
            task_id=attempt.task_id,
            attempt=attempt.number,
            reason=rejection.message,
        )

    def _attempt(self, task: Task) -> Attempt:
        handler = self._handlers[task.submission.task_type]
        return Attempt(
            self._store,
            task,
            handler,
            self._executors.run,
            self._deadlines,
            self._on_left_behind,
            worker_id=self.id,
            meta=self._meta,
            lease_ms=self._options.lease_ms,
            retry=handler.retry or self._options.retry,
            result_bytes_max=self._options.result_bytes_max,
            paused=self._pauses,
        )

    def _on_abandoned_threads(self, count: int) -> None:
        self._meter.threads_abandoned(count)
        self._end_with_too_many(count, ABANDONED_THREADS_MAX, "abandoned threads")

    def _end_with_too_many(self, count: int, most: int, what: str) -> None:
        """Come to an end, for a supervisor to start a worker without them."""
        if count >= most and not self.stopping:
            log.error("too_many_lost", worker_id=self.id, what=what, hint="starting anew")
            self.leave(f"{count} {what}")

    # -- leases and the end -------------------------------------------------------------------

    async def _beat(self, heartbeats: Heartbeats) -> float:
        pause_s = await heartbeats.beat()
        self._leave_if(self._recycling.now_and_then(self.tasks_taken))
        return pause_s

    async def _drain(self) -> None:
        if self._tasks:
            log.info("draining", worker_id=self.id, running=len(self._attempts))
        while self._leaving and self._tasks:
            await self._slots.change()
        if self._tasks:
            await self._wait_for_tasks(self._options.drain_timeout_ms / 1000)
        for attempt in self._attempts.values():
            attempt.stop(StopReason.DRAINING)
        await self._wait_for_tasks(FINAL_WRITES_TIMEOUT_S)
        for attempt in self._attempts.values():
            attempt.given_up = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _wait_for_tasks(self, timeout_s: float) -> None:
        """Until none is left, those included that others begin meanwhile, or time is up. Those that
        were left behind meanwhile do not count."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._tasks:
                    await self._slots.change()
