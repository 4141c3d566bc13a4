"""Which gRPC status each refusal is: the only place where they are chosen."""

from collections.abc import Mapping
from typing import Any, Final

import grpc
import msgspec

from api.errors import ApiError, ErrorCode
from ledger.rejections import RejectionCode

STATUSES: Final[Mapping[ErrorCode | RejectionCode, grpc.StatusCode]] = {
    ErrorCode.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    ErrorCode.UPGRADE_REQUIRED: grpc.StatusCode.UNIMPLEMENTED,
    ErrorCode.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorCode.METHOD_NOT_ALLOWED: grpc.StatusCode.UNIMPLEMENTED,
    ErrorCode.REQUEST_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorCode.POSITION_GONE: grpc.StatusCode.OUT_OF_RANGE,
    # Not what gRPC itself says of too large a message: clients try that one again.
    ErrorCode.PAYLOAD_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.HEADERS_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.INTERNAL_ERROR: grpc.StatusCode.INTERNAL,
    ErrorCode.NOT_SEALED: grpc.StatusCode.UNAVAILABLE,
    RejectionCode.TASK_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    RejectionCode.TASK_NOT_CANCELABLE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionCode.TASK_NOT_RETRYABLE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionCode.TASK_NOT_ERASABLE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionCode.TASK_NOT_PROCESSING: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionCode.TASK_NOT_WAITING: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionCode.STALE_ATTEMPT: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionCode.IDEMPOTENCY_CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    RejectionCode.VERSION_CONFLICT: grpc.StatusCode.ABORTED,
    RejectionCode.TOO_MANY_LIMITS: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionCode.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RejectionCode.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}

LATER: Final = frozenset((grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE))
"""Of these, trying again later may help."""

RETRY_AFTER_S: Final = "1"

DETAILS_BYTES_MAX: Final = 4_096
"""Clients accept 8 KiB of metadata in all."""

MESSAGE_CHARACTERS_MAX: Final = 500

Metadata = tuple[tuple[str, str], ...]


def error_metadata(error: ApiError) -> Metadata:
    """The trailing metadata of an error."""
    found = [("error-code", str(error.code)), ("error-details", _details(error.details))]
    if STATUSES[error.code] in LATER:
        found.append(("retry-after", RETRY_AFTER_S))
    return tuple(found)


def error_message(error: ApiError) -> str:
    """What is told to people."""
    return error.message[:MESSAGE_CHARACTERS_MAX]


def _details(details: Mapping[str, Any]) -> str:
    text = _ascii(details)
    if len(text) > DETAILS_BYTES_MAX:
        text = _ascii({name: v for name, v in details.items() if not isinstance(v, list)})
    return text if len(text) <= DETAILS_BYTES_MAX else "{}"


def _ascii(value: object) -> str:
    """As JSON in ASCII, as metadata has to be."""
    text = msgspec.json.encode(value).decode()
    return text if text.isascii() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isascii():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
