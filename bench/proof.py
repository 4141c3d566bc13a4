"""Proofs of single tasks among many events: how long one takes to make and to check, and how large
it is."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from bench.archived import EPOCH, seal_history
from bench.folders import new_folder
from bench.history import task_id
from bench.measure import Goal, Measured, plain_row
from bench.scale import Scale
from consumers.collector import rarely_collecting
from ledger.archive.checkpoint import origin_of
from ledger.archive.keys import KeyFile
from ledger.archive.proof import read_proof, write_proof
from ledger.archive.proof_check import check_proof
from ledger.archive.prover import prove
from ledger.archive.reader import Archive
from ledger.objects.local_folder import LocalFolder

MADE_GOAL: Final = Goal(figure_max=50)
SIZE_GOAL: Final = Goal(figure_max=20_000)
PROOFS: Final = 100
STEP: Final = 7_919
"""A prime, so that tasks of all kinds and ages are among those that are proved."""


async def run(scale: Scale) -> Sequence[Measured]:
    """One process, an archive in a folder."""
    folder = new_folder()
    with rarely_collecting():
        events = await seal_history(folder, scale.proved_tasks)
        objects = LocalFolder(folder / "objects")
        ids = [task_id(number * STEP % scale.proved_tasks) for number in range(PROOFS)]
        warm = Archive(objects, EPOCH, 1)
        first_ms = [(await _made(Archive(objects, EPOCH, 1), each))[0] for each in ids]
        await asyncio.gather(*(_made(warm, each) for each in ids))
        again = [await _made(warm, each) for each in ids]
        keys = KeyFile(folder / "archive.key").keys().verifiers(origin_of(EPOCH, 0))
        checked_ms: list[float] = []
        for _, written in again:
            began = time.perf_counter()
            check_proof(read_proof(written), keys)
            checked_ms.append((time.perf_counter() - began) * 1_000)
        await objects.close()
        sizes = [len(written) for _, written in again]
    among = f"a task among {events:,} events"
    title = f"proof of {among}"
    return [
        plain_row(f"{title}, nothing read before", "ms", first_ms, goal=MADE_GOAL),
        plain_row(f"{title}, others made before", "ms", [ms for ms, _ in again], goal=MADE_GOAL),
        plain_row(f"{title}, the largest", "bytes", [max(sizes)], goal=SIZE_GOAL),
        plain_row(f"check of the {title}", "ms", checked_ms),
    ]


async def _made(archive: Archive, task: str) -> tuple[float, bytes]:
    """How long it took (ms), from the request to the bytes."""
    began = time.perf_counter()
    log = await archive.log(0)
    assert log is not None
    proof = await prove(log, task)
    assert proof is not None
    written = write_proof(proof)
    return (time.perf_counter() - began) * 1_000, written
