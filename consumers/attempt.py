"""One attempt at one task: start it, run its handler, write what became of it."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Container, Coroutine
from enum import StrEnum
from typing import Any, Final

import msgspec
import structlog

from consumers.context import Context
from consumers.deadlines import Deadlines
from consumers.executors import Call
from consumers.handlers import Handler
from consumers.loop_watch import RUNNING
from consumers.outcome import HandlerFailed, decode_metadata, failure
from consumers.progress import ProgressReporter
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
from ledger.store import Store
from ledger.task import Status, Task
from ledger.transact import transact

log = structlog.get_logger("worker")

STOP_GRACE_S: Final = 5.0
"""A handler that has not ended so long after it was stopped is left alone; its lease runs out."""

WRITE_PATIENCE_S: Final = 600.0
"""How long the start or the end of an attempt is offered to a ledger that is out of reach. Its slot
stays taken meanwhile, so that a worker does not claim what it cannot start."""

WRITE_PAUSE_CAP_S: Final = 5.0

LATE_CANCELLATIONS_MAX: Final = 100
"""An attempt whose end is cancelled more often than that is left to its lease."""


class StopReason(StrEnum):
    """Why a running handler is stopped."""

    LEASE_GONE = "the task was canceled, or given to another worker"
    DRAINING = "the worker was stopped"
    TIMEOUT = "its time was up"


class NotStarted(Exception):
    """Its type was paused before its start could be written."""


class Attempt:
    """Its whole life is `run`; `stop` cuts it short."""

    def __init__(
        self,
        store: Store,
        task: Task,
        handler: Handler,
        run_handler: Callable[[Call], Coroutine[Any, Any, bytes]],
        deadlines: Deadlines,
        on_left_behind: Callable[["Attempt", asyncio.Task[Any]], None],
        *,
        worker_id: str,
        meta: Meta,
        lease_ms: int,
        retry: RetryPolicy,
        result_bytes_max: int,
        paused: Container[str] = (),
    ) -> None:
        """`paused`: the types that are, at any time."""
        self._store = store
        self._task = task
        self._handler = handler
        self._run_handler = run_handler
        self._deadlines = deadlines
        self._on_left_behind = on_left_behind
        self._worker_id = worker_id
        self._lease_ms = lease_ms
        self._retry = retry
        self._result_bytes_max = result_bytes_max
        self._meta = meta
        self._paused = paused
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._stop_reason: StopReason | None = None
        self._context: Context | None = None
        self._handling: asyncio.Task[Any] | None = None
        """The task that runs the handler, while it does."""
        self._reporter: ProgressReporter | None = None
        self.number = task.state.attempt + 1
        self.given_up = False
        """The worker ends, and waits for nothing any more."""
        self.left_behind = False
        """The handler did not end when it was stopped; the attempt ends without it."""
        self.started = False
        self.holds_lease = False
        """Between the start's write and the end's: what heartbeats are for."""
        self.ending = False
        """The end is on its way to the ledger, which may have taken the lease already."""
        self.succeeded: bool | None = None
        """Whether it completed its task or failed; None until then, and when it did neither, as
        when its handler put the task off."""

    @property
    def task(self) -> Task:
        """The task as this attempt last wrote it."""
        return self._task

    @property
    def task_id(self) -> str:
        return self._task.id

    @property
    def task_type(self) -> str:
        return self._task.submission.task_type

    @property
    def key(self) -> tuple[str, int]:
        """As leases name it."""
        return self._task.id, self.number

    @property
    def start(self) -> tuple[Task, StartTask]:
        """The task as it was claimed, and the command that begins the attempt."""
        return self._task, StartTask(self.number, self._worker_id, self._lease_ms)

    def begin(self, task: Task) -> None:
        """Take note that the start was written, and made `task`."""
        self._task = task
        self.started = self.holds_lease = True

    async def run(self) -> None:
        """Work on the task until its outcome is written, or is somebody else's. Writes the start
        first, unless that was done. Raises Rejection: before `started`, since the task is not to be
        had; after, when no outcome could be written. Raises NotStarted.
        """
        if not self.started:
            await self._write_patiently(self.start[1])
            self.begin(self._task)
        command = await self._handle()
        if not self.left_behind:
            await self._finish(command)

    async def finish_left_behind(self) -> None:
        """Write the outcome of an attempt whose handler was left behind. Raises as `run`."""
        await self._finish(self._stopped(None))

    async def _finish(self, command: Command | None) -> None:
        try:
            for _ in range(LATE_CANCELLATIONS_MAX):
                try:
                    return await self._say(command)
                except asyncio.CancelledError:
                    # Something that the handler began has kept its task, and cancels it too late:
                    # the outcome is not the handler's to stop. Saying it again is safe.
                    if self.given_up:
                        raise
                    await _clear_cancellation()
            log.error("outcome_canceled_too_often", task_id=self.task_id, attempt=self.number)
        finally:
            self.holds_lease = False
            # Both call back: they would keep this, the payload and the result until the cycle
            # collector comes by.
            self._context = self._reporter = None

    async def _say(self, command: Command | None) -> None:
        """Write what is left of the progress, and the outcome."""
        if self._reporter is not None:
            await self._reporter.close()
        if command is not None:
            self.ending = True
            await self._write_end(command)

    def stop(self, reason: StopReason) -> None:
        """Stop the handler; what it was doing is not wanted any more."""
        if self._stop_reason is not None:
            return
        self._stop_reason = reason
        if self._context is not None:
            self._context.canceled.set()
        if self._handling is not None:
            self._handling.cancel()
            self._loop.call_later(STOP_GRACE_S, self._leave_behind)

    def _time_out(self) -> None:
        self.stop(StopReason.TIMEOUT)

    def _leave_behind(self) -> None:
        """Go on without a handler that does not end."""
        if self._handling is not None:
            log.error("handler_ignores_its_end", task_id=self.task_id, attempt=self.number)
            self.left_behind = True
            self._on_left_behind(self, self._handling)

    async def _handle(self) -> Command | None:
        """Run the handler; the command that says how it ended, None when nobody wants to know.

        It runs in this very task: one of its own would cost as much again as the rest of a short
        attempt. So a cancellation of this task is the handler's while `_handling` holds, and what
        is left of one is cleared away afterwards.
        """
        try:
            call = self._call(self._task.submission.timeout_s)
        except HandlerFailed as error:
            return self._failed(error.kind, error.message)
        if self._stop_reason is not None:
            return self._stopped(None)
        self._handling = asyncio.current_task()
        RUNNING.set(self)
        slot = self._deadlines.add(self._task.submission.timeout_s, self._time_out)
        try:
            ended = CompleteTask(self.number, msgspec.Raw(await self._run_handler(call)))
        except asyncio.CancelledError:
            ended = None
        except BaseException as error:
            ended = self._raised(error)
        self._deadlines.drop(slot, self._time_out)
        handling, self._handling = self._handling, None
        if handling is not None and handling.cancelling():
            await _clear_cancellation()
        if self._stop_reason is not None:
            return self._stopped(ended)
        return ended or self._failed(ErrorKind.RETRYABLE, "the handler cancelled itself")

    def _stopped(self, ended: Command | None) -> Command | None:
        """What to say of a handler that was stopped, and ended by itself all the same or not."""
        match self._stop_reason:
            case StopReason.TIMEOUT:
                limit = f"the attempt took longer than {self._task.submission.timeout_s} s"
                return self._failed(ErrorKind.TIMEOUT, limit)
            case StopReason.DRAINING:
                return ended or AbandonAttempt(self.number, str(StopReason.DRAINING))
            case _:
                return None

    def _raised(self, error: BaseException) -> FailAttempt:
        if not isinstance(error, HandlerFailed):
            # The handler was not even called, or its answer got lost: no thread, no process.
            log.error("executor_failed", task_id=self.task_id, exc_info=error)
            error = failure(self._handler, error)
        return self._failed(error.kind, error.message, error.retry_after_ms)

    def _failed(
        self, kind: ErrorKind, message: str, retry_after_ms: int | None = None
    ) -> FailAttempt:
        jitter = random.random()  # noqa: S311 - spreads retries
        return FailAttempt(self.number, message, kind, jitter, self._retry, retry_after_ms)

    def _call(self, timeout_s: int) -> Call:
        submission = self._task.submission
        self._context = Context(
            task_id=self._task.id,
            task_type=submission.task_type,
            attempt=self.number,
            kb_id=submission.kb_id,
            metadata=decode_metadata(submission.metadata),
            deadline_s=time.time() + timeout_s,
            report=self._report_from_anywhere,
            traceparent=self._task.trace or None,
        )
        return Call(
            self._handler,
            self._context,
            submission.payload,
            submission.metadata,
            self._result_bytes_max,
        )

    def _report_from_anywhere(self, percent: int, message: str) -> None:
        # A handler's own threads may report too, even those of an async one.
        if threading.get_ident() == self._thread:
            self._report(percent, message)
        else:
            self._loop.call_soon_threadsafe(self._report, percent, message)

    def _report(self, percent: int, message: str) -> None:
        if not self.holds_lease:
            return  # an abandoned thread, after the end
        if self._reporter is None:
            self._reporter = ProgressReporter(self._write_progress)
        self._reporter.report(percent, message)

    async def _write(self, command: Command) -> None:
        committed = await transact(
            self._store, self._task.id, command, meta=self._meta, known=self._task
        )
        self._task = committed.task

    async def _write_progress(self, percent: int, message: str) -> None:
        try:
            await self._write(ReportProgress(percent, message, self.number))
        except Rejection as rejection:
            # The lease's loss is learned with the next heartbeat; a server out of reach may miss
            # a progress report, as long as it gets the end.
            log.info("progress_not_written", task_id=self.task_id, reason=rejection.message)

    async def _write_end(self, command: Command) -> None:
        """Write how the attempt ended; take note when it is not this attempt's to say any more."""
        postponements = self._task.state.postponements
        try:
            await self._write_patiently(command)
            put_off = self._task.state.postponements > postponements
            if not put_off and not isinstance(command, AbandonAttempt):
                self.succeeded = isinstance(command, CompleteTask)
        except Rejection as rejection:
            if rejection.code not in (
                RejectionCode.STALE_ATTEMPT,
                RejectionCode.TASK_NOT_PROCESSING,
            ):
                raise
            log.warning(
                "outcome_refused",
                worker_id=self._worker_id,
                task_id=self.task_id,
                attempt=self.number,
                outcome=type(command).__name__,
                reason=rejection.message,
            )

    async def _write_patiently(self, command: Command) -> None:
        """Write through any outage that is shorter than our patience; a start, only until the
        worker is stopped, or the type is paused. Sending it again is safe: a wish that holds makes
        nothing happen."""
        deadline, pause_s = 0.0, 0.1
        while True:
            try:
                if deadline and not self.started and self.task_type in self._paused:
                    return await self._see_started()
                return await self._write(command)
            except Rejection as rejection:
                now, is_first = self._loop.time(), not deadline
                deadline = deadline or now + WRITE_PATIENCE_S
                given_up = not self.started and self._stop_reason is not None
                if not rejection.retryable or given_up or now + pause_s > deadline:
                    raise
                if is_first:
                    log.info(
                        "write_delayed",
                        task_id=self.task_id,
                        command=type(command).__name__,
                        reason=rejection.message,
                    )
            await asyncio.sleep(pause_s * (0.5 + random.random() / 2))  # noqa: S311 - spreads
            pause_s = min(pause_s * 2, WRITE_PAUSE_CAP_S)

    async def _see_started(self) -> None:
        """Whether the start was written after all. Raises NotStarted, Rejection."""
        task = await self._store.load(self.task_id)
        if task is None or task.status is not Status.PROCESSING:
            raise NotStarted
        if (task.state.attempt, task.state.worker_id) != (self.number, self._worker_id):
            raise NotStarted
        self._task = task


async def _clear_cancellation() -> None:
    """Let what was asked of a handler not reach what its own task does next."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
    # One that was asked for as the handler ended is raised where the task waits next: here.
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
