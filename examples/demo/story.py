"""The story itself, part by part; each raises DemoError if what it tells does not hold."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from examples.knowledge_service.search import search

from .client import Client, Event, Task
from .documents import SOUGHT, title
from .failures import require
from .processing import KB_ID, Processed, batches, process
from .screen import Screen
from .service import HANDLERS, LEASE_MS, Service, knowledge_db, running

QUERY: Final = '"priority queue"'
INDEXING_TIMEOUT_S: Final = 60


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
    screen.part("A service starts")
    begun = time.monotonic()
    async with running(folder) as (service, client):
        _introduce(screen, service, time.monotonic() - begun)
        processed = await process(screen, service, client, documents)
        indexing, answer_ms = await _index(screen, client, processed)
        _search(screen, folder)
        before = Before(processed, indexing, _one_history(screen, processed))
        screen.part("The service stops, and starts again on the same data")
    screen.say("Stopped: no process is left.")
    begun = time.monotonic()
    async with running(folder) as (_, client):
        screen.say(f"Up again after {time.monotonic() - begun:.1f} s.")
        await _compare(screen, client, documents, before)
        _search(screen, folder)
    _figures(screen, before, answer_ms)


def _introduce(screen: Screen, service: Service, seconds: float) -> None:
    screen.say(f"$ ledgerq up --workers {len(service.workers())} --handlers {HANDLERS}", "bold")
    workers = " and ".join(map(str, service.workers()))
    screen.say(
        f"Ready after {seconds:.1f} s on {service.url}, with a Valkey of its own and the worker "
        f"processes {workers}."
    )


async def _index(screen: Screen, client: Client, processed: Processed) -> tuple[Task, float]:
    """Index all chunks: the finished task, and how many milliseconds its POST took."""
    screen.part("The knowledge base is indexed")
    begun = time.perf_counter()
    submitted = await client.submit(
        {"task_type": "knowledge_indexing", "kb_id": KB_ID, "payload": {}}
    )
    answer_ms = (time.perf_counter() - begun) * 1000
    task = await client.finished(submitted.id, INDEXING_TIMEOUT_S)
    seconds = time.perf_counter() - begun
    require(task.status == "completed", f"indexing {task.status}: {task.error_message}")
    counted = (task.result["documents"], task.result["chunks"])
    expected = (len(processed.tasks), processed.chunks)
    require(counted == expected, f"documents and chunks are {counted}, not {expected}")
    screen.say(
        f"The POST was answered after {answer_ms:.1f} ms, and the work done after {seconds:.1f} s: "
        f"{counted[0]:,} documents, {counted[1]:,} chunks, as many as their tasks said."
    )
    return task, answer_ms


def _search(screen: Screen, folder: Path) -> None:
    hits = search(str(knowledge_db(folder)), KB_ID, QUERY)
    names = [title(hit.path) for hit in hits]
    require(SOUGHT in names, f"a search for {QUERY} found {names}, and not {SOUGHT}")
    screen.say(f"A search for {QUERY} finds {', '.join(names)}.")


def _one_history(screen: Screen, processed: Processed) -> list[Event]:
    """Show what a task lived through."""
    survivor = processed.survivors[0]
    name = title(survivor.task.payload["file_path"])
    screen.part(f"The history of one task: {name}, whose worker was killed")
    screen.history(survivor.history)
    return survivor.history


async def _compare(
    screen: Screen, client: Client, documents: Sequence[Path], before: Before
) -> None:
    """Everything is there as it was, and nothing more."""
    tasks: list[Task] = []
    for key, batch in batches(documents):
        found, replayed = await client.submit_batch(batch, key)
        require(replayed, f"the batch {key} was taken for a new one after the restart")
        tasks += found
    require(tasks == before.processed.tasks, "the tasks are not what they were")
    screen.say(
        f"The same batches, sent again with the same Idempotency-Keys, created nothing: the answer "
        f"was the {len(tasks)} tasks of before, with the same results."
    )
    require(
        await client.task(before.indexing.id) == before.indexing, "the indexing is not as it was"
    )
    survivor = before.processed.survivors[0]
    history = await client.history(survivor.task.id)
    require(history == before.history, "the task's history is not what it was")
    screen.say(f"The history above is the same, to its {len(history)} positions in the ledger.")


def _figures(screen: Screen, before: Before, answer_ms: float) -> None:
    done = before.processed
    screen.part("In figures")
    screen.figures(
        [
            (f"{len(done.tasks):,}", "documents, each with one final state"),
            (f"{done.chunks:,}", "chunks, all of them searchable"),
            (f"{len(done.survivors)}", "tasks whose worker was killed; none lost"),
            (
                f"{done.recovery_s:.1f} s",
                f"from the kill until they were done elsewhere (lease: {LEASE_MS / 1000:g} s)",
            ),
            (
                f"{len(done.tasks) / done.seconds:,.0f}/s",
                "tasks from submission to completion, the kill included",
            ),
            (
                f"{len(done.tasks) / done.submit_s:,.0f}/s",
                "submissions in batches, on disk when answered",
            ),
            (f"{answer_ms:.1f} ms", "from sending a POST to its answer"),
        ]
    )
