"""Statistics as of now, folded from an archive alone, beside reading and decoding the same events
and doing nothing with them."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from api.replay.chosen import in_order
from api.replay.span import span_of
from bench.archived import EPOCH, seal_history
from bench.measure import Goal, Measured, alternate, row
from bench.scale import Scale
from bench.verify import FLOOR, decode_s
from consumers.collector import rarely_collecting
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.objects import ObjectStore
from ledger.objects.local_folder import LocalFolder
from projections.lives import Counts, Lives

GOAL: Final = Goal(ratio_min=0.25)
"""And 100,000 events a second on the machine that the figures in README.md are of."""


async def run(scale: Scale) -> Sequence[Measured]:
    """Rounds of both in turn, in this process."""
    with (
        tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder,
        rarely_collecting(),
    ):
        events = await seal_history(Path(folder), scale.history_tasks)
        objects = LocalFolder(Path(folder) / "objects")

        async def floor() -> float:
            return events / await decode_s(objects)

        async def figure() -> float:
            return events / await _fold_s(objects, scale.history_tasks)

        pairs = await alternate(scale.rebuild_rounds, floor, figure)
        await objects.close()
    title = f"replay of {events:,} events: statistics"
    return [row(title, "events/s", pairs, floor_name=FLOOR, goal=GOAL)]


async def _fold_s(objects: ObjectStore, tasks: int) -> float:
    began = time.perf_counter()
    events = Joined(None, Archive(objects, EPOCH, 1, cache_bytes=0))
    counts = Counts()
    lives = Lives(events.history, counts.ended, counts.returned)
    async for some in in_order(events, await span_of(events, None, None, 0)):
        await lives.take(some)
    assert counts.stats(lives.living.values(), None, None).total == tasks
    return time.perf_counter() - began
