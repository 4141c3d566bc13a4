"""Carry a command out: load, decide, append, and again when somebody else was faster."""

from collections.abc import Collection, Sequence
from enum import Enum
from typing import Final

import msgspec

from ledger.codec import Meta
from ledger.commands import Command, SubmitTask
from ledger.decide import decide
from ledger.events import Event, Priority
from ledger.evolve import evolve, initial
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Append, Conflict, Full, Limited, Position, Store, Written
from ledger.task import Task

CONFLICTS_MAX: Final = 16
"""How often a command is decided again before its caller is told to come back later."""

NO_META: Final = Meta()


class _Unknown(Enum):
    UNKNOWN = "unknown"


UNKNOWN: Final = _Unknown.UNKNOWN
"""The caller does not know the task: load it first."""


class Committed(msgspec.Struct, frozen=True, gc=False):
    """A command that was carried out. `events` is empty, and `position` None, when its wish held
    already."""

    task: Task
    events: tuple[Event, ...]
    position: Position | None
    queue_position: int | None = None
    """Where in its ready queue the task waits, when that was asked for and it has just entered."""


async def transact(
    store: Store,
    task_id: str,
    command: Command,
    *,
    meta: Meta = NO_META,
    known: Task | _Unknown | None = UNKNOWN,
    now_ms: int | None = None,
    queue_max: int = 0,
    tell_queue_position: bool = False,
    expected_versions: Collection[int] | None = None,
    patient: bool = False,
) -> Committed:
    """Make `command` happen to the task, once.

    `known` saves a round trip when the caller has the task at hand (None: it does not exist); if
    that turns out to be out of date, it is loaded. `now_ms` is the ledger's clock unless given.
    `tell_queue_position` saves another, see `Committed.queue_position`. With `expected_versions`
    the command is meant for a task at one of these versions, and is not decided again on another.
    `patient`: see `Append.patient`.

    Raises Rejection: the domain's own, QUEUE_FULL, VERSION_CONFLICT when the task is at none of the
    versions expected, or others were faster CONFLICTS_MAX times, SERVICE_UNAVAILABLE when the
    ledger cannot be reached.
    """
    if known is UNKNOWN:
        # A submission under a new id meets nothing: the append itself says when that is wrong.
        task = None if isinstance(command, SubmitTask) else await store.load(task_id)
    else:
        task = known
    for _ in range(CONFLICTS_MAX):
        if expected_versions is not None and task is not None:
            _check_version(task.version, expected_versions)
        now = store.now_ms() if now_ms is None else now_ms
        events = decide(command, task, now)
        if not events:
            assert task is not None  # noqa: S101 - without a task, decide has events or raises
            return Committed(task, events, None)
        # Time never runs backwards within a task, whatever a clock does.
        at = now if task is None else max(now, task.state.updated_at)
        after = apply(task_id, task, events, at)
        traced = _traced(meta, after)
        step = Append(task, after, events, traced, queue_max, tell_queue_position, patient)
        match await store.append(step):
            case Written(position, queue_position):
                return Committed(after, events, position, queue_position)
            case Conflict(version):
                if expected_versions is not None:
                    raise _other_version(version)
                task = await store.load(task_id)
            case Full():
                raise queue_full(after.submission.task_type, after.submission.priority, queue_max)
            case Limited():
                raise Rejection(
                    RejectionCode.TASK_NOT_WAITING,
                    "the task waits behind a limit of its type or kb_id; it is handed out again",
                )
    raise Rejection(
        RejectionCode.VERSION_CONFLICT,
        f"the task was changed by others {CONFLICTS_MAX} times in a row; try again",
    )


async def transact_known(
    store: Store, wishes: Sequence[tuple[Task, Command]], meta: Meta
) -> list[Task | None]:
    """Make a command each happen to several tasks that the caller knows, in one go.

    Returns the tasks afterwards; None where it was not to be: refused by the domain, or the task
    has moved on. `transact` says why, or does it after all. Raises Rejection(SERVICE_UNAVAILABLE),
    and then some may have been carried out: sending them again is safe.
    """
    now = store.now_ms()
    found: list[Task | None] = [None] * len(wishes)
    steps: list[Append] = []
    indices: list[int] = []
    for index, (task, command) in enumerate(wishes):
        try:
            events = decide(command, task, now)
        except Rejection:
            continue
        if not events:
            found[index] = task
            continue
        after = apply(task.id, task, events, max(now, task.state.updated_at))
        indices.append(index)
        steps.append(Append(task, after, events, _traced(meta, after)))
    for index, step, outcome in zip(indices, steps, await store.append_all(steps), strict=True):
        if isinstance(outcome, Written):
            found[index] = step.after
    return found


def _traced(meta: Meta, task: Task) -> Meta:
    """What is written about a task by somebody who is in no trace belongs to the task's own."""
    if meta.trace or not (trace := task.trace):
        return meta
    return Meta(meta.actor, meta.request, trace, meta.commit)


def queue_full(task_type: str, priority: Priority, queue_max: int) -> Rejection:
    """Why a task is not taken whose queue is full."""
    return Rejection(
        RejectionCode.QUEUE_FULL,
        f"the queue {task_type}:{priority.value} holds {queue_max} tasks already; try again later",
    )


def _check_version(version: int, expected: Collection[int]) -> None:
    if version not in expected:
        raise _other_version(version)


def _other_version(version: int) -> Rejection:
    return Rejection(
        RejectionCode.VERSION_CONFLICT,
        f"the task is at version {version}, which is not the one expected; read it again",
    )


def apply(task_id: str, task: Task | None, events: tuple[Event, ...], at: int) -> Task:
    """The task after `events`, all at time `at` (ms)."""
    for event in events:
        task = initial(task_id, event, at) if task is None else evolve(task, event, at)
    assert task is not None  # noqa: S101 - events is not empty
    return task
