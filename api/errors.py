"""The one shape of every error, and what each refusal is in HTTP.

`{"error", "message", "code", "details"}`: a fixed title, what went wrong this time, the code that
programs branch on, and what they may need to mend it (the field and what was expected, the task).
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from ledger.rejections import Rejection, RejectionCode

Header = tuple[bytes, bytes]

RETRY_AFTER: Final[Header] = (b"retry-after", b"1")
"""Overload and short outages pass in about this many seconds, or are met again at little cost."""


class ErrorCode(StrEnum):
    """Refusals that come from speaking HTTP; the others are `RejectionCode`."""

    INVALID_REQUEST = "INVALID_REQUEST"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    NOT_SEALED = "NOT_SEALED"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    POSITION_GONE = "POSITION_GONE"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    UPGRADE_REQUIRED = "UPGRADE_REQUIRED"
    HEADERS_TOO_LARGE = "HEADERS_TOO_LARGE"
    INTERNAL_ERROR = "INTERNAL_ERROR"


ANSWERS: Final[Mapping[ErrorCode | RejectionCode, tuple[int, str]]] = {
    ErrorCode.INVALID_REQUEST: (400, "Invalid request"),
    ErrorCode.FORBIDDEN: (403, "Forbidden"),
    ErrorCode.NOT_FOUND: (404, "Not found"),
    ErrorCode.METHOD_NOT_ALLOWED: (405, "Method not allowed"),
    ErrorCode.REQUEST_TIMEOUT: (408, "Request timeout"),
    ErrorCode.POSITION_GONE: (410, "Position gone"),
    ErrorCode.PAYLOAD_TOO_LARGE: (413, "Payload too large"),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: (415, "Unsupported media type"),
    ErrorCode.UPGRADE_REQUIRED: (426, "Upgrade required"),
    ErrorCode.HEADERS_TOO_LARGE: (431, "Request header fields too large"),
    ErrorCode.INTERNAL_ERROR: (500, "Internal error"),
    ErrorCode.NOT_SEALED: (503, "Not sealed yet"),
    RejectionCode.TASK_NOT_FOUND: (404, "Task not found"),
    RejectionCode.TASK_NOT_CANCELABLE: (409, "Task cannot be canceled"),
    RejectionCode.TASK_NOT_RETRYABLE: (409, "Task cannot be retried"),
    RejectionCode.TASK_NOT_ERASABLE: (409, "Task cannot be erased"),
    RejectionCode.TASK_NOT_PROCESSING: (409, "Task is not processing"),
    RejectionCode.TASK_NOT_WAITING: (409, "Task is not waiting"),
    RejectionCode.STALE_ATTEMPT: (409, "Attempt is no longer current"),
    RejectionCode.IDEMPOTENCY_CONFLICT: (409, "Idempotency-Key used for another submission"),
    RejectionCode.VERSION_CONFLICT: (409, "Changed by others"),
    RejectionCode.TOO_MANY_LIMITS: (409, "Too many limits"),
    RejectionCode.QUEUE_FULL: (503, "Queue is full"),
    RejectionCode.SERVICE_UNAVAILABLE: (503, "Service unavailable"),
}
"""HTTP status and title by code: the only place where they are chosen."""


class ApiError(Exception):
    """A request that is refused; becomes an answer of the one shape."""

    def __init__(
        self,
        code: ErrorCode | RejectionCode,
        message: str,
        details: Mapping[str, Any] | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}
        self.headers = headers


class ErrorBody(msgspec.Struct, frozen=True):
    """Why a request was refused: the body of every answer that is not a success."""

    error: Annotated[str, Meta(description="The code in words, always the same.")]
    message: Annotated[str, Meta(description="What went wrong this time.")]
    code: Annotated[
        str,
        Meta(
            description="What programs branch on.", extra_json_schema={"enum": [*map(str, ANSWERS)]}
        ),
    ]
    details: Annotated[
        Mapping[str, Any],
        Meta(description="What may help to mend it: `field` and `expected`, the `task_id`, …"),
    ]


class ErrorAnswer(msgspec.Struct, frozen=True):
    """Status, body and headers beside the usual ones."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = ()


def invalid(field: str, expected: str, message: str = "", **details: Any) -> ApiError:
    """400: `field` (a body field, query parameter or header) is not what was `expected`."""
    return ApiError(
        ErrorCode.INVALID_REQUEST,
        message or f"{field}: expected {expected}",
        {"field": field, "expected": expected, **details},
    )


def task_not_found(task_id: str) -> ApiError:
    """404 for an id that no task has, or can have."""
    shown = task_id[:100]
    return ApiError(
        RejectionCode.TASK_NOT_FOUND, f"there is no task with the id {shown}", {"task_id": shown}
    )


def of_rejection(rejection: "Rejection | ApiError", details: Mapping[str, Any]) -> ApiError:
    """What the ledger refused, as an error of the API."""
    return ApiError(rejection.code, rejection.message, details)


def answer(error: ApiError) -> ErrorAnswer:
    """The bytes of an error."""
    status, title = ANSWERS[error.code]
    body = msgspec.json.encode(ErrorBody(title, error.message, error.code, error.details))
    headers = (*error.headers, RETRY_AFTER) if status == 503 else tuple(error.headers)
    return ErrorAnswer(status, body, headers)
