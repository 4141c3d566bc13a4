"""An archive verified, beside reading and decoding the same events and doing nothing with them."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.archived import EPOCH, seal_history
from bench.measure import Goal, Measured, alternate, row
from bench.scale import Scale
from consumers.collector import rarely_collecting
from ledger.archive.leaf import unpack_leaf
from ledger.archive.reader import Archive
from ledger.archive.tiles import TILE_WIDTH
from ledger.archive.verify.faults import Faults
from ledger.archive.verify.log import LogCheck, Options
from ledger.objects import ObjectStore
from ledger.objects.local_folder import LocalFolder

RATIO_GOAL: Final = Goal(ratio_min=0.2)
FLOOR: Final = "the same bundles read, leaves and events decoded"


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
            return events / await _verify_s(objects, events)

        pairs = await alternate(scale.rebuild_rounds, floor, figure)
        await objects.close()
    title = f"verify of {events:,} events"
    return [row(title, "events/s", pairs, floor_name=FLOOR, goal=RATIO_GOAL)]


async def decode_s(objects: ObjectStore) -> float:
    """Seconds that it takes to read and decode all events of the archive."""
    began = time.perf_counter()
    log = await Archive(objects, EPOCH, 1, cache_bytes=0).log(0)
    assert log is not None
    for number in range(-(-log.size // TILE_WIDTH)):
        entries, stored = await log.entries(number), await log.stored(number)
        for entry, beside in zip(entries, stored, strict=True):
            unpack_leaf(0, entry).recorded(beside.data).event()
    return time.perf_counter() - began


async def _verify_s(objects: ObjectStore, events: int) -> float:
    began = time.perf_counter()
    faults = Faults()
    report = await LogCheck(objects, EPOCH, 0, Options(), None, faults, _nothing).run()
    assert not report.faults and report.size == events
    return time.perf_counter() - began


def _nothing(_: int) -> None:
    pass
