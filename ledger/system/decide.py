"""What a command makes happen to the service as a whole.

A wish that holds already makes nothing happen. So whoever sees that a worker is lost may say so: it
is recorded once.
"""

from typing import Final, assert_never

from ledger.rejections import Rejection, RejectionCode
from ledger.system.commands import (
    PauseQueue,
    RecordArchiveHalted,
    RecordSubscriptionHalted,
    RecordWorkerLost,
    RemoveLimit,
    ResumeQueue,
    SetLimit,
    SystemCommand,
)
from ledger.system.events import (
    ArchiveHalted,
    LimitRemoved,
    LimitSet,
    QueuePaused,
    QueueResumed,
    SubscriptionHalted,
    SystemEvent,
    WorkerLost,
)
from ledger.system.evolve import lately
from ledger.system.state import LIMITS_MAX, System

LOSSES_MAX: Final = 1_000
"""Losses remembered at once; while so many are, further ones are not recorded."""

NOTHING: tuple[SystemEvent, ...] = ()


def decide(command: SystemCommand, system: System, now: int) -> tuple[SystemEvent, ...]:
    """The events that `command` makes happen at `now` (ms).

    Raises Rejection(TOO_MANY_LIMITS).
    """
    state = system.state
    match command:
        case PauseQueue(task_type, reason):
            # Who paused it first, and why, stands until it is resumed.
            return NOTHING if task_type in state.paused else (QueuePaused(task_type, reason),)
        case ResumeQueue(task_type):
            return (QueueResumed(task_type),) if task_type in state.paused else NOTHING
        case SetLimit():
            return _set_limit(command, system)
        case RemoveLimit(scope, name):
            return (LimitRemoved(scope, name),) if name in state.limits(scope) else NOTHING
        case RecordWorkerLost():
            return _record_lost(command, system, now)
        case RecordSubscriptionHalted(group, partition, reason):
            # Whoever records it was the one that halted the group, and does so once.
            return (SubscriptionHalted(group, partition, reason),)
        case RecordArchiveHalted(partition, reason):
            return (ArchiveHalted(partition, reason),)
        case _:
            assert_never(command)


def _set_limit(command: SetLimit, system: System) -> tuple[SystemEvent, ...]:
    known = system.state.limits(command.scope)
    if known.get(command.name) == command.limit:
        return NOTHING
    if command.name not in known and len(known) >= LIMITS_MAX:
        raise Rejection(
            RejectionCode.TOO_MANY_LIMITS,
            f"there are {len(known)} limits of this kind, and {LIMITS_MAX:,} are the most; "
            "remove one first",
        )
    return (LimitSet(command.scope, command.name, command.limit),)


def _record_lost(command: RecordWorkerLost, system: System, now: int) -> tuple[SystemEvent, ...]:
    known = lately(system.state.lost, now)
    # One that came back and fell silent again was heard later than the loss that is known.
    if known.get(command.worker_id, -1) >= command.last_heartbeat or len(known) >= LOSSES_MAX:
        return NOTHING
    return (
        WorkerLost(
            command.worker_id,
            command.host,
            command.pid,
            command.last_heartbeat,
            command.running,
        ),
    )
