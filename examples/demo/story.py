"""The story itself, part by part; each raises DemoError if what it tells does not hold."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.client import Event, Task

from .audit import Auditor
from .documents import SOUGHT
from .failures import require
from .knowledge import UPLOADS_AT_ONCE
from .processing import Processed, all_tasks, called_back, process, upload
from .screen import Screen
from .service import HANDLERS, LEASE_MS, Services, place_in, running

QUERY: Final = '"priority queue"'


@dataclass(frozen=True, slots=True)
class Before:
    """What must be the same after the restart."""

    processed: Processed
    indexing: Task
    history: list[Event]
    """Of one task."""


async def tell(screen: Screen, folder: Path, documents: Sequence[Path]) -> None:
    """The whole story of these documents, with all its data in `folder`."""
    screen.title("ledgerq: Python's own source files become a knowledge base")
    screen.part("Two services start")
    place = place_in(folder)
    begun = time.monotonic()
    async with running(place) as services:
        _introduce(screen, services, time.monotonic() - begun)
        processed = await process(screen, services, documents)
        indexing, answer_ms = await _index(screen, services, processed)
        await _search(screen, services)
        before = Before(processed, indexing, _one_history(screen, processed))
        screen.part("The services stop, and start again on the same data")
    screen.say("Stopped: no process is left.")
    begun = time.monotonic()
    async with running(place) as services:
        screen.say(f"Up again after {time.monotonic() - begun:.1f} s.")
        await _compare(screen, services, documents, before)
        await _search(screen, services)
        auditor = Auditor(screen, place)
        screen.part("The history is proved, and the archive is tampered with")
        await auditor.prove(processed.survivors[0].task.id, len(before.history))
    await auditor.notice_a_changed_bit()
    _figures(screen, before, answer_ms)


def _introduce(screen: Screen, services: Services, seconds: float) -> None:
    screen.say(f"$ ledgerq up --workers {len(services.workers())} --handlers {HANDLERS}", "bold")
    screen.say("$ python -m examples.knowledge_service", "bold")
    workers = " and ".join(map(str, services.workers()))
    screen.say(
        f"Ready after {seconds:.1f} s: ledgerq on {services.url}, with a Valkey of its own and the "
        f"worker processes {workers}; on {services.knowledge_url} a small web service, as a user "
        "of ledgerq would write it, which takes files and is called back."
    )


async def _index(screen: Screen, services: Services, processed: Processed) -> tuple[Task, float]:
    """Index all chunks: the finished task, and how many milliseconds its POST took."""
    screen.part("The knowledge base is made searchable")
    begun = time.perf_counter()
    task_id = await services.knowledge.enhance()
    answer_ms = (time.perf_counter() - begun) * 1000
    task = await called_back(services.client, task_id)
    seconds = time.perf_counter() - begun
    require(task.status == "completed", f"indexing {task.status}: {task.error_message}")
    counted = (task.result["documents"], task.result["chunks"])
    expected = (len(processed.tasks), processed.chunks)
    require(counted == expected, f"documents and chunks are {counted}, not {expected}")
    await services.knowledge.require_ended(len(processed.tasks) + 1)
    screen.say(
        f"The POST was answered after {answer_ms:.1f} ms, and the work done after {seconds:.1f} s: "
        f"{counted[0]:,} documents, {counted[1]:,} chunks, as many as their tasks said."
    )
    return task, answer_ms


async def _search(screen: Screen, services: Services) -> None:
    names = await services.knowledge.search(QUERY)
    require(SOUGHT in names, f"a search for {QUERY} found {names}, and not {SOUGHT}")
    screen.say(f"A search for {QUERY} finds {', '.join(names)}.")


def _one_history(screen: Screen, processed: Processed) -> list[Event]:
    """Show what a task lived through."""
    survivor = processed.survivors[0]
    name = survivor.task.payload["filename"]
    screen.part(f"The history of one task: {name}, whose worker was killed")
    screen.history(survivor.history)
    return survivor.history


async def _compare(
    screen: Screen, services: Services, documents: Sequence[Path], before: Before
) -> None:
    """Everything is there as it was, and nothing more."""
    answers = await upload(services, documents)
    tasks = await all_tasks(services.client)
    require({task.id for task in tasks} == set(answers), "the uploads were taken for new ones")
    require(tasks == before.processed.tasks, "the tasks are not what they were")
    screen.say(
        f"The same files, uploaded again with the same Idempotency-Keys, created nothing: the "
        f"answer was the {len(tasks)} tasks of before, with the same results."
    )
    indexing = await services.client.get(before.indexing.id)
    require(indexing == before.indexing, "the indexing is not as it was")
    survivor = before.processed.survivors[0]
    history = (await services.client.history(survivor.task.id)).events
    require(history == before.history, "the task's history is not what it was")
    screen.say(f"The history above is the same, to its {len(history)} positions in the ledger.")


def _figures(screen: Screen, before: Before, answer_ms: float) -> None:
    done = before.processed
    screen.part("In figures")
    screen.figures(
        [
            (f"{len(done.tasks):,}", "documents, each with one final state and one callback"),
            (f"{done.chunks:,}", "chunks, all of them searchable"),
            (f"{len(done.survivors)}", "tasks whose worker was killed; none lost"),
            (
                f"{done.recovery_s:.1f} s",
                f"from the kill until they were done elsewhere (lease: {LEASE_MS / 1000:g} s)",
            ),
            (
                f"{len(done.tasks) / done.seconds:,.0f}/s",
                "files from upload to completion, the kill included",
            ),
            (
                f"{done.answer_ms:.1f} ms",
                f"from sending a file to its answer, {UPLOADS_AT_ONCE} at once (median)",
            ),
            (f"{done.callbacks_s:.1f} s", "from the last file's end until all were called back"),
            (f"{answer_ms:.1f} ms", "from sending a POST to its answer"),
        ]
    )
