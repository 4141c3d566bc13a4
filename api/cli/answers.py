"""What the service answers, as client commands look at it."""

from typing import Final

import msgspec

UNFINISHED: Final = frozenset({"queued", "processing", "retrying"})


class Task(msgspec.Struct, frozen=True):
    """What commands look at in a task; `json` has all of it, as the service sent it."""

    id: str
    status: str
    task_type: str
    queue_position: int
    json: msgspec.Raw = msgspec.Raw(b"")

    @property
    def finished(self) -> bool:
        return self.status not in UNFINISHED


class Reason(msgspec.Struct, frozen=True):
    """Why a task is where it is."""

    code: str
    message: str


class Explanation(msgspec.Struct, frozen=True):
    """What commands show of an explanation; `json` has all of it, as the service sent it."""

    task_id: str
    status: str
    reasons: list[Reason]
    json: msgspec.Raw = msgspec.Raw(b"")


class Worker(msgspec.Struct, frozen=True):
    """What commands show of a worker."""

    id: str
    status: str
    running: int
    concurrency: int
    tasks_succeeded: int
    tasks_failed: int
    average_task_time: float | None
    last_heartbeat: str
    task_types: list[str]


class Workers(msgspec.Struct, frozen=True):
    """The workers that were heard of; `json` has all that the service said of them."""

    workers: list[Worker]
    json: msgspec.Raw


class TypeLimit(msgspec.Struct, frozen=True):
    """How many tasks of a type run at once at most, and how many count against that."""

    task_type: str
    limit: int
    admitted: int


class KbLimit(msgspec.Struct, frozen=True):
    """The same of a knowledge base."""

    kb_id: str
    limit: int
    admitted: int


class Limits(msgspec.Struct, frozen=True):
    """All limits; `json` has them as the service sent them."""

    types: list[TypeLimit]
    kbs: list[KbLimit]
    json: msgspec.Raw = msgspec.Raw(b"")


class Answer(msgspec.Struct, frozen=True):
    """What the read model answers, as the service sent it."""

    json: bytes
    behind_ms: int
    """How much older it is than the ledger's last event; 0 when nothing is missing."""
    position: str | None = None
    """How far it has seen the ledger; of a write, where that stands."""
