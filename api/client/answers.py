"""What the service answers, as types.

Fields that a newer service adds are ignored, and words that it adds (a status, a kind of error) are
kept as text. Times are in UTC.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from ledger.task import FINISHED
from ledger.transitions import STATUS_AFTER

_FINISHED: Final = frozenset(map(str, FINISHED))


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it was when the service answered."""

    id: str
    task_type: str
    kb_id: str
    status: str
    """queued, processing, retrying, completed, failed or canceled."""
    version: int
    """How many events have happened to it."""
    priority: str = "normal"
    payload: dict[str, Any] = {}
    result: Any = None
    """What the handler returned."""
    progress: int = 0
    message: str = ""
    retry_count: int = 0
    max_retries: int = 0
    timeout: int = 0
    """Seconds for an attempt."""
    error_message: str = ""
    error_kind: str | None = None
    """retryable, permanent, timeout or worker_lost."""
    worker_id: str | None = None
    schedule_for: datetime | None = None
    retry_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    estimated_completion: datetime | None = None
    queue_position: int = 0
    callback_url: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Whether it is completed, failed or canceled."""
        return self.status in _FINISHED


class TaskList(msgspec.Struct, frozen=True):
    """The tasks of a batch, in its order."""

    tasks: list[Task]


class Pagination(msgspec.Struct, frozen=True, kw_only=True):
    """Where a page stands; `page` is None behind a cursor, `next_cursor` on the last page."""

    page: int | None = None
    page_size: int
    total: int
    total_pages: int
    next_cursor: str | None = None


class TaskPage(msgspec.Struct, frozen=True):
    """A page of a list, and how many tasks match in all."""

    tasks: list[Task]
    total: int
    pagination: Pagination

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


class Canceled(msgspec.Struct, frozen=True):
    """That a task is canceled."""

    task_id: str
    message: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to a task; `data` depends on the `type`, see docs/events.md."""

    position: str
    """Where it stands in the ledger."""
    type: str
    """Such as TaskSubmitted, TaskStarted, TaskProgressed, TaskCompleted."""
    version: int
    """The task's, from this event on."""
    at: datetime
    data: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None


class History(msgspec.Struct, frozen=True):
    """All that happened to a task, oldest first."""

    task_id: str
    events: list[Event]


class Update(Event, frozen=True, kw_only=True):
    """An event, and what its task is from then on. `task_id` is `system` for what happened to the
    service itself; the three others are None then."""

    task_id: str
    kb_id: str | None = None
    task_type: str | None = None
    status: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the task is completed, failed or canceled now."""
        return self.status in _FINISHED

    @property
    def progress(self) -> int | None:
        """In percent, of an event that tells it."""
        if self.type == "TaskCompleted":
            return 100
        return self._said("progress")

    @property
    def message(self) -> str | None:
        """The progress message, of an event that tells one."""
        return self._said("message")

    @property
    def result(self) -> Any:
        """Of TaskCompleted: what the handler returned."""
        return self._said("result")

    @property
    def error_message(self) -> str | None:
        """Of a failed attempt, and of the failed task."""
        return self._said("error_message")

    def _said(self, name: str) -> Any:
        return (self.data or {}).get(name)


def updates_of(history: History) -> list[Update]:
    """A task's history as a feed would have told it."""
    told: list[Update] = []
    kb_id = task_type = status = None
    for event in history.events:
        if event.type == "TaskSubmitted" and event.data is not None:
            kb_id, task_type = event.data.get("kb_id"), event.data.get("task_type")
        # An event that this client does not know leaves the status as it is.
        known = STATUS_AFTER.get(event.type)
        status = status if known is None else str(known)
        told.append(
            Update(
                position=event.position,
                type=event.type,
                version=event.version,
                at=event.at,
                data=event.data,
                meta=event.meta,
                task_id=history.task_id,
                kb_id=kb_id,
                task_type=task_type,
                status=status,
            )
        )
    return told


class TaskStats(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks there are of each kind, and how they fared."""

    total_tasks: int
    queued_tasks: int = 0
    processing_tasks: int = 0
    retrying_tasks: int = 0
    completed_tasks: int = 0
    failed_tasks: int = 0
    canceled_tasks: int = 0
    avg_process_time: float | None = None
    """Mean seconds from start to completion; None without completed tasks."""
    success_rate: float = 0.0
    """Completed of all, in percent."""
    status_breakdown: Mapping[str, int] = {}
    type_breakdown: Mapping[str, int] = {}
    priority_breakdown: Mapping[str, int] = {}


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as it last showed itself."""

    id: str
    status: str
    """idle, busy, draining or lost."""
    current_task_ids: Sequence[str] = ()
    tasks_processed: int = 0
    tasks_succeeded: int = 0
    tasks_failed: int = 0
    last_heartbeat: datetime | None = None
    started_at: datetime | None = None
    average_task_time: float | None = None
    task_types: Sequence[str] = ()
    concurrency: int = 0
    running: int = 0
    host: str = ""
    pid: int = 0


class SystemStats(msgspec.Struct, frozen=True, kw_only=True):
    """The workers, how much waits, and how fast it is worked off."""

    total_workers: int
    active_workers: int = 0
    idle_workers: int = 0
    busy_workers: int = 0
    queue_size: int = 0
    processing_rate: float = 0.0
    """Tasks finished per minute."""
    workers: Sequence[Worker] = ()
    task_stats: TaskStats
    projection_lag: Mapping[str, Any] = {}


class QueueRow(msgspec.Struct, frozen=True, kw_only=True):
    """One queue."""

    task_type: str
    priority: str
    size: int
    delayed: int = 0
    processing: int = 0
    oldest_age_seconds: float | None = None


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What waits; each queue stands in `queues` when neither a type nor a priority was named."""

    queue_size: int
    queue_key: str = ""
    delayed: int = 0
    processing: int = 0
    oldest_age_seconds: float | None = None
    queues: Sequence[QueueRow] = ()
