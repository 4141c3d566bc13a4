"""The reasons that a task can have for standing where it stands: a closed set, each with a code."""

import msgspec

from ledger.events import Priority
from ledger.system.events import LimitScope
from ledger.task import Status


class _Reason(msgspec.Struct, frozen=True, tag_field="code", kw_only=True):
    message: str
    """In plain words, and what to do."""


class DelayedUntil(_Reason, frozen=True, tag="delayed_until"):
    """It was submitted for later."""

    until: str
    seconds: float


class RetryingAt(_Reason, frozen=True, tag="retrying_at"):
    """An attempt failed, and the next one has to wait."""

    until: str
    seconds: float
    retry_count: int
    max_retries: int


class NotReleased(_Reason, frozen=True, tag="not_released"):
    """Its time has come, and no scheduler has noticed."""

    until: str
    overdue_seconds: float


class Paused(_Reason, frozen=True, tag="paused"):
    """Somebody paused its queue."""

    task_type: str
    since: str
    reason: str
    by: str


class Limited(_Reason, frozen=True, tag="limited"):
    """As many tasks of its type, or of its knowledge base, run or are next as may."""

    scope: LimitScope
    name: str
    limit: int
    share: int
    """Of the limit, what the task's partition may admit: all of it where there is one partition."""
    admitted: int
    """In the task's partition."""


class NoWorkerForType(_Reason, frozen=True, tag="no_worker_for_type"):
    """Nobody takes tasks of its type. Counted are the workers that would, but for their state."""

    task_type: str
    workers: int
    draining: int
    lost: int


class AllWorkersBusy(_Reason, frozen=True, tag="all_workers_busy"):
    """Those that serve its type have no slot free."""

    workers: int
    running: int
    concurrency: int


class QueueAhead(msgspec.Struct, frozen=True):
    """A queue, and how many of it are taken before the task."""

    priority: Priority
    tasks: int


class BehindOthers(_Reason, frozen=True, tag="behind_others"):
    """It is not the next to be taken."""

    tasks: int
    queues: list[QueueAhead]


class AboutToStart(_Reason, frozen=True, tag="about_to_start"):
    """Nothing holds it up."""


class Claimed(_Reason, frozen=True, tag="claimed"):
    """A worker has taken it, and its start is not written yet."""


class Running(_Reason, frozen=True, tag="running"):
    """A worker works on it."""

    worker_id: str
    since: str
    seconds: float
    attempt: int
    lease_until: str | None


class WorkerLost(_Reason, frozen=True, tag="worker_lost"):
    """Its worker is silent, or gone."""

    worker_id: str
    last_heartbeat: str | None
    lease_until: str | None


class BeingCanceled(_Reason, frozen=True, tag="being_canceled"):
    """The cancel is recorded, and its handler has not stopped yet."""

    worker_id: str
    seconds: float


class CallbackWaits(_Reason, frozen=True, tag="callback_waits"):
    """Its callback_url has not taken the news of its end yet."""

    host: str
    attempts: int
    until: str
    seconds: float


class CallbackEnded(_Reason, frozen=True, tag="callback_ended"):
    """Its callback_url took the news of its end, or is not told any more: `delivered` is which of
    the two."""

    host: str
    attempts: int
    delivered: bool


class Finished(_Reason, frozen=True, tag="finished"):
    """It has come to its end."""

    status: Status
    completed_at: str | None


Reason = (
    DelayedUntil
    | RetryingAt
    | NotReleased
    | Paused
    | Limited
    | NoWorkerForType
    | AllWorkersBusy
    | BehindOthers
    | AboutToStart
    | Claimed
    | Running
    | WorkerLost
    | BeingCanceled
    | CallbackWaits
    | CallbackEnded
    | Finished
)
