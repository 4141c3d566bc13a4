"""What the service as a whole is at: the state that system events make."""

from collections.abc import Mapping
from typing import Final

import msgspec

from ledger.system.events import LimitScope

LIMITS_MAX: Final = 1_000
"""Limits of one scope. All of them are written anew whenever anything here changes, and read anew
by every worker and scheduler then: some 30 kB with so many."""


class Pause(msgspec.Struct, frozen=True, omit_defaults=True):
    """That tasks of a type are not taken: since when (ms), why, and who wanted it."""

    since: int
    reason: str = ""
    by: str = ""


class SystemState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part that events change; stored as the snapshot's `state`, whose field names golden files
    guard. Times in ms."""

    updated_at: int = 0
    paused: Mapping[str, Pause] = {}
    """By task type."""
    type_limits: Mapping[str, int] = {}
    kb_limits: Mapping[str, int] = {}
    limits_version: int = 0
    """Of the subject, when a limit changed last."""
    lost: Mapping[str, int] = {}
    """Workers whose loss was recorded lately, and when they had been heard last."""

    def limits(self, scope: LimitScope) -> Mapping[str, int]:
        """The limits of one scope, by the name of what they hold for."""
        match scope:
            case LimitScope.TYPE:
                return self.type_limits
            case LimitScope.KB:
                return self.kb_limits


class System(msgspec.Struct, frozen=True):
    """The subject at one version: `version` events have happened to it."""

    version: int = 0
    state: SystemState = SystemState()


INITIAL: Final = System()
"""Before anything happened."""
