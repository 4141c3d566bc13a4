"""The views of `ledgerq replay`: what the events up to a moment come to."""

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

import msgspec

from api.cli.output import print_json, print_table, printable
from api.replay.chosen import Filters, in_order
from api.replay.span import Span
from api.task_stats import TaskStats, stats_view
from api.wire import task_json, time_text
from ledger.archive.joined import Joined
from ledger.task import Task
from projections.ended_tasks import EndedTasks
from projections.lives import Counts, Life, Lives, queues_of
from projections.queue_sizes import QueueSize

View = Literal["stats", "queues", "tasks"]
Progress = Callable[[int], None]


class Shown(Protocol):
    """Prints what was made."""

    def __call__(self, *, as_json: bool) -> None: ...


class Queued(msgspec.Struct, frozen=True):
    """A queue, for programs."""

    task_type: str
    priority: str
    size: int
    delayed: int
    processing: int
    oldest_since: str | None


async def print_view(
    events: Joined, span: Span, filters: Filters, view: View, progress: Progress
) -> Shown:
    """Fold, and say how to print what came of it. Raises Unfoldable, and as Joined."""
    match view:
        case "stats":
            return await _stats(events, span, filters, progress)
        case "queues":
            return await _queues(events, span, filters, progress)
        case "tasks":
            return await _tasks(events, span, filters, progress)


async def _fold(
    events: Joined, span: Span, filters: Filters, lives: Lives, progress: Progress
) -> None:
    async with contextlib.aclosing(in_order(events, span)) as pieces:
        async for piece in pieces:
            some = span.cut(piece)
            if filters.tasks is not None:
                some = [event for event in some if event.task_id in filters.tasks]
            await lives.take(some)
            progress(len(piece))


async def _stats(events: Joined, span: Span, filters: Filters, progress: Progress) -> Shown:
    counts = Counts()
    lives = Lives(events.history, counts.ended, counts.returned)
    await _fold(events, span, filters, lives, progress)
    found = stats_view(counts.stats(lives.living.values(), filters.kb_ids, filters.task_types))
    return partial(_show_stats, found)


def _show_stats(found: TaskStats, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    average = found.avg_process_time
    print_table(
        ("by", "of", "tasks"),
        [
            ("all", "", f"{found.total_tasks}"),
            *(("status", name.value, f"{n}") for name, n in found.status_breakdown.items()),
            *(("type", name, f"{n}") for name, n in found.type_breakdown.items()),
            *(("priority", name.value, f"{n}") for name, n in found.priority_breakdown.items()),
            ("success rate", "", f"{found.success_rate:g} %"),
            ("mean time", "", "-" if average is None else f"{average:.3g} s"),
        ],
    )


async def _queues(events: Joined, span: Span, filters: Filters, progress: Progress) -> Shown:
    lives = Lives(events.history, _nothing, _nothing)
    await _fold(events, span, filters, lives, progress)
    rows = [_queued(size) for size in queues_of(lives.living.values(), filters.kb_ids)]
    if filters.task_types is not None:
        rows = [row for row in rows if row.task_type in filters.task_types]
    return partial(_show_queues, rows)


def _nothing(_: str, _life: Life) -> None:
    pass


def _queued(size: QueueSize) -> Queued:
    queue = size.queue
    since = time_text(size.oldest_since)
    return Queued(
        queue.task_type, queue.priority.value, size.ready, size.delayed, size.processing, since
    )


def _show_queues(rows: list[Queued], *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    if not rows:
        sys.stderr.write("ledgerq: nothing waited and nothing ran\n")
        return
    print_table(
        ("type", "priority", "waiting", "delayed", "processing", "oldest since"),
        [
            (
                *(row.task_type, row.priority, f"{row.size}", f"{row.delayed}"),
                *(f"{row.processing}", row.oldest_since or "-"),
            )
            for row in rows
        ],
    )


async def _tasks(events: Joined, span: Span, filters: Filters, progress: Progress) -> Shown:
    ended = EndedTasks()
    lives = Lives(events.history, ended.ended, ended.returned, with_payloads=True)
    await _fold(events, span, filters, lives, progress)

    def wanted(task: Task) -> bool:
        kbs, types, submission = filters.kb_ids, filters.task_types, task.submission
        return (kbs is None or submission.kb_id in kbs) and (
            types is None or submission.task_type in types
        )

    def show(*, as_json: bool) -> None:
        for task in filter(wanted, ended.tasks(lives.living)):
            sys.stdout.write(_json_line(task) if as_json else _line(task))
        ended.close()

    return show


def _json_line(task: Task) -> str:
    return msgspec.json.format(task_json(task, 0), indent=-1).decode() + "\n"


def _line(task: Task) -> str:
    submission, state = task.submission, task.state
    words = (
        task.id,
        state.status.value.ljust(10),
        submission.priority.value.ljust(8),
        time_text(state.updated_at) or "",
        f"{submission.task_type} {submission.kb_id}",
        state.error_message,
    )
    return printable("  ".join(words)).rstrip() + "\n"
