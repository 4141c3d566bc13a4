"""A worker process: claims tasks as it has room for them, and keeps their leases while they run.

Three loops, all waiting on something: one per partition that claims, woken by the dispatch streams;
one that renews leases; one that looks for claims which other workers never started.
"""

import asyncio
import contextlib
import functools
import itertools
import os
import secrets
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from consumers.attempt import Attempt, StopReason
from consumers.deadlines import Deadlines
from consumers.executors import Call, ProcessExecutor, ThreadExecutor, run_on_loop
from consumers.handlers import ExecutorKind, Handler
from consumers.heartbeats import Heartbeats
from consumers.loop_watch import LoopWatch
from consumers.meters import Meter
from consumers.pauses import Pauses
from consumers.presence import Presence
from consumers.recycling import Recycling
from consumers.service import Outage, Service
from ledger.codec import Meta
from ledger.events import Priority
from ledger.placement import Queue
from ledger.rejections import Rejection
from ledger.retry_policy import DEFAULT_RETRY_POLICY, RetryPolicy
from ledger.store import Claimed, Delivery, Store
from ledger.task import Task
from ledger.transact import transact_known

log = structlog.get_logger("worker")

READY_WAIT_MS: Final = 1_000
"""How long one blocking read of the dispatch streams lasts; also how soon a stop is seen."""

PAUSED_WAIT_MS: Final = 200
"""The same while a type is paused, so that it is taken up again soon after it is resumed."""

PASSED_OVER_MAX: Final = 64
"""After so many tasks in a row that left others waiting, the next one is taken out of order, from a
less urgent queue that has any: urgent tasks delay the others, they do not starve them."""

_LESS_URGENT: Final = (Priority.LOW, Priority.NORMAL, Priority.HIGH)
"""Take turns at that, so that none of them starves behind another."""

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
        self._processes = ProcessExecutor(module)
        self._threads = ThreadExecutor(self._on_abandoned_threads)
        self._deadlines = Deadlines()
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        """In the order of their beginning: a run that is played again ends them in the same one."""
        self._stuck: set[asyncio.Task[None]] = set()
        """Those whose handlers were left behind."""
        self._reserved = 0
        self._kept_for_stale = 0
        self._slot_freed = asyncio.Event()
        self._types = list(handlers)
        """In turn: those that were served last come last."""
        self._passing_over = [0] * store.partitions
        """Tasks that were taken since something less urgent was, or nothing was left waiting."""
        self._turns_of_less_urgent = itertools.cycle(_LESS_URGENT)
        self._delivered: dict[int, list[Delivery]] = {}
        self.tasks_taken = 0
        self._presence = Presence(
            store,
            self.id,
            task_types=handlers,
            concurrency=self._options.concurrency,
            lease_ms=self._options.lease_ms,
        )
        self._loop_watch = LoopWatch(
            self._options.loop_blocked_ms / 1000,
            self._meter.loop_blocked,
            self._meter.loop_moves,
            orphan_s=self._options.lease_ms / 1000,
        )
        self._pauses = Pauses(store, handlers)
        outage = Outage(f"worker {self.id}")
        heartbeats = Heartbeats(
            store,
            self._presence,
            self._pauses,
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
        self._takers = [Service("stale claims", self._take_stale, outage=outage)]
        for partition in range(store.partitions):
            step = functools.partial(self._claim, partition)
            self._takers.append(Service(f"claims of partition {partition}", step, outage=outage))

    async def run(self) -> None:
        """Work until `stop` is called and what was running has ended."""
        log.info("worker_started", worker_id=self.id, task_types=sorted(self._handlers))
        async with asyncio.TaskGroup() as whole:
            whole.create_task(self._heartbeats.run())
            watching = whole.create_task(self._loop_watch.run())
            try:
                async with asyncio.TaskGroup() as takers:
                    for taker in self._takers:
                        takers.create_task(taker.run())
            finally:
                await self._hand_back_all()
                await self._drain()
                self._heartbeats.stop()
                watching.cancel()
                await self._processes.close()
        await self._presence.retire()
        log.info("worker_stopped", worker_id=self.id, tasks_taken=self.tasks_taken)

    def stop(self) -> None:
        """Take nothing more; let what runs finish within the drain time-out."""
        self._leaving = False
        for taker in self._takers:
            taker.stop()
        self._pauses.end()
        self._slot_freed.set()

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
        return self._takers[0].stopping

    # -- claiming -----------------------------------------------------------------------------

    async def _claim(self, partition: int) -> float:
        """Take as many tasks as there is room for; when there are fewer, wait for the next one."""
        await self._pauses.known()
        fair = self._passing_over[partition] >= PASSED_OVER_MAX
        queues = self._queues_in_turn(self._out_of_order() if fair else tuple(Priority))
        if not queues:
            await self._pauses.change(READY_WAIT_MS / 1000)
            return 0.0
        delivered, held = self._delivered_of(partition)
        room = await self._reserve(1 if fair else self._options.concurrency)
        try:
            claimed = await self._store.claim(partition, queues, room, delivered)
            self._delivered[partition] = held
            await self._take_up(partition, claimed)
            self._pass_turn(claimed)
        finally:
            self._free(room)
        if fair or len(claimed) < room:
            self._passing_over[partition] = 0
        else:
            self._passing_over[partition] += len(claimed)
        if len(claimed) < room and not self.stopping:
            wait_ms = PAUSED_WAIT_MS if self._pauses else READY_WAIT_MS
            delivered = await self._store.wait_ready(partition, queues, wait_ms)
            self._delivered[partition] = [*held, *delivered]
        return 0.0

    def _delivered_of(self, partition: int) -> tuple[list[Delivery], list[Delivery]]:
        """What a blocking read has delivered: to be claimed now, and to be held back since its type
        was paused while the read went on."""
        delivered = self._delivered.get(partition, [])
        held = [one for one in delivered if one.queue.task_type in self._pauses]
        return [one for one in delivered if one not in held], held

    async def _reserve(self, slots_max: int) -> int:
        """Wait for free slots, and hold them for a claim; 0 when the worker stops."""
        while not self.stopping:
            room = self._reserve_free(slots_max, self._kept_for_stale)
            if room:
                return room
            self._slot_freed.clear()
            await self._slot_freed.wait()
        return 0

    async def _reserve_for_stale(self) -> int:
        """As `_reserve`, but the very next slot: what was left behind must not wait until the
        worker has nothing else to do."""
        self._kept_for_stale = 1
        while not self.stopping:
            room = self._reserve_free(self._options.concurrency, 0)
            if room:
                self._kept_for_stale = 0
                return room
            self._slot_freed.clear()
            await self._slot_freed.wait()
        return 0

    def _reserve_free(self, slots_max: int, kept: int) -> int:
        free = self._options.concurrency - len(self._attempts) - self._reserved - kept
        room = max(0, min(free, slots_max))
        self._reserved += room
        return room

    def _free(self, room: int) -> None:
        """Give back what was reserved; what was claimed meanwhile counts as running."""
        self._reserved -= room
        self._slot_freed.set()

    def _queues_in_turn(self, priorities: Sequence[Priority]) -> list[Queue]:
        """Priorities in order; within one, the task types in turn. Not those that are paused."""
        types = [kind for kind in self._types if kind not in self._pauses]
        return [Queue(kind, priority) for priority in priorities for kind in types]

    def _out_of_order(self) -> Sequence[Priority]:
        """One of the less urgent first, then the least urgent ones."""
        first = next(self._turns_of_less_urgent)
        return (first, *(p for p in reversed(Priority) if p is not first))

    def _pass_turn(self, claimed: Sequence[Claimed]) -> None:
        """Types without work pass their turns on to all others alike, not to the next in line."""
        served = {claim.delivery.queue.task_type for claim in claimed}
        self._types.sort(key=served.__contains__)

    async def _take_stale(self) -> float:
        """Claims that their worker never started; it died, or was stopped, in between."""
        pause_s = self._options.pending_idle_ms / 1000
        await self._pauses.known()
        for partition in range(self._store.partitions):
            queues = self._queues_in_turn(tuple(Priority))
            room = await self._reserve_for_stale() if queues else 0
            if not room:
                break
            try:
                claimed = await self._store.claim_stale(
                    partition, queues, room, self._options.pending_idle_ms
                )
                await self._take_up(partition, claimed)
            finally:
                self._free(room)
            if len(claimed) == room:
                pause_s = 0.0
        return pause_s

    async def _take_up(self, partition: int, claimed: Sequence[Claimed]) -> None:
        """Begin what was claimed; a worker that was stopped meanwhile gives it back."""
        if self.stopping:
            await self._hand_back(partition, [claim.delivery for claim in claimed])
        else:
            self._begin_all(claimed)

    async def _hand_back(self, partition: int, deliveries: Sequence[Delivery]) -> None:
        """Let others take at once what will not be started here."""
        try:
            await self._store.release(partition, deliveries)
        except Rejection as rejection:
            # It is stale before long, and taken again.
            log.info("claims_not_handed_back", worker_id=self.id, reason=rejection.message)

    async def _hand_back_all(self) -> None:
        """What was delivered and not claimed yet, and what the store holds for claims to come."""
        for partition in range(self._store.partitions):
            await self._hand_back(partition, self._delivered.pop(partition, []))

    # -- attempts -----------------------------------------------------------------------------

    def _begin_all(self, claimed: Sequence[Claimed]) -> None:
        """Work on what was claimed; the starts are written together."""
        begun: list[tuple[Delivery, Attempt]] = []
        for claim in claimed:
            fault = self._fault(claim)
            if claim.task is None or fault:
                self._spawn(self._set_aside(claim.delivery, fault))
                continue
            attempt = self._attempt(claim.task)
            if attempt.key in self._attempts:
                continue  # an old claim of our own was taken for stale: it is on its way
            self._attempts[attempt.key] = attempt
            begun.append((claim.delivery, attempt))
        if begun:
            self._spawn(self._start_all(begun))

    def _fault(self, claim: Claimed) -> str:
        """Why a claim cannot be served; empty when it can."""
        if claim.task is None:
            return claim.fault
        task_type = claim.task.submission.task_type
        if task_type != claim.delivery.queue.task_type:
            return f"the task is of another type, {task_type}"
        return ""

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
        self._slot_freed.set()
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

    async def _set_aside(self, delivery: Delivery, reason: str) -> None:
        log.error(
            "entry_set_aside",
            queue=f"{delivery.queue.task_type}:{delivery.queue.priority.value}",
            entry=delivery.entry,
            task_id=delivery.task_id,
            reason=reason,
        )
        await self._store.set_aside(delivery, reason)

    async def _rejected(self, delivery: Delivery, attempt: Attempt, rejection: Rejection) -> None:
        told = {"task_id": attempt.task_id, "attempt": attempt.number, "reason": rejection.message}
        if attempt.started:
            self._log_unwritten(attempt, rejection)
        elif rejection.retryable:
            log.info("start_not_written", **told)
            await self._hand_back(delivery.partition, [delivery])
        else:
            # Canceled, or started by another worker, since it was claimed.
            log.info("claim_dropped", **told)
            await self._drop(delivery)

    async def _drop(self, delivery: Delivery) -> None:
        try:
            await self._store.drop(delivery)
        except Rejection as rejection:
            # It is found again as a stale claim, and dropped then.
            log.info("claim_not_dropped", task_id=delivery.task_id, reason=rejection.message)

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
            self._run_handler,
            self._deadlines,
            self._on_left_behind,
            worker_id=self.id,
            meta=self._meta,
            lease_ms=self._options.lease_ms,
            retry=handler.retry or self._options.retry,
            result_bytes_max=self._options.result_bytes_max,
        )

    def _run_handler(self, call: Call) -> Coroutine[Any, Any, bytes]:
        match call.handler.executor:
            case ExecutorKind.ASYNC:
                return run_on_loop(call)
            case ExecutorKind.THREAD:
                return self._threads.run(call)
            case ExecutorKind.PROCESS:
                return self._processes.run(call)

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
            self._slot_freed.clear()
            await self._slot_freed.wait()
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
                    self._slot_freed.clear()
                    await self._slot_freed.wait()
