"""What workers say of themselves with each heartbeat, and what others make of their silence."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

WORKER_TASK_IDS_MAX: Final = 100
"""Ids that a report names; `running` counts all."""

LOST_KEPT_MS: Final = 3_600_000
"""How long a worker that fell silent is still shown, as lost; then it is forgotten."""

FORGOTTEN_AT_ONCE_MAX: Final = 100
"""How many of them one heartbeat of another worker clears away."""


class WorkerState(StrEnum):
    """What a worker is at. It says so itself, but for `lost`, which others say of it."""

    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    LOST = "lost"


class WorkerReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """A worker's account of itself. Times in ms, `started_at` in the ledger's clock. The field
    names are what is stored, for as long as the worker lives."""

    id: str
    host: str
    pid: int
    task_types: tuple[str, ...]
    concurrency: int
    lease_ms: int
    started_at: int
    state: WorkerState = WorkerState.IDLE
    running: int = 0
    """Tasks that its handlers work on, those included that are being stopped."""
    task_ids: tuple[str, ...] = ()
    """Which ones, the longest running first; at most WORKER_TASK_IDS_MAX."""
    succeeded: int = 0
    """Attempts that completed their task, since the start."""
    failed: int = 0
    """Attempts that failed. Canceled ones, those given back, and those that put their task off are
    counted nowhere."""
    task_ms: int = 0
    """From start to end, the sum over both."""


class WorkerSeen(msgspec.Struct, frozen=True):
    """A worker as the ledger knows it: its last report, and what to think of it now."""

    report: WorkerReport
    last_heartbeat: int
    """In ms, by the ledger's clock."""
    state: WorkerState

    @property
    def processed(self) -> int:
        """Attempts that came to an end of their own."""
        return self.report.succeeded + self.report.failed

    @property
    def average_task_ms(self) -> float | None:
        """Of the attempts that ended; None before the first."""
        return self.report.task_ms / self.processed if self.processed else None

    @property
    def takes_tasks(self) -> bool:
        """Whether it is there and takes what comes."""
        return self.state in (WorkerState.IDLE, WorkerState.BUSY)


def seen(report: WorkerReport, last_heartbeat: int, now_ms: int) -> WorkerSeen:
    """Silent for longer than its leases hold, a worker is lost: its tasks are others' by then."""
    silent_ms = now_ms - last_heartbeat
    state = WorkerState.LOST if silent_ms > report.lease_ms else report.state
    return WorkerSeen(report, last_heartbeat, state)


def in_order(workers: Iterable[WorkerSeen]) -> list[WorkerSeen]:
    """The longest-serving first, the lost ones last."""
    return sorted(
        workers,
        key=lambda w: (w.state is WorkerState.LOST, w.report.started_at, w.report.id),
    )
