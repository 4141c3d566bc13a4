"""The requests that write: submit, cancel, retry, report progress."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import uuid_utils

from api.describe import (
    ETAG,
    IDEMPOTENCY_KEY_HEADER,
    IF_MATCH_HEADER,
    LEDGER_POSITION,
    LEDGER_POSITION_IF_WRITTEN,
    LOCATION,
    READING,
    REPLAYED,
    WRITER_HEADERS,
    Answer,
    Group,
    operation,
)
from api.errors import ApiError, Header, of_rejection, task_not_found
from api.exchange import Exchange
from api.intake import PROGRESS_BODY_BYTES_MAX, Batch, Intake, ProgressBody, SubmissionBody
from api.overload import MemoryGuard
from api.preconditions import expected_versions
from api.scalars import TaskId
from api.waiting import position_after
from api.wire import TaskList, TaskView, task_json, task_view
from ledger.codec import Meta, encode
from ledger.commands import CancelTask, Command, ReportProgress, RetryTask, SubmitTask
from ledger.events import TaskSubmitted
from ledger.identity import derived_id, is_task_id
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Settings
from ledger.store import Position, Store, positions_text
from ledger.transact import Committed, transact

BATCHES_MAX: Final = 8
"""Batches in work at once in one process: more would fill the line that single writes wait in."""

BATCH_WAVE: Final = 128
"""Items of a batch that are submitted together; between waves, others get their turn."""

REPLAYED_HEADER: Final[Header] = (b"idempotent-replayed", b"true")
CANCELED_MESSAGE: Final = "Task canceled successfully"


class Canceled(msgspec.Struct, frozen=True):
    """That a task is canceled."""

    message: Annotated[str, msgspec.Meta(extra_json_schema={"const": CANCELED_MESSAGE})]
    task_id: TaskId


class Commands:
    """The writing endpoints; each takes an Exchange and answers it, or raises."""

    def __init__(self, store: Store, settings: Settings, memory: MemoryGuard) -> None:
        self._store = store
        self._intake = Intake(settings)
        self._queue_max = settings.queue_tasks_max
        self._memory = memory
        self._batches = 0

    # -- one ----------------------------------------------------------------------------------

    @operation(
        "submitTask",
        Group.TASKS,
        {
            201: Answer("The new task.", TaskView, (LOCATION, ETAG, LEDGER_POSITION)),
            200: Answer("The task that the key made before.", TaskView, (LOCATION, ETAG, REPLAYED)),
        },
        body=SubmissionBody,
        headers=(IDEMPOTENCY_KEY_HEADER, *WRITER_HEADERS),
        refusals=(RejectionCode.IDEMPOTENCY_CONFLICT, RejectionCode.QUEUE_FULL),
    )
    async def submit(self, exchange: Exchange) -> None:
        """Submit a task.

        With an `Idempotency-Key`, the same body again gives the same task as it is now, and another
        body is a conflict.
        """
        exchange.parameters()
        key = exchange.text_header("Idempotency-Key")
        body = await exchange.json_body(self._intake.body_bytes_max)
        if key is None:
            submission = self._intake.submission(body, "")
            task_id = str(uuid_utils.uuid7())
        else:
            submission = self._intake.submission(body, hashlib.sha256(body).hexdigest())
            task_id = derived_id(submission.kb_id, key)
        await self._memory.check(1, len(body))
        committed = await self._submit(task_id, submission, exchange.meta())
        task = committed.task
        headers = [(b"location", b"/api/v1/tasks/" + task.id.encode()), *_marks(committed)]
        status = 201
        if committed.position is None:
            status = 200
            headers.append(REPLAYED_HEADER)
        position = await position_after(self._store, committed)
        await exchange.respond(status, task_json(task, position), headers)

    async def _submit(self, task_id: str, submission: TaskSubmitted, meta: Meta) -> Committed:
        try:
            return await transact(
                self._store,
                task_id,
                SubmitTask(submission),
                meta=meta,
                known=None,
                queue_max=self._queue_max,
                tell_queue_position=True,
            )
        except Rejection as rejection:
            if rejection.code is RejectionCode.IDEMPOTENCY_CONFLICT:
                raise of_rejection(rejection, {"task_id": task_id}) from None
            raise

    # -- many ---------------------------------------------------------------------------------

    @operation(
        "submitBatch",
        Group.TASKS,
        {
            201: Answer("The tasks, in the order of the batch.", TaskList, (LEDGER_POSITION,)),
            200: Answer("The tasks that the key made before.", TaskList, (REPLAYED,)),
        },
        body=Batch,
        headers=(IDEMPOTENCY_KEY_HEADER, *WRITER_HEADERS),
        refusals=(RejectionCode.IDEMPOTENCY_CONFLICT, RejectionCode.QUEUE_FULL),
    )
    async def submit_batch(self, exchange: Exchange) -> None:
        """Submit many tasks at once.

        When one item is invalid, the error names its `index` and field, and nothing is created. The
        `Idempotency-Key` holds for the whole batch: one that was cut off half-way (503, whose
        details list what exists) is sent again safely.
        """
        exchange.parameters()
        key = exchange.text_header("Idempotency-Key")
        if self._batches >= BATCHES_MAX:
            raise Rejection(
                RejectionCode.SERVICE_UNAVAILABLE,
                f"{BATCHES_MAX} batches are in work already; try again",
            )
        self._batches += 1
        try:
            await self._take_batch(exchange, key)
        finally:
            self._batches -= 1

    async def _take_batch(self, exchange: Exchange, key: str | None) -> None:
        body = await exchange.json_body(self._intake.batch_body_bytes_max)
        if key is None:
            submissions = self._intake.batch(body, "")
            ids = [str(uuid_utils.uuid7()) for _ in submissions]
        else:
            submissions = self._intake.batch(body, hashlib.sha256(body).hexdigest())
            ids = _derived_ids(key, submissions)
            await self._refuse_clash(ids, submissions)
        await self._memory.check(len(submissions), len(body))
        committed = await self._submit_all(ids, submissions, exchange.meta())
        body = encode(await self._task_list(committed))
        if any(done.position for done in committed):
            await exchange.respond(201, body, last_positions(committed))
        else:
            await exchange.respond(200, body, [REPLAYED_HEADER])

    async def _task_list(self, committed: Sequence[Committed]) -> TaskList:
        positions = await asyncio.gather(*(position_after(self._store, done) for done in committed))
        views = [task_view(c.task, at) for c, at in zip(committed, positions, strict=True)]
        return TaskList(views, len(views))

    async def _refuse_clash(self, ids: Sequence[str], submissions: Sequence[TaskSubmitted]) -> None:
        """A key that was used with another body must create nothing, not even what is new in it."""
        for start in range(0, len(ids), BATCH_WAVE):
            wave = slice(start, start + BATCH_WAVE)
            known = await asyncio.gather(*map(self._store.load, ids[wave]))
            for task, submission in zip(known, submissions[wave], strict=True):
                if task is not None and task.submission.body_sha256 != submission.body_sha256:
                    raise ApiError(
                        RejectionCode.IDEMPOTENCY_CONFLICT,
                        "this Idempotency-Key was used for another batch; send a new key, or the "
                        "same body",
                        {"task_id": task.id},
                    )

    async def _submit_all(
        self, ids: Sequence[str], submissions: Sequence[TaskSubmitted], meta: Meta
    ) -> list[Committed]:
        """Every submission of a batch. When one cannot be written, those after its wave are not
        tried, and the error lists what exists."""
        committed: list[Committed] = []
        for start in range(0, len(ids), BATCH_WAVE):
            wave = slice(start, start + BATCH_WAVE)
            outcomes = await asyncio.gather(
                *(
                    self._submit(i, s, meta)
                    for i, s in zip(ids[wave], submissions[wave], strict=True)
                ),
                return_exceptions=True,
            )
            committed += (o for o in outcomes if isinstance(o, Committed))
            faults = [o for o in outcomes if isinstance(o, BaseException)]
            if faults:
                raise _cut_off(faults[0], committed, len(ids))
        return committed

    # -- a task's life ------------------------------------------------------------------------

    @operation(
        "cancelTask",
        Group.TASKS,
        {200: Answer("It is canceled.", Canceled, (ETAG, LEDGER_POSITION_IF_WRITTEN))},
        headers=(IF_MATCH_HEADER, *WRITER_HEADERS),
        refusals=(
            RejectionCode.TASK_NOT_FOUND,
            RejectionCode.TASK_NOT_CANCELABLE,
            RejectionCode.VERSION_CONFLICT,
            *READING,
        ),
    )
    async def cancel(self, exchange: Exchange) -> None:
        """Cancel a task.

        A running handler is stopped. A task that is canceled already stays so; one that finished in
        another way cannot be canceled.
        """
        exchange.parameters()
        await exchange.no_body()
        committed = await self._change(exchange, CancelTask())
        body = encode(Canceled(CANCELED_MESSAGE, committed.task.id))
        await exchange.respond(200, body, _marks(committed))

    @operation(
        "retryTask",
        Group.TASKS,
        {200: Answer("The task, queued again.", TaskView, (ETAG, LEDGER_POSITION_IF_WRITTEN))},
        headers=(IF_MATCH_HEADER, *WRITER_HEADERS),
        refusals=(
            RejectionCode.TASK_NOT_FOUND,
            RejectionCode.TASK_NOT_RETRYABLE,
            RejectionCode.VERSION_CONFLICT,
            *READING,
        ),
    )
    async def retry(self, exchange: Exchange) -> None:
        """Queue a failed or canceled task again, with `retry_count` 0."""
        exchange.parameters()
        await exchange.no_body()
        committed = await self._change(exchange, RetryTask())
        await self._answer_task(exchange, committed)

    @operation(
        "reportProgress",
        Group.TASKS,
        {200: Answer("The task.", TaskView, (ETAG, LEDGER_POSITION_IF_WRITTEN))},
        body=ProgressBody,
        headers=(IF_MATCH_HEADER, *WRITER_HEADERS),
        refusals=(
            RejectionCode.TASK_NOT_FOUND,
            RejectionCode.TASK_NOT_PROCESSING,
            RejectionCode.VERSION_CONFLICT,
        ),
    )
    async def progress(self, exchange: Exchange) -> None:
        """Report how far a running task is."""
        exchange.parameters()
        body = await exchange.json_body(PROGRESS_BODY_BYTES_MAX)
        report = self._intake.progress(body)
        message = None if report.message is msgspec.UNSET else report.message
        committed = await self._change(exchange, ReportProgress(report.progress, message))
        await self._answer_task(exchange, committed)

    async def _change(self, exchange: Exchange, command: Command) -> Committed:
        task_id = exchange.task_id
        if not is_task_id(task_id):
            raise task_not_found(task_id)
        expected = expected_versions(exchange.list_header(b"if-match"))
        try:
            return await transact(
                self._store,
                task_id,
                command,
                meta=exchange.meta(),
                tell_queue_position=True,
                expected_versions=expected,
            )
        except Rejection as rejection:
            if rejection.code is RejectionCode.TASK_NOT_FOUND:
                raise task_not_found(task_id) from None
            raise

    async def _answer_task(self, exchange: Exchange, committed: Committed) -> None:
        position = await position_after(self._store, committed)
        await exchange.respond(200, task_json(committed.task, position), _marks(committed))


def _marks(committed: Committed) -> list[Header]:
    """Which version the task is at, and where in the ledger the write stands, if there was one."""
    marks = [(b"etag", b'"%d"' % committed.task.version)]
    if committed.position is not None:
        marks.append((b"ledger-position", str(committed.position).encode()))
    return marks


def _derived_ids(key: str, submissions: Sequence[TaskSubmitted]) -> list[str]:
    """The ids that a key gives a batch. Counted within each kb_id, as a key is: wherever the first
    item of a kb_id stands, it meets itself again."""
    seen: Counter[str] = Counter()
    ids: list[str] = []
    for submission in submissions:
        ids.append(derived_id(submission.kb_id, key, seen[submission.kb_id]))
        seen[submission.kb_id] += 1
    return ids


def last_positions(committed: Sequence[Committed]) -> list[Header]:
    """The last write of each partition; positions of different ones cannot be compared."""
    last: dict[int, Position] = {}
    for done in committed:
        position = done.position
        if position is not None:
            known = last.get(position.partition)
            if known is None or position.order > known.order:
                last[position.partition] = position
    return [(b"ledger-position", positions_text(last.values()).encode())]


def _cut_off(fault: BaseException, committed: Sequence[Committed], count: int) -> BaseException:
    """The error of a batch that was written in part."""
    if not isinstance(fault, Rejection | ApiError):
        return fault
    exists = [done.task.id for done in committed]
    details = {"created": len(exists), "submitted": count, "task_ids": exists}
    return of_rejection(fault, details)
