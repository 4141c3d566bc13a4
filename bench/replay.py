"""Statistics as of now, folded from an archive alone, beside reading and decoding the same events
and doing nothing with them."""

import time
from collections.abc import Sequence
from typing import Final

from api.replay.chosen import in_order
from api.replay.span import span_of
from bench.archived import EPOCH, beside_decoding
from bench.measure import Goal, Measured
from bench.scale import Scale
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.objects import ObjectStore
from projections.lives import Counts, Lives

GOAL: Final = Goal(ratio_min=0.25)
"""And 100,000 events a second on the machine that the figures in README.md are of."""


async def run(scale: Scale) -> Sequence[Measured]:
    """Of the bench's history."""

    async def fold_s(objects: ObjectStore, _events: int) -> float:
        return await _fold_s(objects, scale.history_tasks)

    return await beside_decoding(scale, "replay of {}: statistics", fold_s, GOAL)


async def _fold_s(objects: ObjectStore, tasks: int) -> float:
    began = time.perf_counter()
    events = Joined(None, Archive(objects, EPOCH, 1, cache_bytes=0))
    counts = Counts()
    lives = Lives(events.history, counts.ended, counts.returned)
    async for some in in_order(events, await span_of(events, None, None, 0)):
        await lives.take(some)
    assert counts.stats(lives.living.values(), None, None).total == tasks
    return time.perf_counter() - began
