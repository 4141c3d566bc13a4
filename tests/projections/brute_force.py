"""What lists, statistics and queues must answer, told from whole tasks in plain Python."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ledger.placement import Due, Leased, Queue, Ready, placement, queue_of
from ledger.task import Priority, Status, Task
from projections.fingerprint import fingerprint
from projections.list_query import Filters, ListQuery, SortBy, SortOrder
from projections.queue_sizes import QueueSize
from projections.task_stats import Stats

ASCENDING = {
    SortBy.PRIORITY: ("low", "normal", "high", "critical"),
    SortBy.STATUS: ("queued", "processing", "retrying", "completed", "failed", "canceled"),
}


def matching(tasks: Iterable[Task], filters: Filters) -> list[Task]:
    """The tasks that satisfy every filter."""
    return [task for task in tasks if _matches(task, filters)]


def _matches(task: Task, filters: Filters) -> bool:
    state, submission = task.state, task.submission
    named = (
        (filters.kb_ids, submission.kb_id),
        (filters.statuses, state.status),
        (filters.task_types, submission.task_type),
        (filters.priorities, submission.priority),
        (filters.worker_ids, state.worker_id),
    )
    return (
        all(wanted is None or value in wanted for wanted, value in named)
        and (filters.created_after is None or state.created_at > filters.created_after)
        and (filters.created_before is None or state.created_at < filters.created_before)
        and (
            filters.text is None or filters.text.casefold() in state.error_message.casefold() != ""
        )
        and (filters.fingerprints is None or fingerprint_of(task) in filters.fingerprints)
    )


def fingerprint_of(task: Task) -> bytes | None:
    """The kind of its failure; None of what has not failed."""
    kind = task.state.error_kind
    if task.status is not Status.FAILED or kind is None:
        return None
    return fingerprint(task.submission.task_type, kind, task.state.error_message)


def ordered(tasks: Sequence[Task], query: ListQuery) -> list[str]:
    """Their ids in the order that is asked for."""
    descending = query.sort_order is SortOrder.DESC

    def by_creation(task: Task) -> tuple[Any, ...]:
        return task.state.created_at, task.id

    match query.sort_by:
        case SortBy.PRIORITY | SortBy.STATUS:
            ranks = ASCENDING[query.sort_by]
            first = "priority" if query.sort_by is SortBy.PRIORITY else "status"

            def rank(task: Task) -> tuple[Any, ...]:
                value = task.submission.priority if first == "priority" else task.status
                return (ranks.index(value), *by_creation(task))

            found = sorted(tasks, key=rank, reverse=descending)
        case SortBy.TASK_TYPE:
            found = sorted(
                tasks,
                key=lambda task: (task.submission.task_type, *by_creation(task)),
                reverse=descending,
            )
        case _:
            column = query.sort_by.value
            timed = [task for task in tasks if getattr(task.state, column) is not None]
            timed.sort(key=lambda t: (getattr(t.state, column), t.id), reverse=descending)
            others = [task for task in tasks if getattr(task.state, column) is None]
            found = [*timed, *sorted(others, key=by_creation, reverse=descending)]
    return [task.id for task in found]


def stats(tasks: Iterable[Task], filters: Filters) -> Stats:
    """Counts of those that match."""
    found = matching(tasks, filters)
    spent_ms = 0
    for task in found:
        if task.status is Status.COMPLETED:
            assert task.state.completed_at is not None
            assert task.state.started_at is not None
            spent_ms += task.state.completed_at - task.state.started_at
    by_status = dict.fromkeys(Status, 0) | Counter(task.status for task in found)
    by_type = dict(sorted(Counter(task.submission.task_type for task in found).items()))
    every = Counter(task.submission.priority for task in found)
    by_priority = {priority: every[priority] for priority in Priority}
    return Stats(by_status, by_type, by_priority, spent_ms)


def queues(tasks: Iterable[Task]) -> dict[Queue, QueueSize]:
    """Those in which anything waits or runs."""
    found: dict[Queue, QueueSize] = {}
    for task in tasks:
        queue = queue_of(task)
        old = found.get(queue) or QueueSize(queue, 0, 0, 0, None)
        ready, delayed, processing, since = old.ready, old.delayed, old.processing, old.oldest_since
        match placement(task):
            case Ready():
                ready += 1
                since = min(since or task.state.updated_at, task.state.updated_at)
            case Due():
                delayed += 1
            case Leased():
                processing += 1
            case _:
                continue
        found[queue] = QueueSize(queue, ready, delayed, processing, since)
    return found
