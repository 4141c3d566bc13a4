"""Hundreds of documents are submitted and worked on, while a worker is killed among them."""

import asyncio
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .client import Client, Task
from .failures import DemoError, require
from .kill import Killed, Survivor, kill_a_worker, survivors
from .screen import Advance, Screen
from .service import LEASE_MS, Service

KB_ID: Final = "python"
BATCH: Final = 100
TIMEOUT_S: Final = 90
KILL_AFTER: Final = 1 / 4
"""The share of the documents that are done when a worker is killed."""

FOLLOWED: Final = 24
"""Documents whose end is waited for at once; fewer than the connections, others need some too."""


@dataclass(frozen=True, slots=True)
class Processed:
    """What became of the documents, in the order of their submission.

    `seconds` from the first submission to the last end, `submit_s` of it until all were handed
    over; `recovery_s` from the kill until what the worker held was done elsewhere.
    """

    tasks: list[Task]
    survivors: list[Survivor]
    seconds: float
    submit_s: float
    recovery_s: float

    @property
    def chunks(self) -> int:
        return sum(task.result["chunks"] for task in self.tasks)


def batches(documents: Sequence[Path]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The submissions, in batches, each with its Idempotency-Key."""
    for start in range(0, len(documents), BATCH):
        yield (
            f"documents-{start}",
            [
                {
                    "task_type": "document_processing",
                    "kb_id": KB_ID,
                    "payload": {"file_path": str(path)},
                }
                for path in documents[start : start + BATCH]
            ],
        )


async def process(
    screen: Screen, service: Service, client: Client, documents: Sequence[Path]
) -> Processed:
    """Submit all documents, kill a worker, and wait until all of them are done all the same."""
    screen.part(f"{len(documents)} documents are submitted, and a worker is killed")
    size_mb = sum(path.stat().st_size for path in documents) / 1e6
    version = platform.python_version()
    screen.say(f"Source files of Python {version}'s standard library: {size_mb:.1f} MB.")
    begun = time.monotonic()
    submitted = await _submit(client, documents)
    submit_s = time.monotonic() - begun
    screen.say(f"Handed over in {submit_s:.2f} s, in batches of {BATCH}; the workers have begun.")
    work = _Work(submitted)
    with screen.progress(len(submitted)) as advance:
        try:
            async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
                killing = group.create_task(work.kill_in_the_middle(screen, service, client))
                for _ in range(FOLLOWED):
                    group.create_task(work.follow(client, advance))
        except TimeoutError:
            left = len(work.unfinished)
            raise DemoError(f"{left} documents were not done after {TIMEOUT_S} s") from None
    seconds = time.monotonic() - begun
    tasks = [work.finished[task.id] for task in submitted]
    _require_completed(tasks)
    killed = killing.result()
    lived_through = await survivors(client, tasks, killed)
    recovery_s = max(each.task.updated_at.timestamp() for each in lived_through) - killed.at
    new = await service.another_worker(killed.workers)
    screen.say(
        f"All done. Worker {killed.pid} had {len(lived_through)} documents in its hands: once "
        f"their leases of {LEASE_MS / 1000:g} s had run out they were taken again. Process {new} "
        "is in its place."
    )
    return Processed(tasks, lived_through, seconds, submit_s, recovery_s)


class _Work:
    """The documents' tasks: those that are finished, and those that are not, in their order."""

    def __init__(self, submitted: Sequence[Task]) -> None:
        self.unfinished = dict.fromkeys(task.id for task in submitted)
        self.finished: dict[str, Task] = {}
        self._next = iter([task.id for task in submitted])
        self._kill_after = int(len(submitted) * KILL_AFTER)
        self._in_the_middle = asyncio.Event()

    async def follow(self, client: Client, advance: Advance) -> None:
        """Wait for the end of one task, then of the next that nobody waits for yet."""
        for task_id in self._next:
            task = await client.finished(task_id, TIMEOUT_S)
            self.finished[task_id] = task
            del self.unfinished[task_id]
            advance.step(task.result["chunks"] if task.status == "completed" else 0)
            if len(self.finished) >= self._kill_after:
                self._in_the_middle.set()

    async def kill_in_the_middle(self, screen: Screen, service: Service, client: Client) -> Killed:
        """Once some documents are done and most are not, kill a worker that has one in hand."""
        await self._in_the_middle.wait()
        killed = await kill_a_worker(client, service, self.unfinished)
        screen.say(
            f"kill -9 {killed.pid}: a worker is gone, in the middle of its work.", "bold red"
        )
        return killed


async def _submit(client: Client, documents: Sequence[Path]) -> list[Task]:
    tasks: list[Task] = []
    for key, batch in batches(documents):
        created, replayed = await client.submit_batch(batch, key)
        require(not replayed, f"the batch {key} is there already")
        tasks += created
    require(len(tasks) == len(documents), f"{len(documents)} sent, {len(tasks)} created")
    return tasks


def _require_completed(tasks: Sequence[Task]) -> None:
    for task in tasks:
        require(
            task.status == "completed",
            f"{task.payload['file_path']} {task.status}: {task.error_message}",
        )
