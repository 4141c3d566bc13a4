"""How the tests call the gRPC service, and what they send."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import msgspec

from api.grpc import task_service_pb2 as pb
from api.grpc.task_service_pb2_grpc import TaskServiceStub

TIMEOUT_S: Final = 20
TYPE: Final = "document_processing"
WORKER: Final = "worker-a"


class Refused(msgspec.Struct, frozen=True):
    """An error, as a client sees it."""

    status: grpc.StatusCode
    code: str
    message: str
    details: Any
    metadata: dict[str, str]


class Remote:
    """A client. `stub` calls without a time limit of ours."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.stub: Any = TaskServiceStub(channel)
        self.trailing: dict[str, str] = {}
        """Of the last answer."""

    async def call(self, method: str, request: Any, **metadata: str) -> Any:
        """The answer. Names of metadata are given with `_` for `-`."""
        sent = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
        call = getattr(self.stub, method)(request, timeout=TIMEOUT_S, metadata=sent)
        answer = await call
        self.trailing = dict(await call.trailing_metadata())
        return answer

    async def send(self, method: str, sent: bytes) -> bytes:
        """Call with bytes, whatever they are."""
        path = f"/ledgerq.v1.TaskService/{method}"
        call: Any = self.channel.unary_unary(path)  # pyright: ignore[reportUnknownVariableType]
        return await call(sent, timeout=TIMEOUT_S)

    async def submit(self, **fields: Any) -> Any:
        """A new task."""
        return (await self.call("SubmitTask", submission(**fields))).task

    async def take(self, count: int = 1, wait_ms: int = 10_000, **fields: Any) -> list[Any]:
        """Tasks for a worker."""
        given: dict[str, Any] = {"worker_id": WORKER, "task_types": [TYPE], **fields}
        asked = pb.GetPendingTasksRequest(max_tasks=count, wait_ms=wait_ms, **given)
        return list((await self.call("GetPendingTasks", asked)).tasks)

    async def get(self, task_id: str, **fields: Any) -> Any:
        """A task as it is."""
        return await self.call("GetTask", pb.GetTaskRequest(id=task_id, **fields))

    async def report(self, task: Any, worker_id: str = WORKER, **report: Any) -> Any:
        """What a worker says of its task."""
        return await self.call("UpdateStatus", update_request(task, worker_id, **report))

    async def beat(self, *tasks: Any, worker_id: str = WORKER, leaving: bool = False) -> list[Any]:
        """The tasks that are not the worker's any more, and why."""
        leases = [pb.Lease(task_id=task.id, attempt=task.attempt) for task in tasks]
        asked = pb.HeartbeatRequest(worker_id=worker_id, leases=leases, leaving=leaving)
        return list((await self.call("Heartbeat", asked)).ended)


def submission(key: str = "", **fields: Any) -> pb.SubmitTaskRequest:
    """A submission in which only what a test is about has to be named."""
    return pb.SubmitTaskRequest(task=task_of(**fields), idempotency_key=key)


def task_of(**fields: Any) -> pb.TaskSubmission:
    given: dict[str, Any] = {"task_type": TYPE, "kb_id": "kb-1", "payload": b'{"a": 1.50}'}
    return pb.TaskSubmission(**given | fields)


def update_of(task: Any, **report: Any) -> pb.StatusUpdate:
    return pb.StatusUpdate(task_id=task.id, attempt=task.attempt, **report)


def update_request(task: Any, worker_id: str = WORKER, **report: Any) -> pb.UpdateStatusRequest:
    return pb.UpdateStatusRequest(worker_id=worker_id, update=update_of(task, **report))


async def refused(call: Awaitable[Any] | Callable[[], Awaitable[Any]]) -> Refused:
    """The error of a call that must not succeed."""
    try:
        answer = await (call() if callable(call) else call)
    except grpc.aio.AioRpcError as error:
        metadata = {name: str(value) for name, value in error.trailing_metadata() or ()}
        details = msgspec.json.decode(metadata.get("error-details", "null"))
        code = metadata.get("error-code", "")
        return Refused(error.code(), code, error.details() or "", details, metadata)
    raise AssertionError(f"it succeeded: {answer}")
