"""Small archives for tests, sealed whole at once from the pure core."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from ledger.archive import merkle, tiles
from ledger.archive.checkpoint import Checkpoint, origin_of
from ledger.archive.compression import compress
from ledger.archive.index import (
    Summary,
    index_root,
    key_of,
    pack_segment,
    segment_name,
    segment_ranges,
)
from ledger.archive.leaf import PLAIN_TYPES, data_hash, pack_leaf
from ledger.archive.merkle import leaf_hash
from ledger.archive.notes import Note, NoteSigner
from ledger.archive.reader import Archive, log_prefix
from ledger.archive.tiles import TILE_WIDTH, Stored
from ledger.objects import ObjectStore
from ledger.objects.local_folder import LocalFolder
from ledger.store import Position, Recorded, Store
from tests.ledger.archive.rows import rows_of

Item = TypeVar("Item")

EPOCH: Final = "0123456789abcdef0123456789abcdef"
T0: Final = 1_763_811_000_000
SEED: Final = bytes(range(32))
EVENTS_MAX: Final = 100_000
TYPES: Final = ("TaskSubmitted", "TaskStarted", "TaskProgressed", "TaskCompleted")


def a_task(number: int) -> str:
    """The id of a task; ids are in the order of the numbers' hashes."""
    digits = hashlib.sha256(b"%d" % number).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-7{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"


def histories(tasks: int, events_each: int = 4, partition: int = 0) -> list[Recorded]:
    """Events of so many tasks, all first ones first."""
    entries = [f"{T0 + at}-0" for at in range(tasks * events_each)]
    found: list[Recorded] = []
    for at, entry in enumerate(entries):
        round_, number = divmod(at, tasks)
        found.append(
            Recorded(
                Position(partition, entry),
                TYPES[round_ % len(TYPES)],
                a_task(number),
                round_ + 1,
                T0 + at,
                b'{"number":%d,"message":"n\xc3\xa4chste"}' % at,
                b'{"actor":"somebody","request":"r-%d"}' % at,
                entries[at - tasks] if round_ else "",
            )
        )
    return found


async def seal(
    objects: ObjectStore,
    events: Sequence[Recorded],
    *,
    epoch: str = EPOCH,
    partition: int = 0,
    seeds: Sequence[bytes] = (SEED,),
    changed: dict[int, Stored] | None = None,
) -> list[NoteSigner]:
    """A log of these events, signed by these keys. `changed`: what lies beside some leaves in the
    place of their data."""
    prefix = log_prefix(epoch, partition)
    entries, stored = _leaves(events)
    for index, each in enumerate(stored):
        if len(each.data) > tiles.APART_BYTES:
            await objects.write(prefix + tiles.apart_name(index), compress(each.data))
            stored[index] = Stored(each.salt, b"", apart=True)
    for index, other in (changed or {}).items():
        stored[index] = other
    size = len(events)
    for number, (some, data) in enumerate(zip(_cut(entries), _cut(stored), strict=True)):
        width = len(some)
        for name, packed in (
            (tiles.entries_name(number, width), tiles.pack_entries(some)),
            (tiles.data_name(number, width), tiles.pack_data(data)),
        ):
            await objects.write(prefix + name, compress(packed))
    level, hashes = 0, [leaf_hash(entry) for entry in entries]
    root = merkle.root(hashes)
    while hashes:
        for number, some in enumerate(_cut(hashes)):
            await objects.write(prefix + tiles.tile_name(level, number, len(some)), b"".join(some))
        whole = [some for some in _cut(hashes) if len(some) == TILE_WIDTH]
        level, hashes = level + 1, [merkle.root(some) for some in whole]
    summaries: list[Summary] = []
    for start, end in segment_ranges(size):
        rows = rows_of((key_of(events[at].task_id), at) for at in range(start, end))
        packed, summary = pack_segment((start, end), rows, compress)
        await objects.write(prefix + segment_name((start, end)), packed)
        summaries.append(summary)
    origin = origin_of(epoch, partition)
    last = events[-1].position.entry if events else ""
    text = Checkpoint(origin, size, root, index_root(summaries), last).text
    signers = [NoteSigner(origin, seed) for seed in seeds]
    note = Note(text, tuple(signer.sign(text) for signer in signers))
    await objects.write(prefix + tiles.CHECKPOINT, note.whole.encode())
    return signers


async def archive_of(store: Store, folder: Path) -> Archive:
    """An archive in a folder, with all that a store has."""
    archive = Archive(LocalFolder(folder), await store.epoch(), store.partitions)
    for partition in range(store.partitions):
        beginning = Position(partition, "0-0")
        events = await store.events_after(beginning, EVENTS_MAX, 0)
        await seal(archive.objects, events, epoch=archive.epoch, partition=partition)
    return archive


def _leaves(events: Iterable[Recorded]) -> tuple[list[bytes], list[Stored]]:
    last: dict[str, bytes] = {}
    entries: list[bytes] = []
    stored: list[Stored] = []
    for event in events:
        plain = event.type in PLAIN_TYPES
        salt = b"" if plain else hashlib.sha256(event.position.entry.encode()).digest()[:16]
        entry = pack_leaf(event, last.get(event.task_id, b""), data_hash(salt, event.data))
        last[event.task_id] = leaf_hash(entry)
        entries.append(entry)
        stored.append(Stored(salt, event.data))
    return entries, stored


def _cut(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[at : at + TILE_WIDTH] for at in range(0, len(items), TILE_WIDTH)]
