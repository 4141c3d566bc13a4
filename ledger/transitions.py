"""Which event may follow in which status, and the status that it leads to: one table.

`None` stands for a task that does not exist yet. The diagram in the docs is drawn from here.
"""

from ledger.events import (
    AttemptFailed,
    CallbackDelivered,
    CallbackFailed,
    Event,
    RetryScheduled,
    TaskCanceled,
    TaskCompleted,
    TaskErased,
    TaskFailed,
    TaskProgressed,
    TaskReleased,
    TaskRetried,
    TaskStarted,
    TaskSubmitted,
)
from ledger.task import Status

TRANSITIONS: dict[tuple[Status | None, type[Event]], Status] = {
    (None, TaskSubmitted): Status.QUEUED,
    (Status.QUEUED, TaskReleased): Status.QUEUED,
    (Status.QUEUED, TaskStarted): Status.PROCESSING,
    (Status.QUEUED, TaskCanceled): Status.CANCELED,
    (Status.PROCESSING, TaskProgressed): Status.PROCESSING,
    (Status.PROCESSING, TaskCompleted): Status.COMPLETED,
    (Status.PROCESSING, AttemptFailed): Status.RETRYING,
    (Status.PROCESSING, TaskCanceled): Status.CANCELED,
    (Status.RETRYING, RetryScheduled): Status.RETRYING,
    (Status.RETRYING, TaskFailed): Status.FAILED,
    (Status.RETRYING, TaskReleased): Status.QUEUED,
    (Status.RETRYING, TaskCanceled): Status.CANCELED,
    (Status.FAILED, TaskRetried): Status.QUEUED,
    (Status.CANCELED, TaskRetried): Status.QUEUED,
    (Status.COMPLETED, CallbackDelivered): Status.COMPLETED,
    (Status.COMPLETED, CallbackFailed): Status.COMPLETED,
    (Status.FAILED, CallbackDelivered): Status.FAILED,
    (Status.FAILED, CallbackFailed): Status.FAILED,
    (Status.CANCELED, CallbackDelivered): Status.CANCELED,
    (Status.CANCELED, CallbackFailed): Status.CANCELED,
    (Status.COMPLETED, TaskErased): Status.COMPLETED,
    (Status.FAILED, TaskErased): Status.FAILED,
    (Status.CANCELED, TaskErased): Status.CANCELED,
}

OF_CALLBACKS: frozenset[type[Event]] = frozenset({CallbackDelivered, CallbackFailed})
"""They tell what became of the news of a task's end, and leave the task as it is."""

AFTER_THE_END: frozenset[type[Event]] = OF_CALLBACKS | {TaskErased}
"""They happen to finished tasks, whose status stays as it is."""

STATUS_AFTER: dict[str, Status] = {
    kind.__name__: status for (_, kind), status in TRANSITIONS.items() if kind not in AFTER_THE_END
}
"""By an event's stored name. Whatever a task was before, each kind of event leads to one status;
those that leave it as it is are not here."""


class IllegalTransition(Exception):
    """An event that cannot follow: the history is damaged, or written by something else."""


def next_status(status: Status | None, kind: type[Event]) -> Status:
    """The status after an event of `kind`. Raises IllegalTransition where it cannot follow."""
    try:
        return TRANSITIONS[status, kind]
    except KeyError:
        before = "no task" if status is None else f"a {status} task"
        raise IllegalTransition(f"{kind.__name__} cannot happen to {before}") from None
