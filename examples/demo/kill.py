"""A worker process is killed in the middle of its work; what it held is taken again."""

import os
import signal
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from .client import Client, Event, Task
from .failures import DemoError, require
from .service import Service

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


async def kill_a_worker(client: Client, service: Service, unfinished: Collection[str]) -> Killed:
    """SIGKILL to a worker that has one of these tasks in its hands; the oldest task comes first.

    `unfinished` shrinks as tasks end. Raises DemoError when none is left.
    """
    while unfinished:
        workers = service.workers()
        for pid in workers:
            with _paused(pid):
                if await _holds_one_of(client, pid, list(unfinished)[:LOOKED_AT]):
                    os.kill(pid, signal.SIGKILL)
                    return Killed(pid, workers, time.time())
    raise DemoError("all documents were done before a worker could be killed")


@contextmanager
def _paused(pid: int) -> Generator[None]:
    """The process does nothing meanwhile: what it is seen to hold it still holds a moment later."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def _holds_one_of(client: Client, pid: int, task_ids: Sequence[str]) -> bool:
    for task_id in task_ids:
        task = await client.task(task_id)
        if task.status == "processing" and _pid(task.worker_id) == pid:
            return True
    return False


async def survivors(client: Client, tasks: Sequence[Task], killed: Killed) -> list[Survivor]:
    """Of the finished `tasks` those that the killed worker had in its hands.

    Raises DemoError when there is none, and when a history is not what it must be.
    """
    found: list[Survivor] = []
    for task in tasks:
        if task.retry_count:
            history = await client.history(task.id)
            if _cut_off_in(history, killed.pid):
                _check(task, history)
                found.append(Survivor(task, history))
    require(bool(found), f"worker {killed.pid} was killed, and no task noticed")
    return found


def _cut_off_in(history: Sequence[Event], pid: int) -> bool:
    """Whether an attempt of that process ended as that of a lost worker."""
    lost = {
        event.data["attempt"]
        for event in history
        if event.type == "AttemptFailed" and event.data["error_kind"] == "worker_lost"
    }
    return any(
        event.type == "TaskStarted"
        and event.data["attempt"] in lost
        and _pid(event.data["worker_id"]) == pid
        for event in history
    )


def _check(task: Task, history: Sequence[Event]) -> None:
    """Versions without a gap, every step of the way back, and one end."""
    types = [event.type for event in history]
    versions = [event.version for event in history]
    require(versions == list(range(1, task.version + 1)), f"versions of task {task.id}: {versions}")
    way_back = [kind for kind in types if kind in LIVED_THROUGH][1:5]
    require(way_back == list(LIVED_THROUGH), f"task {task.id} came back by way of {way_back}")
    require(
        types.count("TaskCompleted") == 1 and types[-1] == "TaskCompleted",
        f"the history of task {task.id} does not end once: {types}",
    )


def _pid(worker_id: str | None) -> int:
    """The process id in `<host>-<pid>-<four digits>`; 0 for None."""
    return int(worker_id.rsplit("-", 2)[1]) if worker_id else 0
