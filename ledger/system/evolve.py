"""What an event makes of the service's state, and what a history makes of nothing."""

from collections.abc import Iterable, Mapping
from typing import TypeVar, assert_never

from msgspec.structs import replace

from ledger.system.events import (
    ArchiveHalted,
    LimitRemoved,
    LimitScope,
    LimitSet,
    QueuePaused,
    QueueResumed,
    SubscriptionHalted,
    SystemEvent,
    WorkerLost,
)
from ledger.system.state import INITIAL, Pause, System, SystemState
from ledger.workers import LOST_KEPT_MS

Value = TypeVar("Value")


def evolve(system: System, event: SystemEvent, at: int, by: str) -> System:
    """The subject after `event` at time `at` (ms), made to happen by the actor `by`."""
    version = system.version + 1
    state = _state_after(system.state, event, version, at, by)
    return System(version, replace(state, updated_at=at))


def fold(history: Iterable[tuple[SystemEvent, int, str]]) -> System:
    """The subject that a history of (event, at, by) makes, oldest first."""
    system = INITIAL
    for event, at, by in history:
        system = evolve(system, event, at, by)
    return system


def lately(lost: Mapping[str, int], now: int) -> dict[str, int]:
    """The losses that still have to be known: older ones are of workers that nobody shows."""
    return {worker: heard for worker, heard in lost.items() if heard > now - LOST_KEPT_MS}


def _state_after(
    state: SystemState, event: SystemEvent, version: int, at: int, by: str
) -> SystemState:
    match event:
        case QueuePaused(task_type, reason):
            return replace(state, paused={**state.paused, task_type: Pause(at, reason, by)})
        case QueueResumed(task_type):
            return replace(state, paused=_without(state.paused, task_type))
        case LimitSet(scope, name, limit):
            return _limited(state, scope, {**state.limits(scope), name: limit}, version)
        case LimitRemoved(scope, name):
            return _limited(state, scope, _without(state.limits(scope), name), version)
        case WorkerLost():
            known = lately(state.lost, at)
            return replace(state, lost={**known, event.worker_id: event.last_heartbeat})
        case SubscriptionHalted() | ArchiveHalted():
            return state  # the group's checkpoint, or the fence, says whether it still is
        case _:
            assert_never(event)


def _limited(
    state: SystemState, scope: LimitScope, limits: Mapping[str, int], version: int
) -> SystemState:
    match scope:
        case LimitScope.TYPE:
            return replace(state, type_limits=limits, limits_version=version)
        case LimitScope.KB:
            return replace(state, kb_limits=limits, limits_version=version)


def _without(known: Mapping[str, Value], name: str) -> dict[str, Value]:
    return {other: value for other, value in known.items() if other != name}
