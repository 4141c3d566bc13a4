"""What a task is: the caller's submission, which never changes, and the state that events make."""

from enum import StrEnum
from typing import Final

import msgspec

from ledger.events import ErrorKind, Priority, TaskSubmitted

__all__ = ["FINISHED", "ErrorKind", "Priority", "State", "Status", "Task"]


class Status(StrEnum):
    """Where a task stands in its life."""

    QUEUED = "queued"
    PROCESSING = "processing"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


FINISHED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELED})
"""Statuses that no worker can change any more."""


NO_RESULT: Final = msgspec.Raw(b"")
"""Stands where there is none; it is left out of the JSON."""


class State(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The part of a task that events change; stored as the snapshot's `state`.

    Times are milliseconds since the epoch, in the ledger's clock. The field names are the storage
    format: golden files guard them.
    """

    status: Status
    created_at: int
    updated_at: int
    attempt: int = 0
    """Starts so far. The number of the running attempt is its fencing token."""
    retry_count: int = 0
    postponements: int = 0
    """How often a handler put the task off; not among the retries."""
    waiting_until: int | None = None
    """Not to be taken before this time: a schedule or a retry. None once released."""
    lease_ms: int = 0
    worker_id: str | None = None
    progress: int = 0
    message: str = ""
    started_at: int | None = None
    completed_at: int | None = None
    error_message: str = ""
    error_kind: ErrorKind | None = None
    result: msgspec.Raw = NO_RESULT
    """JSON as the handler returned it; empty when there is none."""
    callback_attempts: int = 0
    """How often the callback_url was told of this end, or was tried to be."""
    callback_failed_at: int | None = None
    """When that came to nothing for the first time."""
    callback_retry_at: int | None = None
    """When it is tried again; None before the first time, which is at once."""
    callback_over: bool = False
    """It was told, or it is not tried any more."""
    erased: bool = False
    """What the task was about was removed: see `events.TaskErased`."""
    trace: str = ""
    """The W3C traceparent of the manual retry that this life began with, if it had one."""

    @property
    def callback_taken(self) -> bool:
        """Whether the callback_url has taken the news of the end: it is over, and the last failure,
        if there was one, was not the last post. Erased tasks have no callback_url any more."""
        may_follow = self.callback_failed_at is None or self.callback_retry_at is not None
        return self.callback_over and may_follow


class Task(msgspec.Struct, frozen=True, gc=False):
    """One task at one version: `version` events have happened to it."""

    id: str
    version: int
    submission: TaskSubmitted
    state: State

    @property
    def status(self) -> Status:
        return self.state.status

    @property
    def finished(self) -> bool:
        return self.state.status in FINISHED

    @property
    def trace(self) -> str:
        """The W3C traceparent of the request that brought about what happens to the task now: its
        submission, or the manual retry since. Empty when neither had one."""
        return self.state.trace or self.submission.trace

    @property
    def ending(self) -> int:
        """The version at which a finished task came to its end: since then, nothing but posts to
        its callback_url has happened to it, until it was erased."""
        return self.version - self.state.callback_attempts - self.state.erased
