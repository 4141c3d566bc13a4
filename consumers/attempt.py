"""One attempt at one task: start it, run its handler, write what became of it."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec
import structlog

from consumers.context import Context
from consumers.executors import Call
from consumers.handlers import Handler
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
from ledger.task import Task
from ledger.transact import transact

log = structlog.get_logger("worker")

STOP_GRACE_S: Final = 5.0
"""A handler that has not ended so long after it was stopped is left alone; its lease runs out."""

WRITE_PATIENCE_S: Final = 600.0
"""How long the start or the end of an attempt is offered to a ledger that is out of reach. Its slot
stays taken meanwhile, so that a worker does not claim what it cannot start."""

WRITE_PAUSE_CAP_S: Final = 5.0


class StopReason(StrEnum):
    """Why a running handler is stopped from outside."""

    LEASE_GONE = "the task was canceled, or given to another worker"
    DRAINING = "the worker was stopped"


class Attempt:
    """Its whole life is `run`; `stop` cuts it short."""

    def __init__(
        self,
        store: Store,
        task: Task,
        handler: Handler,
        run_handler: Callable[[Call], Coroutine[Any, Any, bytes]],
        *,
        worker_id: str,
        lease_ms: int,
        retry: RetryPolicy,
        result_bytes_max: int,
    ) -> None:
        self._store = store
        self._task = task
        self._handler = handler
        self._run_handler = run_handler
        self._worker_id = worker_id
        self._lease_ms = lease_ms
        self._retry = retry
        self._result_bytes_max = result_bytes_max
        self._meta = Meta(actor=worker_id)
        self._stop_reason: StopReason | None = None
        self._context: Context | None = None
        self._woken: asyncio.Future[None] | None = None
        self._reporter: ProgressReporter | None = None
        self.number = task.state.attempt + 1
        self.started = False
        self.holds_lease = False
        """Between the start's write and the end's: what heartbeats are for."""
        self.ending = False
        """The end is on its way to the ledger, which may have taken the lease already."""
        self.succeeded: bool | None = None
        """Whether it completed its task or failed; None until then, and when it did neither."""

    @property
    def task(self) -> Task:
        """The task as this attempt last wrote it."""
        return self._task

    @property
    def task_id(self) -> str:
        return self._task.id

    async def run(self) -> None:
        """Work on the task until its outcome is written, or is somebody else's. Raises Rejection:
        before `started`, since the task is not to be had; after, when no outcome could be written.
        """
        await self._write_patiently(StartTask(self.number, self._worker_id, self._lease_ms))
        self.started = self.holds_lease = True
        try:
            command = await self._handle()
            if self._reporter is not None:
                await self._reporter.close()
            if command is not None:
                self.ending = True
                await self._write_end(command)
        finally:
            self.holds_lease = False

    def stop(self, reason: StopReason) -> None:
        """Stop the handler; what it was doing is not wanted any more."""
        if self._stop_reason is None:
            self._stop_reason = reason
            if self._context is not None:
                self._context.canceled.set()
            self._wake()

    async def _handle(self) -> Command | None:
        """Run the handler; the command that says how it ended, None when nobody wants to know."""
        timeout_s = self._task.submission.timeout_s
        try:
            call = self._call(timeout_s)
        except HandlerFailed as error:
            return self._failed(error.kind, error.message)
        running = asyncio.get_running_loop().create_task(self._run_handler(call))
        if self._stop_reason is None:
            await self._wait_for_end(running, timeout_s)
        timed_out = not running.done() and self._stop_reason is None
        if not running.done():
            call.context.canceled.set()
            running.cancel()
            await self._wait_for_end(running, STOP_GRACE_S)
        if not running.done():
            log.error("handler_ignores_its_end", task_id=self.task_id, attempt=self.number)
            running.add_done_callback(_forget)
        if timed_out:
            return self._failed(ErrorKind.TIMEOUT, f"the attempt took longer than {timeout_s} s")
        match self._stop_reason:
            case StopReason.LEASE_GONE:
                return None
            case StopReason.DRAINING if not running.done() or running.cancelled():
                return AbandonAttempt(self.number, str(StopReason.DRAINING))
            case _:
                return self._ended(running)

    def _ended(self, running: asyncio.Future[bytes]) -> Command:
        if running.cancelled():
            return self._failed(ErrorKind.RETRYABLE, "the handler cancelled itself")
        error = running.exception()
        if error is None:
            return CompleteTask(self.number, msgspec.Raw(running.result()))
        if not isinstance(error, HandlerFailed):
            # The handler was not even called, or its answer got lost: no thread, no process.
            log.error("executor_failed", task_id=self.task_id, exc_info=error)
            error = failure(self._handler, error)
        return self._failed(error.kind, error.message)

    def _failed(self, kind: ErrorKind, message: str) -> FailAttempt:
        jitter = random.random()  # noqa: S311 - spreads retries
        return FailAttempt(self.number, message, kind, jitter, self._retry)

    def _call(self, timeout_s: int) -> Call:
        submission = self._task.submission
        loop, on_loop = asyncio.get_running_loop(), self._report

        def report(percent: int, message: str) -> None:
            # From any thread: an async handler may have some of its own too.
            loop.call_soon_threadsafe(on_loop, percent, message)

        self._context = Context(
            task_id=self._task.id,
            task_type=submission.task_type,
            attempt=self.number,
            kb_id=submission.kb_id,
            metadata=decode_metadata(submission.metadata),
            deadline=datetime.fromtimestamp(time.time() + timeout_s, UTC),
            report=report,
        )
        return Call(
            self._handler,
            self._context,
            submission.payload,
            submission.metadata,
            self._result_bytes_max,
        )

    async def _wait_for_end(self, running: "asyncio.Future[bytes]", timeout_s: float) -> None:
        """Until the handler ends, `stop` is called, or time is up. What `asyncio.wait` does, for
        one future alone, at a third of its cost."""
        loop = asyncio.get_running_loop()
        self._woken = loop.create_future()
        timer = loop.call_later(timeout_s, self._wake)
        running.add_done_callback(self._wake)
        try:
            await self._woken
        finally:
            timer.cancel()
            running.remove_done_callback(self._wake)

    def _wake(self, _: object = None) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

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
        try:
            await self._write_patiently(command)
            if not isinstance(command, AbandonAttempt):
                self.succeeded = isinstance(command, CompleteTask)
        except Rejection as rejection:
            if rejection.code not in (
                RejectionCode.STALE_ATTEMPT,
                RejectionCode.TASK_NOT_PROCESSING,
            ):
                raise
            log.warning(
                "outcome_refused",
                task_id=self.task_id,
                attempt=self.number,
                outcome=type(command).__name__,
                reason=rejection.message,
            )

    async def _write_patiently(self, command: Command) -> None:
        """Write through any outage that is shorter than our patience; a start, only until the
        worker is stopped. Sending it again is safe: a wish that holds makes nothing happen."""
        deadline, pause_s, is_first = time.monotonic() + WRITE_PATIENCE_S, 0.1, True
        while True:
            try:
                return await self._write(command)
            except Rejection as rejection:
                given_up = not self.started and self._stop_reason is not None
                if not rejection.retryable or given_up or time.monotonic() + pause_s > deadline:
                    raise
                if is_first:
                    log.info(
                        "write_delayed",
                        task_id=self.task_id,
                        command=type(command).__name__,
                        reason=rejection.message,
                    )
                is_first = False
            await asyncio.sleep(pause_s * (0.5 + random.random() / 2))  # noqa: S311 - spreads
            pause_s = min(pause_s * 2, WRITE_PAUSE_CAP_S)


def _forget(running: "asyncio.Future[bytes]") -> None:
    """Take note of how an abandoned handler ended after all, so that asyncio does not complain."""
    if not running.cancelled():
        running.exception()
