"""What can happen to the service as a whole, in the past tense.

As with `ledger.events`, class names and field names are the storage format, guarded by golden
files. They are stored under the subject `system`, where a task's events have its id.
"""

from enum import StrEnum
from typing import get_args

import msgspec


class LimitScope(StrEnum):
    """What a limit counts together."""

    TYPE = "type"
    KB = "kb"


class QueuePaused(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody wants no more tasks of a type to be taken."""

    task_type: str
    reason: str = ""


class QueueResumed(msgspec.Struct, frozen=True):
    """Tasks of a type are to be taken again."""

    task_type: str


class LimitSet(msgspec.Struct, frozen=True):
    """No more than `limit` tasks of a type, or of a knowledge base, are to run at once."""

    scope: LimitScope
    name: str
    limit: int


class LimitRemoved(msgspec.Struct, frozen=True):
    """As many may run as the workers have room for."""

    scope: LimitScope
    name: str


class WorkerLost(msgspec.Struct, frozen=True):
    """A worker fell silent without saying that it ends. Its tasks are others' once their leases
    have run out."""

    worker_id: str
    host: str
    pid: int
    last_heartbeat: int
    """In ms, by the ledger's clock."""
    running: int
    """Tasks that it had in its hands when it was last heard."""


class SubscriptionHalted(msgspec.Struct, frozen=True):
    """A group that follows the ledger does not go on in a partition: the ledger has not got what it
    was reading, most likely because it lost its newest events."""

    group: str
    partition: int
    reason: str


class ArchiveHalted(msgspec.Struct, frozen=True):
    """Nothing more of a partition is sealed, or trimmed: the ledger has not got what was sealed
    last, most likely because it lost its newest events."""

    partition: int
    reason: str


SystemEvent = (
    QueuePaused
    | QueueResumed
    | LimitSet
    | LimitRemoved
    | WorkerLost
    | SubscriptionHalted
    | ArchiveHalted
)

SYSTEM_EVENT_TYPES: dict[str, type[SystemEvent]] = {
    kind.__name__: kind for kind in get_args(SystemEvent)
}
"""Every event by its stored name."""
