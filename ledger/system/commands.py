"""What may be asked of the service as a whole, in the imperative."""

import msgspec

from ledger.system.events import LimitScope


class PauseQueue(msgspec.Struct, frozen=True):
    """Take no more tasks of a type; those that run go on."""

    task_type: str
    reason: str = ""


class ResumeQueue(msgspec.Struct, frozen=True):
    """Take tasks of a type again."""

    task_type: str


class SetLimit(msgspec.Struct, frozen=True):
    """Let no more than `limit` tasks run at once."""

    scope: LimitScope
    name: str
    limit: int


class RemoveLimit(msgspec.Struct, frozen=True):
    """Let as many run as there is room for."""

    scope: LimitScope
    name: str


class RecordWorkerLost(msgspec.Struct, frozen=True):
    """Keep that a worker fell silent. Times in ms, by the ledger's clock."""

    worker_id: str
    host: str
    pid: int
    last_heartbeat: int
    running: int


class RecordSubscriptionHalted(msgspec.Struct, frozen=True):
    """Keep that a group does not go on in a partition, and why."""

    group: str
    partition: int
    reason: str


class RecordArchiveHalted(msgspec.Struct, frozen=True):
    """Keep that a partition is not sealed any further, and why."""

    partition: int
    reason: str


SystemCommand = (
    PauseQueue
    | ResumeQueue
    | SetLimit
    | RemoveLimit
    | RecordWorkerLost
    | RecordSubscriptionHalted
    | RecordArchiveHalted
)
