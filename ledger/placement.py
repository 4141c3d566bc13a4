"""Where a task waits: a pure function of its state, carried out by `append.lua`."""

from typing import Final

import msgspec

from ledger.callbacks import host_of
from ledger.events import Priority
from ledger.task import State, Status, Task


class Queue(msgspec.Struct, frozen=True, gc=False):
    """Tasks of one type and one priority, in the order in which they became ready."""

    task_type: str
    priority: Priority


class Ready(msgspec.Struct, frozen=True, gc=False):
    """In a dispatch stream, for any worker to take."""

    queue: Queue


class Due(msgspec.Struct, frozen=True, gc=False):
    """Not to be taken before `at_ms`."""

    at_ms: int


class Leased(msgspec.Struct, frozen=True, gc=False):
    """Held by the worker that runs `attempt`, for `lease_ms` from when the event is written."""

    attempt: int
    lease_ms: int


class Callback(msgspec.Struct, frozen=True, gc=False):
    """Finished: `host` is to be told of it, not before `at_ms`."""

    at_ms: int
    host: str
    """With its port. Those that wait for one host do so in a line of their own."""


class Nowhere(msgspec.Struct, frozen=True, gc=False):
    """Finished: nothing is to be done."""


STAGED_MAX: Final = 16
"""How many ready tasks of a queue stand in line whatever their kb_ids; behind them the kb_ids take
turns. A kb_id's first task waits behind so many at most, and behind one of each other kb_id."""


NOWHERE: Final = Nowhere()

Place = Ready | Due | Leased | Callback | Nowhere


def queue_of(task: Task) -> Queue:
    """The queue that the task waits in whenever it is ready."""
    return Queue(task.submission.task_type, task.submission.priority)


def callback_at(state: State) -> int:
    """When the callback_url of a finished task is to be told, in ms: of its end at once."""
    if state.callback_retry_at is not None:
        return state.callback_retry_at
    return state.updated_at if state.completed_at is None else state.completed_at


def placement(task: Task) -> Place:
    """Where the task belongs now."""
    state = task.state
    match state.status:
        case Status.PROCESSING:
            return Leased(state.attempt, state.lease_ms)
        case Status.COMPLETED | Status.FAILED | Status.CANCELED:
            url = task.submission.callback_url
            if url is None or state.callback_over:
                return NOWHERE
            return Callback(callback_at(state), host_of(url))
        case Status.QUEUED | Status.RETRYING:
            if state.waiting_until is not None:
                return Due(state.waiting_until)
            return Ready(queue_of(task))
