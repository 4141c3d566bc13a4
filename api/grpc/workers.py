"""The methods for workers elsewhere: they take tasks, report on them, and keep their leases."""

import asyncio
from typing import Final, assert_never

import msgspec

from api.errors import invalid, of_rejection, task_not_found
from api.exchange import printable
from api.gate import as_api_error
from api.grpc import task_service_pb2 as pb
from api.grpc.call import Call
from api.grpc.messages import KIND_OF, NUMBER_OF, known, pending_message
from api.grpc.statuses import STATUSES, error_message
from api.intake import Intake
from api.known_types import check_types
from consumers.context import plain_text
from consumers.outcome import ERROR_CHARS_MAX
from consumers.remote_leases import EndedBy
from consumers.remote_presence import Identity, Lease
from consumers.remote_workers import RemoteWorkers
from ledger.codec import Meta
from ledger.commands import AbandonAttempt, Command, CompleteTask, ReportProgress
from ledger.events import ErrorKind
from ledger.identity import is_task_id
from ledger.rejections import Rejection
from ledger.settings import Settings
from ledger.task import Task

TASKS_MAX: Final = 256
"""In one answer."""

TYPES_MAX: Final = 100
UPDATES_MAX: Final = 1_000
LEASES_MAX: Final = 10_000
HOST_CHARS_MAX: Final = 255
MESSAGE_CHARS_MAX: Final = 4_096
REASON_CHARS_MAX: Final = 1_000
CONCURRENCY_MAX: Final = 10_000

REPORTED_KIND_OF: Final = {
    number: kind for number, kind in KIND_OF.items() if kind is not ErrorKind.WORKER_LOST
}

REASON_OF: Final = {
    EndedBy.CANCELED: pb.EndedLease.REASON_CANCELED,
    EndedBy.TIMED_OUT: pb.EndedLease.REASON_TIMED_OUT,
    EndedBy.LOST: pb.EndedLease.REASON_LOST,
}


class WorkerMethods:
    """Each takes a request and its Call, and returns the answer, or raises."""

    def __init__(self, workers: RemoteWorkers, intake: Intake, settings: Settings) -> None:
        self._workers = workers
        self._intake = intake
        self._task_types = settings.known_task_types
        self._wait_seconds_max = settings.wait_seconds_max
        self._lease_ms = settings.lease_ms
        self._beat_ms = settings.beat_ms

    async def take(
        self, request: pb.GetPendingTasksRequest, call: Call
    ) -> pb.GetPendingTasksResponse:
        identity = self._identity(request, call)
        count = request.max_tasks or 1
        if not 1 <= count <= TASKS_MAX:
            raise invalid("max_tasks", f"a whole number from 1 to {TASKS_MAX}")
        wait_s = call.wait_s("wait_ms", request.wait_ms, self._wait_seconds_max)
        meta = call.worker_meta(identity.id)
        tasks = await self._workers.take(identity, identity.task_types, count, wait_s, meta)
        if tasks:
            call.if_not_answered(lambda: self._workers.undelivered(identity.id, tasks))
        return pb.GetPendingTasksResponse(
            tasks=map(pending_message, tasks), lease_ms=self._lease_ms, heartbeat_ms=self._beat_ms
        )

    async def update(self, request: pb.UpdateStatusRequest, call: Call) -> pb.UpdateStatusResponse:
        worker_id = printable("worker_id", request.worker_id.encode())
        if not request.HasField("update"):
            raise invalid("update", "the report")
        task = await self._carry_out(request.update, worker_id, call.worker_meta(worker_id))
        return _updated(request.update, task)

    async def update_batch(
        self, request: pb.UpdateStatusBatchRequest, call: Call
    ) -> pb.UpdateStatusBatchResponse:
        worker_id = printable("worker_id", request.worker_id.encode())
        if not 1 <= len(request.updates) <= UPDATES_MAX:
            raise invalid("updates", f"1 to {UPDATES_MAX} reports")
        meta = call.worker_meta(worker_id)
        by_task: dict[str, list[tuple[int, pb.StatusUpdate]]] = {}
        for index, update in enumerate(request.updates):
            by_task.setdefault(update.task_id, []).append((index, update))
        results = [pb.UpdateStatusResponse()] * len(request.updates)

        async def carry_out(updates: list[tuple[int, pb.StatusUpdate]]) -> None:
            for index, update in updates:
                results[index] = await self._result(update, worker_id, meta, call)

        # All at once, so that they are written together.
        await asyncio.gather(*map(carry_out, by_task.values()))
        return pb.UpdateStatusBatchResponse(results=results)

    async def beat(self, request: pb.HeartbeatRequest, call: Call) -> pb.HeartbeatResponse:
        worker_id = printable("worker_id", request.worker_id.encode())
        if len(request.leases) > LEASES_MAX:
            raise invalid("leases", f"at most {LEASES_MAX}")
        leases: list[Lease] = []
        strange: list[Lease] = []
        for lease in request.leases:
            fits = is_task_id(lease.task_id) and lease.attempt > 0
            (leases if fits else strange).append((lease.task_id, lease.attempt))
        ended = await self._workers.leases.beat(
            worker_id, leases, call.worker_meta(worker_id), leaving=request.leaving
        )
        ended += [(lease, EndedBy.LOST) for lease in strange]
        return pb.HeartbeatResponse(
            ended=[
                pb.EndedLease(task_id=task_id, attempt=attempt, reason=REASON_OF[why])
                for (task_id, attempt), why in ended
            ],
            lease_ms=self._lease_ms,
        )

    # -- what is asked ------------------------------------------------------------------------

    def _identity(self, request: pb.GetPendingTasksRequest, call: Call) -> Identity:
        types = tuple(request.task_types)
        if not 1 <= len(types) <= TYPES_MAX:
            raise invalid("task_types", f"1 to {TYPES_MAX} task types")
        check_types(types, self._task_types)
        if not 0 <= request.concurrency <= CONCURRENCY_MAX:
            raise invalid("concurrency", f"a whole number from 0 to {CONCURRENCY_MAX}")
        if request.pid < 0:
            raise invalid("pid", "the number of a process")
        host = plain_text(request.host, HOST_CHARS_MAX) or call.peer
        worker_id = printable("worker_id", request.worker_id.encode())
        return Identity(worker_id, host, request.pid, request.concurrency, frozenset(types))

    async def _result(
        self, update: pb.StatusUpdate, worker_id: str, meta: Meta, call: Call
    ) -> pb.UpdateStatusResponse:
        try:
            return _updated(update, await self._carry_out(update, worker_id, meta))
        except Exception as error:
            refusal = as_api_error(error, call.request_id, {}, {"method": "UpdateStatusBatch"})
            number: int = STATUSES[refusal.code].value[0]
            told = pb.Error(status=number, code=refusal.code, message=error_message(refusal))
            return pb.UpdateStatusResponse(
                task_id=update.task_id[:100], attempt=update.attempt, error=told
            )

    async def _carry_out(self, update: pb.StatusUpdate, worker_id: str, meta: Meta) -> Task:
        if not is_task_id(update.task_id):
            raise task_not_found(update.task_id)
        if update.attempt < 1:
            raise invalid("attempt", "the attempt that GetPendingTasks told")
        command = self._command(update)
        try:
            return await self._workers.report(
                worker_id, update.task_id, update.attempt, command, meta
            )
        except Rejection as rejection:
            told = {"task_id": update.task_id, "attempt": update.attempt}
            raise of_rejection(rejection, told) from None

    def _command(self, update: pb.StatusUpdate) -> Command:
        match update.WhichOneof("report"):
            case "progress":
                return _progress(update.attempt, update.progress)
            case "completed":
                result = update.completed.result
                raw = self._intake.result(result) if result else msgspec.Raw(b"null")
                return CompleteTask(update.attempt, raw)
            case "failed":
                return self._failed(update.attempt, update.failed)
            case "released":
                reason = plain_text(update.released.reason, REASON_CHARS_MAX)
                return AbandonAttempt(update.attempt, reason or "the worker gave it back")
            case None:
                raise invalid("report", "one of progress, completed, failed, released")
            case never:
                assert_never(never)

    def _failed(self, attempt: int, failed: pb.Failed) -> Command:
        kind = ErrorKind.RETRYABLE
        if failed.kind:
            kind = known(REPORTED_KIND_OF, failed.kind, "kind")
        after_ms = failed.retry_after_ms if failed.HasField("retry_after_ms") else None
        if after_ms is not None and after_ms < 0:
            raise invalid("retry_after_ms", "milliseconds from 0 on")
        message = plain_text(failed.error_message, ERROR_CHARS_MAX)
        return self._workers.options.failure(attempt, message, kind, after_ms)


def _progress(attempt: int, progress: pb.Progress) -> ReportProgress:
    if not 0 <= progress.percent <= 100:
        raise invalid("percent", "a whole number from 0 to 100")
    message = progress.message if progress.HasField("message") else None
    if message is not None and len(message) > MESSAGE_CHARS_MAX:
        raise invalid("message", f"text of at most {MESSAGE_CHARS_MAX} characters")
    return ReportProgress(progress.percent, message, attempt)


def _updated(update: pb.StatusUpdate, task: Task) -> pb.UpdateStatusResponse:
    return pb.UpdateStatusResponse(
        task_id=task.id,
        attempt=update.attempt,
        status=NUMBER_OF[task.status],
        version=task.version,
    )
