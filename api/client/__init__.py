"""The Python client of a ledgerq service: `Client`, and `AsyncClient` for asyncio.

    with Client() as client:
        task = client.submit("document_processing", "kb-1", {"file_path": "a.pdf"})
        done = client.wait(task.id)

docs/client.md has the rest.
"""

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
from api.client.asynchronous import AsyncClient
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

__all__ = [
    "AsyncClient",
    "Callback",
    "CallbackRejected",
    "Canceled",
    "Client",
    "Conflict",
    "Event",
    "Forbidden",
    "History",
    "IdempotencyConflict",
    "InternalError",
    "InvalidRequest",
    "LedgerqError",
    "NotFound",
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
    "VersionConflict",
    "Worker",
    "verify_callback",
]
