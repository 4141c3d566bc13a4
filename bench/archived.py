"""The ledger of `bench.history`, sealed into an archive in a folder."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from bench.history import entries
from ledger.archive.keys import KeyFile
from ledger.archive.reader import Archive
from ledger.archive.writer import LogWriter
from ledger.objects.local_folder import LocalFolder
from ledger.script_format import read_recorded
from ledger.store import Recorded

EPOCH: Final = "be9c" * 8
SEALED_AT_ONCE: Final = 2_048
"""Events of a checkpoint."""


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


async def _may_sign() -> None:
    pass
