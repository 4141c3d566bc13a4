"""Carry a command of the service out: load, decide, append, and again when others were faster."""

from collections.abc import Collection

import msgspec

from ledger.codec import Meta
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Conflict, Position, Store, SystemAppend, Written
from ledger.system.commands import SystemCommand
from ledger.system.decide import decide
from ledger.system.events import SystemEvent
from ledger.system.evolve import evolve
from ledger.system.state import System
from ledger.transact import CONFLICTS_MAX


class SystemCommitted(msgspec.Struct, frozen=True):
    """A command that was carried out. `events` is empty, and `position` None, when its wish held
    already."""

    before: System
    system: System
    events: tuple[SystemEvent, ...]
    position: Position | None


async def transact_system(
    store: Store,
    command: SystemCommand,
    meta: Meta,
    expected_versions: Collection[int] | None = None,
) -> SystemCommitted:
    """Make `command` happen, once; with `expected_versions` only at one of these versions.

    Raises Rejection: the domain's own, VERSION_CONFLICT when the service is at none of the versions
    expected, or others were faster CONFLICTS_MAX times, SERVICE_UNAVAILABLE when the ledger cannot
    be reached.
    """
    for _ in range(CONFLICTS_MAX):
        system = await store.load_system()
        if expected_versions is not None and system.version not in expected_versions:
            raise Rejection(
                RejectionCode.VERSION_CONFLICT,
                f"the service is at version {system.version}, which is not the one expected; read "
                "its events or limits again",
            )
        now = store.now_ms()
        events = decide(command, system, now)
        if not events:
            return SystemCommitted(system, system, events, None)
        at = max(now, system.state.updated_at)
        after = system
        for event in events:
            after = evolve(after, event, at, meta.actor)
        match await store.append_system(SystemAppend(system, after, events, meta)):
            case Written(position):
                return SystemCommitted(system, after, events, position)
            case Conflict():
                continue
    raise Rejection(
        RejectionCode.VERSION_CONFLICT,
        f"pauses and limits were changed by others {CONFLICTS_MAX} times in a row; try again",
    )
