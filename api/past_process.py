"""`python -m api.past_process PATH AT_MS`: folds the ledger up to a moment, beside the API, which
must not stand still for it."""

import os
import sys
from pathlib import Path
from typing import Final

import uvloop

from consumers.collector import collect_rarely
from consumers.pool import end_with_parent
from consumers.roles import open_store, run_reported
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.objects import open_objects
from ledger.settings import Settings
from projections.past import build_past

NAME: Final = "past"
NICENESS: Final = 10
"""What serves goes first."""


async def _build(settings: Settings, path: Path, at_ms: int) -> None:
    store = await open_store(settings)
    objects = open_objects(settings)
    try:
        events = Joined(store, Archive(objects, "", store.partitions))
        await build_past(events, path, at_ms, skipped=settings.skip_events)
    finally:
        await objects.close()
        await store.close()


def main() -> int:
    """The exit code."""
    _, path, at_ms = sys.argv
    end_with_parent()
    os.nice(NICENESS)
    collect_rarely()
    return run_reported(NAME, lambda settings: uvloop.run(_build(settings, Path(path), int(at_ms))))


if __name__ == "__main__":
    sys.exit(main())
