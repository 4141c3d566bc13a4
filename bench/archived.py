"""The ledger of `bench.history`, sealed into an archive in a folder, and what it takes to read it
and do nothing with it."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from bench.folders import new_folder
from bench.history import entries
from bench.measure import Goal, Measured, alternate, row
from bench.scale import Scale
from consumers.collector import rarely_collecting
from ledger.archive.keys import KeyFile
from ledger.archive.leaf import unpack_leaf
from ledger.archive.reader import Archive
from ledger.archive.tiles import TILE_WIDTH
from ledger.archive.writer import LogWriter
from ledger.objects import ObjectStore
from ledger.objects.local_folder import LocalFolder
from ledger.script_format import read_recorded
from ledger.store import Recorded

EPOCH: Final = "be9c" * 8
SEALED_AT_ONCE: Final = 2_048
"""Events of a checkpoint."""

FLOOR: Final = "the same bundles read, leaves and events decoded"


def recorded(tasks: int) -> Iterator[Recorded]:
    """The events of so many tasks, as they would be read from the ledger."""
    for entry, fields in entries(tasks):
        flat = [each if isinstance(each, bytes) else str(each).encode() for each in fields]
        yield read_recorded(0, (entry.encode(), flat))


async def seal_history(folder: Path, tasks: int) -> int:
    """Seal the lives of so many tasks; returns how many events."""
    keys = KeyFile(folder / "archive.key")
    keys.make()
    objects = LocalFolder(folder / "objects")
    writer = LogWriter(Archive(objects, EPOCH, 1), 0, keys)
    await writer.open()
    events = recorded(tasks)
    while some := list(islice(events, SEALED_AT_ONCE)):
        await writer.add(some)
        await writer.seal(_may_sign)
    await objects.close()
    return writer.size


async def beside_decoding(
    scale: Scale, what: str, seconds: Callable[[ObjectStore, int], Awaitable[float]], goal: Goal
) -> Sequence[Measured]:
    """Events a second of something that takes so many `seconds` for an archive of so many events,
    beside reading and decoding the same ones: rounds of both in turn, in this process."""
    folder = new_folder()
    with rarely_collecting():
        events = await seal_history(folder, scale.history_tasks)
        objects = LocalFolder(folder / "objects")

        async def floor() -> float:
            return events / await _decode_s(objects)

        async def figure() -> float:
            return events / await seconds(objects, events)

        pairs = await alternate(scale.rebuild_rounds, floor, figure)
        await objects.close()
    title = what.format(f"{events:,} events")
    return [row(title, "events/s", pairs, floor_name=FLOOR, goal=goal)]


async def _decode_s(objects: ObjectStore) -> float:
    began = time.perf_counter()
    log = await Archive(objects, EPOCH, 1, cache_bytes=0).log(0)
    assert log is not None
    for number in range(-(-log.size // TILE_WIDTH)):
        entries, stored = await log.entries(number), await log.stored(number)
        for entry, beside in zip(entries, stored, strict=True):
            unpack_leaf(0, entry).recorded(beside.data).event()
    return time.perf_counter() - began


async def _may_sign() -> None:
    pass
