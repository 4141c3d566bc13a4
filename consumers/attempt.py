"""One attempt at one task: start it, run its handler, write what became of it."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec
import structlog

from consumers.context import Context
from consumers.executors import Call
from consumers.handlers import ExecutorKind, Handler
from consumers.outcome import HandlerFailed
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
from ledger.store import Store
from ledger.task import Task
from ledger.transact import transact

log = structlog.get_logger("worker")

STOP_GRACE_S: Final = 5.0
"""A handler that has not ended so long after it was stopped is left alone; its lease runs out."""

REPORT_PATIENCE_S: Final = 600.0
"""How long the end of an attempt is offered to a ledger that is out of reach."""

REPORT_PAUSE_CAP_S: Final = 5.0


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
        run_handler: Callable[[Call], Awaitable[bytes]],
        *,
        worker_id: str,
        lease_ms: int,
        result_bytes_max: int,
    ) -> None:
        self._store = store
        self._task = task
        self._handler = handler
        self._run_handler = run_handler
        self._worker_id = worker_id
        self._lease_ms = lease_ms
        self._result_bytes_max = result_bytes_max
        self._meta = Meta(actor=worker_id)
        self._stop_reason: StopReason | None = None
        self._context: Context | None = None
        self._running: asyncio.Future[bytes] | None = None
        self._reporter = ProgressReporter(self._write_progress)
        self.number = task.state.attempt + 1
        self.started = False
        self.holds_lease = False
        """Between the start's write and the end's: what heartbeats are for."""

    @property
    def task_id(self) -> str:
        return self._task.id

    async def run(self) -> None:
        """Work on the task until its outcome is written, or is somebody else's. Raises Rejection:
        before `started`, since the task is not to be had; after, when no outcome could be written.
        """
        await self._write(StartTask(self.number, self._worker_id, self._lease_ms))
        self.started = self.holds_lease = True
        try:
            command = await self._handle()
            await self._reporter.close()
            if command is not None:
                await self._write_end(command)
        finally:
            self.holds_lease = False

    def stop(self, reason: StopReason) -> None:
        """Stop the handler; what it was doing is not wanted any more."""
        if self._stop_reason is None:
            self._stop_reason = reason
            if self._context is not None:
                self._context.canceled.set()
            if self._running is not None:
                self._running.cancel()

    async def _handle(self) -> Command | None:
        """Run the handler; the command that says how it ended, None when nobody wants to know."""
        timeout_s = self._task.submission.timeout_s
        self._running = asyncio.ensure_future(self._run_handler(self._call(timeout_s)))
        if self._stop_reason is not None:
            self._running.cancel()
        await asyncio.wait((self._running,), timeout=timeout_s)
        timed_out = not self._running.done() and self._stop_reason is None
        if not self._running.done():
            self._running.cancel()
            await asyncio.wait((self._running,), timeout=STOP_GRACE_S)
        if not self._running.done():
            log.error("handler_ignores_its_end", task_id=self.task_id, attempt=self.number)
            self._running.add_done_callback(_forget)
        if timed_out:
            return self._failed(ErrorKind.TIMEOUT, f"the attempt took longer than {timeout_s} s")
        match self._stop_reason:
            case StopReason.LEASE_GONE:
                return None
            case StopReason.DRAINING if not self._running.done() or self._running.cancelled():
                return AbandonAttempt(self.number, str(StopReason.DRAINING))
            case _:
                return self._ended(self._running)

    def _ended(self, running: asyncio.Future[bytes]) -> Command:
        if running.cancelled():
            return self._failed(ErrorKind.RETRYABLE, "the handler cancelled itself")
        error = running.exception()
        if error is None:
            return CompleteTask(self.number, msgspec.Raw(running.result()))
        if isinstance(error, HandlerFailed):
            return self._failed(error.kind, error.message)
        raise error

    def _failed(self, kind: ErrorKind, message: str) -> FailAttempt:
        jitter = random.random()  # noqa: S311 - spreads retries
        return FailAttempt(self.number, message, kind, jitter, self._handler.retry)

    def _call(self, timeout_s: int) -> Call:
        submission = self._task.submission
        report = self._reporter.report
        if self._handler.executor is ExecutorKind.THREAD:
            loop, on_loop = asyncio.get_running_loop(), self._reporter.report

            def report(percent: int, message: str) -> None:
                loop.call_soon_threadsafe(on_loop, percent, message)

        self._context = Context(
            task_id=self._task.id,
            task_type=submission.task_type,
            attempt=self.number,
            kb_id=submission.kb_id,
            metadata=msgspec.json.decode(submission.metadata) if submission.metadata else None,
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
        """Write how the attempt ended, through any outage that is shorter than our patience."""
        deadline, pause_s = time.monotonic() + REPORT_PATIENCE_S, 0.1
        while True:
            try:
                return await self._write(command)
            except Rejection as rejection:
                if rejection.code in (
                    RejectionCode.STALE_ATTEMPT,
                    RejectionCode.TASK_NOT_PROCESSING,
                ):
                    log.warning(
                        "outcome_refused",
                        task_id=self.task_id,
                        attempt=self.number,
                        outcome=type(command).__name__,
                        reason=rejection.message,
                    )
                    return None
                if not rejection.retryable or time.monotonic() + pause_s > deadline:
                    raise
                log.warning("outcome_delayed", task_id=self.task_id, reason=rejection.message)
            await asyncio.sleep(pause_s * (0.5 + random.random() / 2))  # noqa: S311 - spreads
            pause_s = min(pause_s * 2, REPORT_PAUSE_CAP_S)


def _forget(running: "asyncio.Future[bytes]") -> None:
    """Take note of how an abandoned handler ended after all, so that asyncio does not complain."""
    if not running.cancelled():
        running.exception()
