"""The methods for services that want work done: the same functions as REST, in other clothes."""

from typing import Any, Final

from msgspec import UNSET

from api.commands import change, last_positions_text
from api.errors import invalid
from api.exchange import printable
from api.grpc import task_service_pb2 as pb
from api.grpc.call import POSITION, Call
from api.grpc.messages import (
    PRIORITY_OF,
    STATUS_OF,
    all_known,
    submission_fields,
    task_message,
)
from api.intake import Intake
from api.queries import Queries, TaskQuery
from api.submissions import Submissions, id_for
from api.task_list import TaskLists
from api.waiting import position_after
from ledger.commands import CancelTask, Command, RetryTask
from ledger.settings import Settings
from ledger.store import Store
from ledger.transact import Committed

NUMBERS: Final = ("page", "page_size")
TEXTS: Final = ("created_after", "created_before", "q", "sort_by", "sort_order", "cursor")
LISTS: Final = ("kb_id", "task_type", "worker_id")


class TaskMethods:
    """Each takes a request and its Call, and returns the answer, or raises."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        submissions: Submissions,
        queries: Queries,
        lists: TaskLists,
        settings: Settings,
    ) -> None:
        self._store = store
        self._intake = intake
        self._submissions = submissions
        self._queries = queries
        self._lists = lists
        self._wait_seconds_max = settings.wait_seconds_max
        self._batch_items_max = settings.batch_items_max

    async def submit(self, request: pb.SubmitTaskRequest, call: Call) -> pb.SubmitTaskResponse:
        if not request.HasField("task"):
            raise invalid("task", "the task to be submitted")
        key = _key(request.idempotency_key)
        submission = self._intake.given(submission_fields(request.task), key)
        task_id = id_for(key, submission.kb_id)
        size = request.task.ByteSize()
        committed = await self._submissions.submit(task_id, submission, size, call.meta())
        task = await self._answer(committed, call)
        return pb.SubmitTaskResponse(task=task, replayed=committed.position is None)

    async def submit_batch(
        self, request: pb.SubmitBatchRequest, call: Call
    ) -> pb.SubmitBatchResponse:
        key = _key(request.idempotency_key)
        if not 1 <= len(request.tasks) <= self._batch_items_max:
            raise invalid("tasks", f"1 to {self._batch_items_max} of them")
        with self._submissions.place_for_batch():
            batch = [
                self._intake.given(submission_fields(task, index), key, index)
                for index, task in enumerate(request.tasks)
            ]
            committed = await self._submissions.submit_batch(
                key, batch, request.ByteSize(), call.meta()
            )
            tasks = [
                task_message(c.task, await position_after(self._store, c), with_data=False)
                for c in committed
            ]
        call.wrote(last_positions_text(committed))
        replayed = not any(done.position for done in committed)
        return pb.SubmitBatchResponse(tasks=tasks, replayed=replayed)

    async def get(self, request: pb.GetTaskRequest, call: Call) -> pb.Task:
        wait_s = call.wait_s("wait_ms", request.wait_ms, self._wait_seconds_max)
        asked = TaskQuery(
            request.version if request.HasField("version") else UNSET,
            request.as_of or UNSET,
            wait_s if request.wait_ms else UNSET,
        )
        if asked.version is not UNSET and asked.version < 1:
            raise invalid("version", "a whole number from 1 to the task's version")
        return task_message(*await self._queries.read(request.id, asked))

    async def list(self, request: pb.ListTasksRequest, call: Call) -> pb.ListTasksResponse:
        values: dict[str, Any] = {name: tuple(getattr(request, name)) for name in LISTS}
        values |= {name: getattr(request, name) for name in (*NUMBERS, *TEXTS)}
        values["status"] = all_known(STATUS_OF, request.status, "status")
        values["priority"] = all_known(PRIORITY_OF, request.priority, "priority")
        asked = self._lists.given({name: value for name, value in values.items() if value})
        found, headers = await self._lists.page(asked, call.wanted_position)
        call.wrote(dict(headers)[POSITION.encode()].decode())
        pagination = found.pagination
        return pb.ListTasksResponse(
            tasks=[task_message(*told, with_data=request.with_data) for told in found.tasks],
            total=pagination.total,
            page=pagination.page or 0,
            page_size=pagination.page_size,
            total_pages=pagination.total_pages,
            next_cursor=pagination.next_cursor or "",
        )

    async def cancel(self, request: pb.CancelTaskRequest, call: Call) -> pb.Task:
        return await self._change(request, CancelTask(), call)

    async def retry(self, request: pb.RetryTaskRequest, call: Call) -> pb.Task:
        return await self._change(request, RetryTask(call.meta().trace), call)

    async def _change(
        self, request: pb.CancelTaskRequest | pb.RetryTaskRequest, command: Command, call: Call
    ) -> pb.Task:
        expected = (request.expected_version,) if request.HasField("expected_version") else None
        committed = await change(self._store, request.id, command, call.meta(), expected)
        return await self._answer(committed, call)

    async def _answer(self, committed: Committed, call: Call) -> pb.Task:
        if committed.position is not None:
            call.wrote(str(committed.position))
        return task_message(committed.task, await position_after(self._store, committed))


def _key(text: str) -> str | None:
    return printable("idempotency_key", text.encode()) if text else None
