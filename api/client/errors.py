"""What a client raises: one exception for each code that a caller may want to catch by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from api.client.answers import Task


class LedgerqError(Exception):
    """Whatever went wrong with a call.

    `code` is what programs branch on, `status` the HTTP status (0: there was no answer), `details`
    what may help to mend it, `request_id` what the service's log calls the request.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int = 0,
        details: Mapping[str, Any] | None = None,
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{message} ({code})")
        self.message = message
        self.code = code
        self.status = status
        self.details = details or {}
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        """What the service asked for with `Retry-After`."""
        self.calls = 1
        """How often the call was made."""
        self.submitted: Sequence[Task] = ()
        """Of `submit_many`: the tasks of the requests that went well before this one."""

    def __reduce__(self) -> tuple[Any, ...]:
        """To go from one process to another, as those of a pool send what they raise."""
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[LedgerqError], arguments: tuple[Any, ...]) -> LedgerqError:
    error = kind.__new__(kind)
    error.args = arguments
    return error


class Unreachable(LedgerqError):
    """No answer: nobody listens there, the line broke, or it took too long."""

    def __init__(self, message: str, *, may_be_done: bool, timeout_s: float | None = None) -> None:
        super().__init__(message, code="UNREACHABLE")
        self.may_be_done = may_be_done
        """Whether the request may have arrived, and been carried out."""
        self.timeout_s = timeout_s
        """Where there was no answer in so many seconds."""


class UnexpectedAnswer(LedgerqError):
    """An answer that is not one of ledgerq's: a proxy's, or another service's."""


class Refused(LedgerqError):
    """The service answered with an error. The classes below are for what callers often catch;
    another code is a Refused of its status, or just this."""


class InvalidRequest(Refused):
    """400, and its like: `details` name the field, and what was expected."""


def unsendable(what: str, field: str, expected: str, given: str) -> InvalidRequest:
    """What the service would not take, known before it is sent."""
    return InvalidRequest(
        f"{what}: expected {expected}, got {given[:80]!r}",
        code="INVALID_REQUEST",
        status=400,
        details={"field": field, "expected": expected},
    )


class Unauthorized(Refused):
    """401: who asks?"""


class Forbidden(Refused):
    """403: not for who asks."""


class NotFound(Refused):
    """404: no such path, version or time."""


class TaskNotFound(NotFound):
    """There is no task with that id."""


class Conflict(Refused):
    """409: not as things stand."""


class TaskNotCancelable(Conflict):
    """It has finished."""


class TaskNotRetryable(Conflict):
    """It has neither failed nor been canceled."""


class TaskNotProcessing(Conflict):
    """No worker has it."""


class IdempotencyConflict(Conflict):
    """The key was used for another submission."""


class VersionConflict(Conflict):
    """The task is at another version than the one that was named."""


class PositionGone(Refused):
    """410: what came after the position is no longer kept."""


class PayloadTooLarge(Refused):
    """413."""


class Unavailable(Refused):
    """503, and what proxies say instead: it may be tried again, and was, as often as allowed."""


class QueueFull(Unavailable):
    """503: no room for more work."""


class NotSealed(Unavailable):
    """503: the archive has not got all events of the task yet."""


class RateLimited(Unavailable):
    """429: too many requests."""


class InternalError(Refused):
    """500: the service's own fault; its log has it under `request_id`."""


class TaskNotFinished(LedgerqError, TimeoutError):
    """The time that was given to `wait` is up; `task` is as it was then."""

    def __init__(self, task: Task, seconds: float) -> None:
        super().__init__(
            f"task {task.id} is {task.status} after {seconds:g} s", code="TASK_NOT_FINISHED"
        )
        self.task = task


BY_CODE: Final[Mapping[str, type[Refused]]] = {
    "TASK_NOT_FOUND": TaskNotFound,
    "TASK_NOT_CANCELABLE": TaskNotCancelable,
    "TASK_NOT_RETRYABLE": TaskNotRetryable,
    "TASK_NOT_PROCESSING": TaskNotProcessing,
    "IDEMPOTENCY_CONFLICT": IdempotencyConflict,
    "VERSION_CONFLICT": VersionConflict,
    "QUEUE_FULL": QueueFull,
    "NOT_SEALED": NotSealed,
}
BY_STATUS: Final[Mapping[int, type[Refused]]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: InvalidRequest,
    409: Conflict,
    410: PositionGone,
    413: PayloadTooLarge,
    415: InvalidRequest,
    429: RateLimited,
    431: InvalidRequest,
    500: InternalError,
    503: Unavailable,
}


def class_of(code: str, status: int) -> type[Refused]:
    """The exception of an answer: by its code, else by its status."""
    return BY_CODE.get(code) or BY_STATUS.get(status, Refused)
