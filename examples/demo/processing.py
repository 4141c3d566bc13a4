"""Hundreds of documents are uploaded and worked on, while a worker is killed among them."""

import asyncio
import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.client import AsyncClient, Task

from .failures import DemoError, require
from .kill import Killed, Survivor, kill_a_worker, survivors
from .screen import Advance, Screen
from .service import KB_ID, LEASE_MS, Services

TASK_TYPE: Final = "document_processing"
TIMEOUT_S: Final = 90
PAGE: Final = 100
CALLED_BACK: Final = "CallbackDelivered"
KILL_AFTER: Final = 1 / 4
"""The share of the documents that are done when a worker is killed."""


@dataclass(frozen=True, slots=True)
class Processed:
    """What became of the documents, in the order of their tasks.

    `seconds` from the first upload to the last end, `upload_s` of it until all were handed over,
    `answer_ms` the median of the uploads' answers; `recovery_s` from the kill until what the worker
    held was done elsewhere; `callbacks_s` from the last end until all had been called back.
    """

    tasks: list[Task]
    survivors: list[Survivor]
    seconds: float
    upload_s: float
    answer_ms: float
    recovery_s: float
    callbacks_s: float

    @property
    def chunks(self) -> int:
        return sum(task.result["chunks"] for task in self.tasks)


async def process(screen: Screen, services: Services, documents: Sequence[Path]) -> Processed:
    """Upload all documents, kill a worker, and wait until all of them are done all the same."""
    screen.part(f"{len(documents)} documents are uploaded, and a worker is killed")
    size_mb = sum(path.stat().st_size for path in documents) / 1e6
    version = platform.python_version()
    screen.say(f"Source files of Python {version}'s standard library: {size_mb:.1f} MB.")
    work = _Work(len(documents))
    begun = time.monotonic()
    with screen.progress(len(documents)) as advance:
        try:
            async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
                group.create_task(work.follow(services.client, advance))
                killing = group.create_task(work.kill_in_the_middle(screen, services))
                answers = await upload(services, documents)
                upload_s = time.monotonic() - begun
        except TimeoutError:
            left = len(documents) - len(work.ended)
            raise DemoError(f"{left} documents were not done after {TIMEOUT_S} s") from None
    callbacks_s = time.monotonic() - work.ended_at
    await services.knowledge.require_ended(len(documents))
    tasks = await all_tasks(services.client)
    _require_completed(tasks, answers)
    killed = killing.result()
    lived_through = await survivors(services.client, tasks, killed)
    recovery_s = max(each.seconds_after(killed.at) for each in lived_through)
    new = await services.another_worker(killed.workers)
    held = len(lived_through)
    screen.say(
        f"All done. Worker {killed.pid} had {held} document{'s' * (held != 1)} in its hands: once "
        f"the lease of {LEASE_MS / 1000:g} s had run out, all was taken again. Process {new} is in "
        "its place."
    )
    screen.say(
        f"{len(documents)} signed callbacks came and were checked: the service's own table says "
        "so too."
    )
    answer_ms = statistics.median(answers.values()) * 1000
    seconds = work.ended_at - begun
    return Processed(tasks, lived_through, seconds, upload_s, answer_ms, recovery_s, callbacks_s)


async def upload(services: Services, documents: Sequence[Path]) -> dict[str, float]:
    """Upload all: by the ids of their tasks, how many seconds each answer took."""
    answers = await asyncio.gather(*map(services.knowledge.upload, documents))
    require(
        len(dict(answers)) == len(documents), f"{len(documents)} files are {len(dict(answers))}"
    )
    return dict(answers)


async def all_tasks(client: AsyncClient) -> list[Task]:
    """The documents' tasks, the oldest first."""
    found = client.iterate(
        kb_id=KB_ID, task_type=TASK_TYPE, sort_by="created_at", sort_order="asc", page_size=PAGE
    )
    return [task async for task in found]


async def called_back(client: AsyncClient, task_id: str) -> Task:
    """The task, once it is finished and its end was told."""
    async with asyncio.timeout(TIMEOUT_S):
        async with aclosing(client.follow(after="beginning", task_id=task_id)) as updates:
            async for update in updates:
                if update.type == CALLED_BACK:
                    break
    return await client.get(task_id)


class _Work:
    """The documents' tasks, as the live feed tells of them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.ended: set[str] = set()
        self.ended_at = 0.0
        self._called_back: set[str] = set()
        self.unfinished: dict[str, None] = {}
        self._in_the_middle = asyncio.Event()

    async def follow(self, client: AsyncClient, advance: Advance) -> None:
        """Hear of everything that happens, until all have ended and been called back."""
        async with aclosing(client.follow(after="beginning", task_type=TASK_TYPE)) as updates:
            async for update in updates:
                if update.type == "TaskStarted" and update.task_id not in self.ended:
                    self.unfinished[update.task_id] = None
                if update.finished and update.task_id not in self.ended:
                    self.ended.add(update.task_id)
                    self.ended_at = time.monotonic()
                    self.unfinished.pop(update.task_id, None)
                    advance.step(update.result["chunks"] if update.result else 0)
                    if len(self.ended) >= self._count * KILL_AFTER:
                        self._in_the_middle.set()
                if update.type == CALLED_BACK:
                    self._called_back.add(update.task_id)
                if len(self._called_back) == self._count:
                    return

    async def kill_in_the_middle(self, screen: Screen, services: Services) -> Killed:
        """Once some documents are done and most are not, kill a worker that has one in hand."""
        await self._in_the_middle.wait()
        killed = await kill_a_worker(services, self.unfinished)
        screen.say(
            f"kill -9 {killed.pid}: a worker is gone, in the middle of its work.", "bold red"
        )
        return killed


def _require_completed(tasks: Sequence[Task], answers: dict[str, float]) -> None:
    require({task.id for task in tasks} == set(answers), "the tasks are not those of the uploads")
    for task in tasks:
        require(
            task.status == "completed",
            f"{task.payload['filename']} {task.status}: {task.error_message}",
        )
