"""Logs whose tasks are proved in tests."""

import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from ledger.archive.checkpoint import origin_of
from ledger.archive.compression import compress, decompress
from ledger.archive.keys import ArchiveKeys, KeyFile
from ledger.archive.notes import NoteSigner, Verifier
from ledger.archive.proof import Proof
from ledger.archive.prover import prove
from ledger.archive.reader import Archive, log_prefix
from ledger.archive.tiles import TILE_WIDTH, Stored, data_name, pack_data, unpack_data
from ledger.archive.writer import LogWriter
from ledger.objects import ObjectStore
from ledger.store import Position, Recorded, Store
from tests.ledger.archive.sealed import EPOCH, may_sign

SEEDS: Final = tuple(bytes([number]) * 32 for number in range(4))
"""Of the keys that take one another's place."""

EVENTS_MAX: Final = 10_000
"""In a partition of a test's ledger."""


def key_of(number: int, epoch: str = EPOCH, partition: int = 0) -> Verifier:
    """The public key of a seed."""
    return NoteSigner(origin_of(epoch, partition), SEEDS[number]).verifier


async def seal(
    objects: ObjectStore,
    events: Sequence[Recorded],
    *,
    epoch: str = EPOCH,
    partition: int = 0,
    first_key: int = 0,
    rotated_at: Sequence[int] = (),
) -> None:
    """A log of these events. `rotated_at`: from how many on the next key signs. The last event is
    sealed for itself, so that the last checkpoint has one signature, as most have."""
    with tempfile.TemporaryDirectory() as folder:
        key_file = KeyFile(Path(folder) / "archive.key")
        cuts = [0, *rotated_at, len(events)]
        for number, (start, end) in enumerate(pairwise(cuts), first_key + 1):
            key_file.path.write_text(ArchiveKeys(bytes(32), SEEDS[first_key:number]).text)
            writer = LogWriter(Archive(objects, epoch, 8), partition, key_file)
            await writer.open()
            for some in filter(None, (events[start : end - 1], events[end - 1 : end])):
                assert await writer.add(some) == []
                await writer.seal(may_sign)


async def put_in_place(objects: ObjectStore, changed: Mapping[int, Stored], size: int) -> None:
    """Let something else lie beside some leaves of the first bundle of a log of `size`."""
    name = log_prefix(EPOCH, 0) + data_name(0, min(size, TILE_WIDTH))
    stored = unpack_data(decompress(await objects.read(name)))
    for index, other in changed.items():
        stored[index] = other
    await objects.write(name, compress(pack_data(stored)))


async def proved(
    objects: ObjectStore, task_id: str, *, epoch: str = EPOCH, partition: int = 0
) -> Proof:
    """The proof of a task that is there."""
    log = await Archive(objects, epoch, 8).log(partition)
    assert log is not None
    proof = await prove(log, task_id)
    assert proof is not None
    return proof


async def seal_all(store: Store, objects: ObjectStore, key_file: KeyFile) -> None:
    """Seal what a ledger has, and its archive has not."""
    archive = Archive(objects, await store.epoch(), store.partitions)
    key_file.make()
    for partition in range(store.partitions):
        writer = LogWriter(archive, partition, key_file)
        await writer.open()
        after = Position(partition, "0-0") if writer.last is None else writer.last.position
        if events := await store.events_after(after, EVENTS_MAX, 0):
            assert await writer.add(events) == []
            await writer.seal(may_sign)
