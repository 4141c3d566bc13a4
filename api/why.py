"""Why a task stands where it stands: a function of the task and of what is known around it."""

from collections.abc import Sequence
from typing import Final

import msgspec

from api.reasons import (
    AboutToStart,
    AllWorkersBusy,
    BehindOthers,
    BeingCanceled,
    CallbackEnded,
    CallbackWaits,
    Claimed,
    DelayedUntil,
    Finished,
    Limited,
    NotReleased,
    NoWorkerForType,
    Paused,
    QueueAhead,
    Reason,
    RetryingAt,
    Running,
    WorkerLost,
)
from api.wire import moment_text
from ledger.callbacks import host_of
from ledger.events import Priority
from ledger.placement import Callback, Due, Leased, Nowhere, Ready, callback_at, placement
from ledger.store import Waiting
from ledger.system.events import LimitScope
from ledger.system.state import Pause
from ledger.task import Status, Task
from ledger.workers import WorkerSeen, WorkerState

OVERDUE_GRACE_MS: Final = 3_000
"""What should have happened so long ago, and has not, is missed: nobody is there to do it."""

TYPES_NAMED_MAX: Final = 20
"""Task types that a message lists."""


class LimitMet(msgspec.Struct, frozen=True):
    """A limit, what the task's partition has of it, and how many tasks count against that: as many
    as may, or more."""

    scope: LimitScope
    name: str
    limit: int
    share: int
    admitted: int


class Facts(msgspec.Struct, frozen=True):
    """What is known around a task. Times in ms, in the ledger's clock."""

    now_ms: int
    workers: Sequence[WorkerSeen]
    queue_position: int
    waiting: Waiting
    """Of the task's type."""
    lease_until: int | None
    """When the running attempt's lease ends unless it is renewed; None when it holds none."""
    pause: Pause | None = None
    """Of the task's type."""
    held_back_by: Sequence[LimitMet] = ()
    """Limits that keep the task from being next, as far as it stands in a backlog."""


def reasons(task: Task, facts: Facts) -> list[Reason]:
    """Why the task is where it is; what holds it up most comes first. Never empty."""
    match placement(task):
        case Callback() | Nowhere():
            return _of_the_end(task, facts)
        case Leased():
            return [_of_the_attempt(task, facts)]
        case Due(at_ms):
            delay = _of_the_delay(task, at_ms, facts.now_ms)
            return [delay, *_of_the_pause(task, facts), *_of_missing_workers(task, facts)]
        case Ready():
            return _of_waiting(task, facts)


# -- waiting --------------------------------------------------------------------------------------


def _of_the_delay(task: Task, at_ms: int, now_ms: int) -> Reason:
    until, left_ms = moment_text(at_ms), at_ms - now_ms
    if left_ms < -OVERDUE_GRACE_MS:
        message = (
            f"Its time came {_span(-left_ms)} ago, at {until}, and no scheduler has released it. "
            "Is `ledgerq scheduler` (or `ledgerq up`) running?"
        )
        return NotReleased(until=until, overdue_seconds=_seconds(-left_ms), message=message)
    seconds = _seconds(max(left_ms, 0))
    if task.status is Status.QUEUED:
        message = f"It is scheduled for {until}, in {_span(left_ms)}; nothing is to be done."
        return DelayedUntil(until=until, seconds=seconds, message=message)
    state, retries_max = task.state, task.submission.max_retries
    put_off = f", and put off {state.postponements} times by its handler" * (
        state.postponements > 0
    )
    return RetryingAt(
        until=until,
        seconds=seconds,
        retry_count=state.retry_count,
        max_retries=retries_max,
        message=f"Attempt {state.attempt} failed ({_error(task)}). It is tried again at {until}, "
        f"in {_span(left_ms)}: retry {state.retry_count} of {retries_max}{put_off}.",
    )


def _of_waiting(task: Task, facts: Facts) -> list[Reason]:
    missing = [*_of_the_pause(task, facts), *_of_missing_workers(task, facts)]
    if not facts.queue_position:
        message = (
            "A worker has taken it, and its start is being written. If that worker is gone, "
            "another one takes the task within a few seconds."
        )
        return [*missing, Claimed(message=message)]
    limits = map(_of_the_limit, facts.held_back_by)
    held_up = [*missing, *limits, *_of_busy_workers(task, facts), *_of_the_queue(task, facts)]
    if held_up:
        return held_up
    message = "It is next, and a worker that serves its type has room: it starts at once."
    return [AboutToStart(message=message)]


def _of_the_pause(task: Task, facts: Facts) -> list[Reason]:
    pause, task_type = facts.pause, task.submission.task_type
    if pause is None:
        return []
    since = moment_text(pause.since)
    why = f": {pause.reason}" if pause.reason else ", without a reason"
    message = (
        f"{pause.by or 'Somebody'} paused the queue of {task_type} at {since}{why}. "
        f"`ledgerq resume {task_type}` has its tasks taken again."
    )
    return [
        Paused(task_type=task_type, since=since, reason=pause.reason, by=pause.by, message=message)
    ]


def _of_the_limit(met: LimitMet) -> Reason:
    of = "the type" if met.scope is LimitScope.TYPE else "the kb_id"
    here = "" if met.share == met.limit else f" ({met.share} in the task's partition)"
    return Limited(
        scope=met.scope,
        name=met.name,
        limit=met.limit,
        share=met.share,
        admitted=met.admitted,
        message=f"No more than {_count(met.limit, 'task')} of {of} {met.name} may run at once"
        f"{here}, and {met.admitted} run or are next{' there' if here else ''}. Wait, or change "
        f"that: `ledgerq limit {met.scope.value} {met.name} N`.",
    )


def _taking(task: Task, facts: Facts) -> list[WorkerSeen]:
    task_type = task.submission.task_type
    return [w for w in facts.workers if w.takes_tasks and task_type in w.report.task_types]


def _of_missing_workers(task: Task, facts: Facts) -> list[Reason]:
    if _taking(task, facts):
        return []
    task_type = task.submission.task_type
    states = [w.state for w in facts.workers if task_type in w.report.task_types]
    draining, lost = states.count(WorkerState.DRAINING), states.count(WorkerState.LOST)
    others = [w for w in facts.workers if w.takes_tasks]
    told = [f"No worker takes tasks of the type {task_type}."]
    if draining or lost:
        told.append(f"Of those that did, {draining} are stopping and {lost} were lost.")
    if others:
        types = sorted({name for w in others for name in w.report.task_types})
        shown = ", ".join(types[:TYPES_NAMED_MAX])
        told.append(f"{_count(len(others), 'worker')} there for others: {shown}.")
    told.append(
        f'Start one that has a @handler("{task_type}"): `ledgerq worker --handlers MODULE`.'
    )
    return [
        NoWorkerForType(
            task_type=task_type,
            workers=len(others),
            draining=draining,
            lost=lost,
            message=" ".join(told),
        )
    ]


def _of_busy_workers(task: Task, facts: Facts) -> list[Reason]:
    taking = _taking(task, facts)
    if not taking or any(w.report.running < w.report.concurrency for w in taking):
        return []
    running = sum(w.report.running for w in taking)
    return [
        AllWorkersBusy(
            workers=len(taking),
            running=running,
            concurrency=sum(w.report.concurrency for w in taking),
            message=f"Workers for {task.submission.task_type}: {len(taking)}. They run "
            f"{_count(running, 'task')}, which is all they can at once. Wait, start another "
            "`ledgerq worker`, or raise --concurrency.",
        )
    ]


def _of_the_queue(task: Task, facts: Facts) -> list[Reason]:
    ahead = facts.queue_position - 1
    if not ahead:
        return []
    task_type, priority = task.submission.task_type, task.submission.priority
    order = list(Priority)
    queues = [QueueAhead(p, sum(facts.waiting[p])) for p in order[: order.index(priority)]]
    # The queues were counted a moment before or after the position was told.
    own = max(0, ahead - sum(q.tasks for q in queues))
    queues = [q for q in (*queues, QueueAhead(priority, own)) if q.tasks]
    where = ", ".join(f"{q.tasks} in {task_type}:{q.priority.value}" for q in queues)
    hint = "" if priority is order[0] else " With a higher priority it would be taken sooner."
    message = f"Taken before it: {_count(ahead, 'task')} of its type, {where}.{hint}"
    return [BehindOthers(tasks=ahead, queues=queues, message=message)]


# -- running --------------------------------------------------------------------------------------


def _of_the_attempt(task: Task, facts: Facts) -> Reason:
    state, now_ms, lease_until = task.state, facts.now_ms, facts.lease_until
    name, since = state.worker_id or "", state.started_at or state.updated_at
    worker = next((w for w in facts.workers if w.report.id == name), None)
    # Others than our own workers may hold tasks: a lease that holds says enough.
    if lease_until is None or lease_until <= now_ms or _is_lost(worker):
        return _lost(name, worker, facts)
    until, for_ms = moment_text(lease_until), now_ms - since
    return Running(
        worker_id=name,
        since=moment_text(since),
        seconds=_seconds(for_ms),
        attempt=state.attempt,
        lease_until=until,
        message=f"{name} has worked on attempt {state.attempt} for {_span(for_ms)}. It holds the "
        f"task until {until}, and longer with each heartbeat; after {task.submission.timeout_s} s "
        "of work it is stopped.",
    )


def _is_lost(worker: WorkerSeen | None) -> bool:
    return worker is not None and worker.state is WorkerState.LOST


def _lost(name: str, worker: WorkerSeen | None, facts: Facts) -> Reason:
    now_ms, ends_at = facts.now_ms, facts.lease_until
    heard_at = None if worker is None else worker.last_heartbeat
    heard = "is not there"
    if heard_at is not None:
        heard = f"was last heard {_span(now_ms - heard_at)} ago"
    until = None if ends_at is None else moment_text(ends_at)
    if ends_at is None:
        then = "Its lease is gone: what became of the attempt is being written."
    elif ends_at < now_ms - OVERDUE_GRACE_MS:
        then = (
            f"Its lease ran out at {until}, and no scheduler has ended the attempt. Is "
            "`ledgerq scheduler` (or `ledgerq up`) running?"
        )
    else:
        then = f"When its lease runs out, at {until}, the attempt has failed and is retried."
    return WorkerLost(
        worker_id=name,
        last_heartbeat=None if heard_at is None else moment_text(heard_at),
        lease_until=until,
        message=f"Its worker, {name}, {heard}. {then}",
    )


# -- after the end --------------------------------------------------------------------------------


def _of_the_end(task: Task, facts: Facts) -> list[Reason]:
    state = task.state
    ended_at = state.completed_at or state.updated_at
    at, again = moment_text(ended_at), f"`ledgerq retry {task.id}` queues it again."
    match state.status:
        case Status.FAILED:
            message = f"It failed at {at} ({_error(task)}). {again}"
        case Status.CANCELED:
            message = f"It was canceled at {at}. {again}"
        case _:
            message = f"It was completed at {at}; nothing is to be done."
    finished = Finished(status=state.status, completed_at=at, message=message)
    told = [finished, *_of_the_callback(task, facts.now_ms)]
    if state.status is not Status.CANCELED:
        return told
    at_it = [w for w in facts.workers if task.id in w.report.task_ids and not _is_lost(w)]
    return [*(_being_canceled(w.report.id, facts.now_ms - ended_at) for w in at_it), *told]


def _of_the_callback(task: Task, now_ms: int) -> list[Reason]:
    url, state = task.submission.callback_url, task.state
    if url is None:
        return []
    host, posts = host_of(url), _count(state.callback_attempts, "post")
    if state.callback_over:
        taken = state.callback_taken
        message = f"{host} took the news of that, after {posts}."
        if not taken:
            message = (
                f"{host} has not taken the news of that, after {posts}, and is not told any more. "
                f"`ledgerq history {task.id}` says why."
            )
        return [
            CallbackEnded(
                host=host, attempts=state.callback_attempts, delivered=taken, message=message
            )
        ]
    at_ms = callback_at(state)
    until, left_ms = moment_text(at_ms), at_ms - now_ms
    if left_ms < -OVERDUE_GRACE_MS:
        message = (
            f"{host} should have been told {_span(-left_ms)} ago. Is `ledgerq notifier` (or "
            "`ledgerq up`) running? If so, that host has more waiting than it takes at once."
        )
    elif state.callback_attempts:
        message = (
            f"{host} has not taken the news of that, after {posts}; it is posted again at {until}. "
            f"`ledgerq history {task.id}` says why."
        )
    else:
        message = f"{host} is being told."
    seconds = _seconds(max(left_ms, 0))
    return [
        CallbackWaits(
            host=host,
            attempts=state.callback_attempts,
            until=until,
            seconds=seconds,
            message=message,
        )
    ]


def _being_canceled(worker_id: str, for_ms: int) -> Reason:
    return BeingCanceled(
        worker_id=worker_id,
        seconds=_seconds(for_ms),
        message=f"Canceled {_span(for_ms)} ago, and its handler on {worker_id} has not stopped "
        "yet: the worker learns of it at its next heartbeat, an async handler ends at its next "
        "await. One in a thread cannot be stopped; its result is refused.",
    )


# -- words ----------------------------------------------------------------------------------------


def _error(task: Task) -> str:
    kind = task.state.error_kind
    return f"{kind.value if kind else 'error'}: {task.state.error_message or 'no message'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _seconds(ms: int) -> float:
    return round(ms / 1000, 3)


def _span(ms: int) -> str:
    """A length of time in words."""
    seconds = max(ms, 0) / 1000
    for limit, unit, size in ((120, "s", 1), (7_200, "min", 60), (172_800, "h", 3_600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
