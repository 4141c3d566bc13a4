"""A worker process is killed in the middle of its work; what it held is taken again."""

import asyncio
import os
import signal
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from api.client import AsyncClient, Event, Task

from .failures import DemoError, require
from .service import Services

CATCH_TIMEOUT_S: Final = 30
LOOKS: Final = 6
LOOK_S: Final = 0.05
"""The workers are paused for so long at most; their leases last longer."""

MOVES_S: Final = 0.02
"""Between looks they work for so long."""

LOOKED_AT: Final = 24
"""Of the unfinished tasks the oldest so many are asked for, to find one that is worked on."""

LIVED_THROUGH: Final = ("AttemptFailed", "RetryScheduled", "TaskReleased", "TaskStarted")
"""What the history of a task holds after the attempt that was cut off."""


@dataclass(frozen=True, slots=True)
class Killed:
    """Which of the worker processes, and when, in seconds since the epoch."""

    pid: int
    workers: list[int]
    at: float


@dataclass(frozen=True, slots=True)
class Survivor:
    """A task whose worker was killed under it, and its whole history."""

    task: Task
    history: list[Event]

    def seconds_after(self, moment_s: float) -> float:
        """From a moment (s since the epoch) until the task was done."""
        [done] = [event for event in self.history if event.type == "TaskCompleted"]
        return done.at.timestamp() - moment_s


async def kill_a_worker(services: Services, unfinished: Collection[str]) -> Killed:
    """SIGKILL to a worker that has one of these tasks in its hands; the oldest task comes first.

    `unfinished` grows as tasks are begun, and shrinks as they end. Raises DemoError when none of
    them is caught in time.
    """
    deadline = time.monotonic() + CATCH_TIMEOUT_S
    while time.monotonic() < deadline:
        workers = services.workers()
        # All of them: while one is looked at, the others would do all that there is to do.
        with _paused(workers):
            pid = await _caught(services.client, workers, unfinished)
            if pid:
                os.kill(pid, signal.SIGKILL)
                return Killed(pid, workers, time.time())
        await asyncio.sleep(MOVES_S)
    raise DemoError("no worker was caught with a document in its hands")


async def _caught(client: AsyncClient, workers: Sequence[int], unfinished: Collection[str]) -> int:
    """Which of the workers, which are paused, has a document in its hands; 0 for none. What was
    begun just before is heard of a little later."""
    for _ in range(LOOKS):
        for task_id in list(unfinished)[:LOOKED_AT]:
            task = await client.get(task_id)
            if task.status == "processing" and _pid(task.worker_id) in workers:
                return _pid(task.worker_id)
        await asyncio.sleep(LOOK_S)
    return 0


@contextmanager
def _paused(pids: Sequence[int]) -> Generator[None]:
    """They do nothing meanwhile: what one is seen to hold it still holds a moment later."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def survivors(client: AsyncClient, tasks: Sequence[Task], killed: Killed) -> list[Survivor]:
    """Of the finished `tasks` those that the killed worker had in its hands.

    Raises DemoError when there is none, and when a history is not what it must be.
    """
    found: list[Survivor] = []
    for task in tasks:
        if task.retry_count:
            history = (await client.history(task.id)).events
            if _cut_off_in(history, killed.pid):
                _check(task, history)
                found.append(Survivor(task, history))
    require(bool(found), f"worker {killed.pid} was killed, and no task noticed")
    return found


def _cut_off_in(history: Sequence[Event], pid: int) -> bool:
    """Whether an attempt of that process ended as that of a lost worker."""
    told = [(event.type, event.data or {}) for event in history]
    lost = {
        data["attempt"]
        for kind, data in told
        if kind == "AttemptFailed" and data["error_kind"] == "worker_lost"
    }
    return any(
        kind == "TaskStarted" and data["attempt"] in lost and _pid(data["worker_id"]) == pid
        for kind, data in told
    )


def _check(task: Task, history: Sequence[Event]) -> None:
    """Versions without a gap, every step of the way back, and one end."""
    types = [event.type for event in history]
    versions = [event.version for event in history]
    require(versions == list(range(1, task.version + 1)), f"versions of task {task.id}: {versions}")
    way_back = [kind for kind in types if kind in LIVED_THROUGH][1:5]
    require(way_back == list(LIVED_THROUGH), f"task {task.id} came back by way of {way_back}")
    require(
        types.count("TaskCompleted") == 1 and types[-2:] == ["TaskCompleted", "CallbackDelivered"],
        f"the history of task {task.id} does not end once: {types}",
    )


def _pid(worker_id: str | None) -> int:
    """The process id in `<host>-<pid>-<four digits>`; 0 for None."""
    return int(worker_id.rsplit("-", 2)[1]) if worker_id else 0
