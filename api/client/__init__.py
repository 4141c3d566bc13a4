"""The Python client of a ledgerq service: `Client`, and `AsyncClient` for asyncio.

    with Client() as client:
        task = client.submit("document_processing", "kb-1", {"file_path": "a.pdf"})
        done = client.wait(task.id)

docs/client.md has the rest.
"""

from typing import TYPE_CHECKING, Any

from api.client.answers import (
    Canceled,
    Event,
    History,
    Pagination,
    QueueInfo,
    QueueRow,
    SystemStats,
    Task,
    TaskPage,
    TaskStats,
    Update,
    Worker,
)
from api.client.blocking import Client
from api.client.callbacks import Callback, CallbackRejected, verify_callback
from api.client.errors import (
    Conflict,
    Forbidden,
    IdempotencyConflict,
    InternalError,
    InvalidRequest,
    LedgerqError,
    NotFound,
    NotSealed,
    PayloadTooLarge,
    PositionGone,
    QueueFull,
    RateLimited,
    Refused,
    TaskNotCancelable,
    TaskNotFinished,
    TaskNotFound,
    TaskNotProcessing,
    TaskNotRetryable,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    VersionConflict,
)
from api.client.retries import Retries
from api.client.submission import Submission
from api.client.uploads import File, Uploaded, UploadedFile

if TYPE_CHECKING:
    from api.client.asynchronous import AsyncClient

__all__ = [
    "AsyncClient",
    "Callback",
    "CallbackRejected",
    "Canceled",
    "Client",
    "Conflict",
    "Event",
    "File",
    "Forbidden",
    "History",
    "IdempotencyConflict",
    "InternalError",
    "InvalidRequest",
    "LedgerqError",
    "NotFound",
    "NotSealed",
    "Pagination",
    "PayloadTooLarge",
    "PositionGone",
    "QueueFull",
    "QueueInfo",
    "QueueRow",
    "RateLimited",
    "Refused",
    "Retries",
    "Submission",
    "SystemStats",
    "Task",
    "TaskNotCancelable",
    "TaskNotFinished",
    "TaskNotFound",
    "TaskNotProcessing",
    "TaskNotRetryable",
    "TaskPage",
    "TaskStats",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "Update",
    "Uploaded",
    "UploadedFile",
    "VersionConflict",
    "Worker",
    "verify_callback",
]


def __getattr__(name: str) -> Any:
    # A command line that is there for a moment has no use for asyncio, whose import takes longest.
    if name == "AsyncClient":
        from api.client.asynchronous import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
