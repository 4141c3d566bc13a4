"""The requests that write: submit, cancel, retry, report progress."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Annotated, Final

import msgspec

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
from api.errors import Header, task_not_found
from api.exchange import Exchange
from api.intake import PROGRESS_BODY_BYTES_MAX, Batch, Intake, ProgressBody, SubmissionBody
from api.preconditions import expected_versions
from api.scalars import TaskId
from api.submissions import Submissions, digest_for, id_for
from api.waiting import position_after
from api.wire import TaskList, TaskView, task_json, task_view
from ledger.codec import Meta, encode
from ledger.commands import CancelTask, Command, ReportProgress, RetryTask
from ledger.identity import is_task_id
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Position, Store, positions_text
from ledger.transact import Committed, transact

REPLAYED_HEADER: Final[Header] = (b"idempotent-replayed", b"true")
CANCELED_MESSAGE: Final = "Task canceled successfully"


class Canceled(msgspec.Struct, frozen=True):
    """That a task is canceled."""

    message: Annotated[str, msgspec.Meta(extra_json_schema={"const": CANCELED_MESSAGE})]
    task_id: TaskId


class Commands:
    """The writing endpoints; each takes an Exchange and answers it, or raises."""

    def __init__(self, store: Store, intake: Intake, submissions: Submissions) -> None:
        self._store = store
        self._intake = intake
        self._submissions = submissions

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
        submission = self._intake.submission(body, digest_for(key, body))
        task_id = id_for(key, submission.kb_id)
        committed = await self._submissions.submit(task_id, submission, len(body), exchange.meta())
        task = committed.task
        headers = [(b"location", b"/api/v1/tasks/" + task.id.encode()), *_marks(committed)]
        status = 201
        if committed.position is None:
            status = 200
            headers.append(REPLAYED_HEADER)
        position = await position_after(self._store, committed)
        await exchange.respond(status, task_json(task, position), headers)

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
        with self._submissions.place_for_batch():
            body = await exchange.json_body(self._intake.batch_body_bytes_max)
            batch = self._intake.batch(body, digest_for(key, body))
            committed = await self._submissions.submit_batch(key, batch, len(body), exchange.meta())
            await self._answer_batch(exchange, committed)

    async def _answer_batch(self, exchange: Exchange, committed: Sequence[Committed]) -> None:
        body = encode(await self._task_list(committed))
        if any(done.position for done in committed):
            await exchange.respond(201, body, last_positions(committed))
        else:
            await exchange.respond(200, body, [REPLAYED_HEADER])

    async def _task_list(self, committed: Sequence[Committed]) -> TaskList:
        positions = await asyncio.gather(*(position_after(self._store, done) for done in committed))
        views = [task_view(c.task, at) for c, at in zip(committed, positions, strict=True)]
        return TaskList(views, len(views))

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
        committed = await self._change(exchange, RetryTask(exchange.meta().trace))
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
        expected = expected_versions(exchange.list_header(b"if-match"))
        return await change(self._store, exchange.task_id, command, exchange.meta(), expected)

    async def _answer_task(self, exchange: Exchange, committed: Committed) -> None:
        position = await position_after(self._store, committed)
        await exchange.respond(200, task_json(committed.task, position), _marks(committed))


def _marks(committed: Committed) -> list[Header]:
    """Which version the task is at, and where in the ledger the write stands, if there was one."""
    marks = [(b"etag", b'"%d"' % committed.task.version)]
    if committed.position is not None:
        marks.append((b"ledger-position", str(committed.position).encode()))
    return marks


async def change(
    store: Store,
    task_id: str,
    command: Command,
    meta: Meta,
    expected_versions: Collection[int] | None,
) -> Committed:
    """Make a caller's command happen to a task that should be there.

    Raises ApiError (TASK_NOT_FOUND), and Rejection.
    """
    if not is_task_id(task_id):
        raise task_not_found(task_id)
    try:
        return await transact(
            store,
            task_id,
            command,
            meta=meta,
            tell_queue_position=True,
            expected_versions=expected_versions,
        )
    except Rejection as rejection:
        if rejection.code is RejectionCode.TASK_NOT_FOUND:
            raise task_not_found(task_id) from None
        raise


def last_positions(committed: Sequence[Committed]) -> list[Header]:
    """The header that tells the last writes."""
    return [(b"ledger-position", last_positions_text(committed).encode())]


def last_positions_text(committed: Sequence[Committed]) -> str:
    """The last write of each partition; positions of different ones cannot be compared."""
    last: dict[int, Position] = {}
    for done in committed:
        position = done.position
        if position is not None:
            known = last.get(position.partition)
            if known is None or position.order > known.order:
                last[position.partition] = position
    return positions_text(last.values())
