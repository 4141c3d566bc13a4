"""The handlers of a run's workers; each attempt is in the journal in FAULTS_LOG_DIR."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from consumers import Context, PermanentError, handler
from tests.faults.campaign.journal import Journal

TICK_S = 0.1
_journal = Journal(Path(os.environ["FAULTS_LOG_DIR"]), os.environ["FAULTS_ROLE"])


@handler("embedding_generation")
async def on_loop(context: Context, payload: dict[str, Any]) -> str:
    """As its payload says: work for a while, fail at first, or fail for good."""
    with _journal.run(context) as run:
        for tick in range(payload["ticks"]):
            await asyncio.sleep(TICK_S)
            run.note("works")
            if tick == 0:
                context.progress(50, "half way")
        if payload["fails"] >= context.attempt:
            raise RuntimeError("fails at first")
        if payload["fails"] < 0:
            raise PermanentError("fails for good")
        return run.name


@handler("vector_storage")
def in_thread(context: Context, _: dict[str, Any]) -> str:
    """Work for a moment in a thread."""
    with _journal.run(context) as run:
        time.sleep(0.01)
        return run.name


@handler("document_processing", executor="process")
def in_process(context: Context, payload: dict[str, Any]) -> str:
    """Work for a while in a process, which is killed for a cancel and when its time is up."""
    with _journal.run(context) as run:
        for _ in range(payload["ticks"]):
            time.sleep(TICK_S)
            run.note("works")
        return run.name
