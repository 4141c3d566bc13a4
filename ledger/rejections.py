"""Every reason a command can be refused, and which are worth sending again."""

from enum import StrEnum


class RejectionCode(StrEnum):
    """A closed set. The REST contract's error codes where a caller can meet them."""

    TASK_NOT_FOUND = "TASK_NOT_FOUND"
    TASK_NOT_CANCELABLE = "TASK_NOT_CANCELABLE"
    TASK_NOT_RETRYABLE = "TASK_NOT_RETRYABLE"
    TASK_NOT_PROCESSING = "TASK_NOT_PROCESSING"
    TASK_NOT_ERASABLE = "TASK_NOT_ERASABLE"
    TASK_NOT_WAITING = "TASK_NOT_WAITING"
    STALE_ATTEMPT = "STALE_ATTEMPT"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    QUEUE_FULL = "QUEUE_FULL"
    TOO_MANY_LIMITS = "TOO_MANY_LIMITS"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"


RETRYABLE = frozenset(
    {
        RejectionCode.VERSION_CONFLICT,
        RejectionCode.QUEUE_FULL,
        RejectionCode.SERVICE_UNAVAILABLE,
    }
)
"""The same command may succeed later, unchanged."""


class Rejection(Exception):
    """A command that was refused; the ledger is unchanged."""

    def __init__(self, code: RejectionCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def retryable(self) -> bool:
        """Whether the same command may succeed later, unchanged."""
        return self.code in RETRYABLE
