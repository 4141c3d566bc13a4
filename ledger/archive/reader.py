"""Reads logs from the object store: a partition's events as they were sealed.

Nothing is believed that contradicts what it stands beside, but proofs and signatures are not looked
at here: `verify` does that, and whoever gets a proof.
"""

import asyncio
import contextlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from typing import Final, TypeVar, cast

from ledger.archive import merkle, tiles
from ledger.archive.checkpoint import Checkpoint, NoCheckpoint, origin_of
from ledger.archive.compression import decompress
from ledger.archive.index import ID_BYTES, NoSegment, key_of, segment_name, segment_ranges
from ledger.archive.key_list import Introduced, unpack_keys
from ledger.archive.leaf import Leaf, NoLeaf, data_hash, unpack_leaf
from ledger.archive.merkle import Node, Range
from ledger.archive.notes import BadNote, Note
from ledger.archive.segment import Directory, Place, Segment
from ledger.archive.tiles import TILE_WIDTH, Stored
from ledger.objects import ObjectStore
from ledger.objects.together import all_done
from ledger.store import Position, Recorded

Parsed = TypeVar("Parsed")
Found = TypeVar("Found")

CACHE_BYTES: Final = 16 * 1024 * 1024
"""What a process keeps of what it has read, but for data: that may be erased."""

AT_ONCE: Final = 8
"""Bundles, segments of the index, or data that lies apart, that are read side by side."""

FIRST_BYTES: Final = 64 * 1024
"""Of a segment, read at once: small ones are whole then, and of most others it is the directory."""

UNPACKED_FACTOR: Final = 6
"""How much larger, about, objects are in memory."""


class Incomplete(Exception):
    """An object that a checkpoint says there is, and is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is missing")
        self.name = name


class Damaged(Exception):
    """An object of an archive that is not what it must be; says which, and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name


def log_prefix(epoch: str, partition: int) -> str:
    """Where a partition's log lies in the object store."""
    return f"archive/{epoch[:8]}/{partition}/"


class Archive:
    """All logs of a ledger. Every method may raise ObjectStoreError and Damaged."""

    def __init__(
        self, objects: ObjectStore, epoch: str, partitions: int, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.objects = objects
        self.epoch = epoch
        self.partitions = partitions
        self._cache = _Cache(cache_bytes)
        self._met: dict[int, Checkpoint] = {}
        """By partition, the last one."""

    async def log(self, partition: int) -> "SealedLog | None":
        """A partition's log as it is now; None where nothing was sealed yet."""
        name = log_prefix(self.epoch, partition) + tiles.CHECKPOINT
        try:
            note = Note.parse((await self.objects.read(name)).decode())
            checkpoint = Checkpoint.parse(note.text)
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, BadNote, NoCheckpoint) as error:
            raise Damaged(name, str(error)) from error
        met = self._met.get(partition, checkpoint)
        if checkpoint.size < met.size or (
            checkpoint.size == met.size and checkpoint.root != met.root
        ):
            # The archive was lost, and begun anew: its objects have the same names.
            self._cache.clear()
        self._met[partition] = checkpoint
        return self.log_at(partition, note, checkpoint)

    def log_at(self, partition: int, note: Note, checkpoint: Checkpoint) -> "SealedLog":
        """A partition's log as a checkpoint has it. Raises Damaged for one of another log."""
        expected = origin_of(self.epoch, partition)
        if checkpoint.origin != expected:
            raise Damaged(
                log_prefix(self.epoch, partition) + tiles.CHECKPOINT,
                f"it is of the log {checkpoint.origin}, expected {expected}",
            )
        return SealedLog(self.objects, self.epoch, partition, note, checkpoint, self._cache)


class SealedLog:
    """A partition's log at one checkpoint. Every method may raise ObjectStoreError, Damaged, and
    Incomplete: of an older checkpoint, parts may be gone that newer ones do not need."""

    def __init__(
        self,
        objects: ObjectStore,
        epoch: str,
        partition: int,
        note: Note,
        checkpoint: Checkpoint,
        cache: "_Cache",
    ) -> None:
        self.partition = partition
        self.note = note
        self.checkpoint = checkpoint
        self._objects = objects
        self._prefix = log_prefix(epoch, partition)
        self._cache = cache

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return self.checkpoint.size

    async def keys(self) -> list[Introduced]:
        """The keys that sign the log, in the order in which they were introduced; no signature is
        looked at."""
        name = self._prefix + tiles.KEYS
        return _parsed(name, unpack_keys, await self._read(name))

    # -- leaves and their data ----------------------------------------------------------------

    async def entries(self, number: int) -> list[bytes]:
        """The leaves of a bundle, as they are hashed."""
        width = self._width(number)
        name = self._prefix + tiles.entries_name(number, width)
        whole = self._prefix + tiles.entries_name(number)
        return _cut(await self._cached(name, _unpack_entries, whole), width, name)

    async def leaf(self, index: int) -> Leaf:
        """What one leaf says."""
        number, at = divmod(index, TILE_WIDTH)
        return self._leaf(index, (await self.entries(number))[at])

    async def stored(self, number: int) -> list[Stored]:
        """What lies beside the leaves of a bundle; of what lies apart, no data."""
        width = self._width(number)
        name = self._prefix + tiles.data_name(number, width)
        packed = await self._read(name, self._prefix + tiles.data_name(number))
        return _cut(_parsed(name, _unpack_data, packed), width, name)

    async def data(self, index: int, stored: Stored) -> bytes:
        """The data of a leaf, from wherever it lies."""
        if not stored.apart:
            return stored.data
        name = self._prefix + tiles.apart_name(index)
        return _parsed(name, decompress, await self._read(name))

    async def events(
        self, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[list[Recorded]]:
        """The events of these leaves, a bundle at a time; AT_ONCE of these are read side by side.
        Raises Damaged for data that is not what its leaf says, unless it was erased."""
        end = self.size if end is None else min(end, self.size)
        numbers = range(start // TILE_WIDTH, -(-end // TILE_WIDTH))
        for at in range(0, len(numbers), AT_ONCE):
            some = numbers[at : at + AT_ONCE]
            entries, stored = await asyncio.gather(
                all_done(map(self.entries, some)), all_done(map(self.stored, some))
            )
            for number, leaves, beside in zip(some, entries, stored, strict=True):
                first = number * TILE_WIDTH
                indices = range(max(start, first), min(end, first + TILE_WIDTH))
                whole = await self._with_data(indices, [beside[index - first] for index in indices])
                yield [
                    self._event_of(index, leaves[index - first], each)
                    for index, each in zip(indices, whole, strict=True)
                ]

    async def _with_data(self, indices: Sequence[int], stored: list[Stored]) -> list[Stored]:
        """What lies beside these leaves, with the data that lies apart: AT_ONCE of that are read
        side by side."""
        apart = [at for at, each in enumerate(stored) if each.apart]
        for begun in range(0, len(apart), AT_ONCE):
            some = apart[begun : begun + AT_ONCE]
            found = await all_done([self.data(indices[at], stored[at]) for at in some])
            for at, data in zip(some, found, strict=True):
                stored[at] = Stored(stored[at].salt, data, erased=stored[at].erased)
        return stored

    async def event(self, index: int) -> Recorded:
        """One event. Raises as `events`."""
        number, at = divmod(index, TILE_WIDTH)
        entries, stored = await asyncio.gather(self.entries(number), self.stored(number))
        [whole] = await self._with_data([index], [stored[at]])
        return self._event_of(index, entries[at], whole)

    async def events_of(self, indices: Sequence[int]) -> list[Recorded]:
        """These events, in this order; each bundle is read once. Raises as `events`."""
        records = await self.records(indices)
        whole = await self._with_data(indices, [stored for _, _, stored in records])
        return [
            self._event_of(index, entry, each)
            for (index, entry, _), each in zip(records, whole, strict=True)
        ]

    async def records(self, indices: Sequence[int]) -> list[tuple[int, bytes, Stored]]:
        """These leaves, as they are hashed, and what lies beside them; each bundle is read once."""
        numbers = list(dict.fromkeys(index // TILE_WIDTH for index in indices))
        found: dict[int, tuple[bytes, Stored]] = {}
        for first in range(0, len(numbers), AT_ONCE):
            some = numbers[first : first + AT_ONCE]
            entries = await all_done(map(self.entries, some))
            stored = await all_done(map(self.stored, some))
            bundles = dict(zip(some, zip(entries, stored, strict=True), strict=True))
            for index in indices:
                number, at = divmod(index, TILE_WIDTH)
                if number in bundles:
                    found[index] = bundles[number][0][at], bundles[number][1][at]
        return [(index, *found[index]) for index in indices]

    def _event_of(self, index: int, entry: bytes, stored: Stored) -> Recorded:
        leaf, data = self._leaf(index, entry), stored.data
        if data_hash(stored.salt, data) != leaf.data_hash and not stored.erased:
            name = self._prefix + tiles.data_name(index // TILE_WIDTH)
            raise Damaged(name, f"the data of {leaf.position} is not what its leaf says")
        return leaf.recorded(data)

    def _leaf(self, index: int, entry: bytes) -> Leaf:
        try:
            return unpack_leaf(self.partition, entry)
        except NoLeaf as error:
            name = self._prefix + tiles.entries_name(index // TILE_WIDTH)
            raise Damaged(name, f"leaf {index}: {error}") from error

    def _width(self, number: int) -> int:
        width = tiles.width_of(number, 0, self.size)
        if number < 0 or width == 0:
            raise ValueError(f"a log of {self.size} leaves has no bundle {number}")
        return width

    async def index_after(self, position: Position) -> int:
        """The first leaf whose event stands behind a position; the size, where none does."""
        wanted = position.order
        low, high = 0, -(-self.size // TILE_WIDTH)
        while low < high:
            middle = (low + high) // 2
            if (await self.leaf(middle * TILE_WIDTH)).position.order <= wanted:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            return 0
        first = (low - 1) * TILE_WIDTH
        entries = await self.entries(low - 1)

        def order(at: int) -> tuple[int, int]:
            return self._leaf(first + at, entries[at]).position.order

        return first + bisect_right(range(len(entries)), wanted, key=order)

    # -- one task -----------------------------------------------------------------------------

    async def leaves_of(self, task_id: str) -> list[int]:
        """Which leaves a task has."""
        key = key_of(task_id)

        async def look(segment: Directory) -> Sequence[int]:
            if not segment.count:
                return ()
            _, records = await self._block_of(segment, key)
            return segment.leaves_in(records, key)

        return [leaf for leaves in await self._in_segments(look) for leaf in leaves]

    async def places_of(self, task_id: str) -> list[tuple[Directory, list[Place]]]:
        """What proves which leaves a task has, of each segment of the index."""
        key = key_of(task_id)

        async def look(segment: Directory) -> tuple[Directory, list[Place]]:
            if not segment.count:
                return segment, []
            return segment, [
                segment.place(each, await self._block(segment, each // TILE_WIDTH))
                for each in segment.proving(*await self._block_of(segment, key), key)
            ]

        return await self._in_segments(look)

    async def _in_segments(self, look: Callable[[Directory], Awaitable[Found]]) -> list[Found]:
        ranges = segment_ranges(self.size)
        found: list[Found] = []
        for first in range(0, len(ranges), AT_ONCE):
            some = ranges[first : first + AT_ONCE]
            found += await all_done([self._in_segment(covered, look) for covered in some])
        return found

    async def _in_segment(
        self, covered: Range, look: Callable[[Directory], Awaitable[Found]]
    ) -> Found:
        name = self._prefix + segment_name(covered)
        if self._cache.get(name) is not None:
            # It may be that of an archive which was begun anew since, and has other blocks.
            with contextlib.suppress(ValueError):
                return await look(await self.directory(covered))
            self._cache.drop(name)
        directory = await self.directory(covered)
        with self._naming(covered):
            return await look(directory)

    async def _block_of(self, segment: Directory, key: bytes) -> tuple[int, list[bytes]]:
        """The block that has a task's record, if there is one. Raises as `_block`."""
        number = segment.number_of(key)
        records = await self._block(segment, number)
        following = segment.next_to(number, records, key)
        if following is not None and (await self._block(segment, following))[0][:ID_BYTES] <= key:
            raise NoSegment(f"block {following} of the index of {segment.covered} begins elsewhere")
        return number, records

    @contextlib.contextmanager
    def _naming(self, covered: Range) -> Generator[None]:
        """Whatever is wrong is so with this segment."""
        try:
            yield
        except ValueError as error:
            raise Damaged(self._prefix + segment_name(covered), str(error)) from error

    async def history(self, task_id: str) -> list[Recorded]:
        """A task's events, as far as they were sealed, oldest first."""
        return await self.events_of(await self.leaves_of(task_id))

    # -- the tree -----------------------------------------------------------------------------

    async def leaf_hash(self, index: int) -> bytes:
        """The hash of one leaf."""
        return await self._node((0, index))

    async def range_hash(self, covered: Range) -> bytes:
        """The root over the leaves of a range, as `merkle.nodes_of` takes it."""
        return merkle.fold([await self._node(node) for node in merkle.nodes_of(*covered)])

    async def inclusion_proof(self, index: int) -> list[bytes]:
        """That a leaf is in the tree."""
        ranges = merkle.inclusion_ranges(index, self.size)
        return [await self.range_hash(covered) for covered in ranges]

    async def consistency_proof(self, old: int) -> list[bytes]:
        """That the tree begins with that of an older size."""
        ranges = merkle.consistency_ranges(old, self.size)
        return [await self.range_hash(covered) for covered in ranges]

    async def hashes(self, level: int, number: int) -> list[bytes]:
        """The hashes of a tile."""
        width = tiles.width_of(number, level, self.size)
        name = self._prefix + tiles.tile_name(level, number, width)
        whole = self._prefix + tiles.tile_name(level, number)
        return _cut(await self._cached(name, tiles.hashes_in, whole), width, name)

    async def _node(self, node: Node) -> bytes:
        return tiles.node_in(await self.hashes(*tiles.tile_of(node)), node)

    # -- objects ------------------------------------------------------------------------------

    async def directory(self, covered: Range) -> Directory:
        """That of a segment of the index."""
        name = self._prefix + segment_name(covered)
        known = self._cache.get(name)
        if known is None:
            with self._naming(covered):
                known, size = await self._read_directory(name, covered)
            self._cache.put(name, known, size)
        return cast("Directory", known)

    async def _read_directory(self, name: str, covered: Range) -> tuple[Directory, int]:
        """And how many bytes it takes. The whole segment, where that is small."""
        packed = await self._read_range(name, 0, FIRST_BYTES)
        found, _, size = Directory.head(packed)
        if found != covered:
            raise NoSegment(f"it is about the leaves {found}")
        if len(packed) < FIRST_BYTES:
            return Segment.parse(packed), len(packed)
        if size > len(packed):
            packed += await self._read_range(name, len(packed), size - len(packed))
        return Directory.parse(packed), size

    async def _block(self, segment: Directory, number: int) -> list[bytes]:
        """The records of a block. Raises NoSegment, or what ValueError else damage leads to."""
        segment_at = self._prefix + segment_name(segment.covered)
        # Of another directory, a block of the same number is another one.
        name = f"{segment_at}#{segment.entry(number).hex()}"
        known = self._cache.get(name)
        if known is None:
            if isinstance(segment, Segment):
                packed = segment.packed_block(number)
            else:
                start, end = segment.span(number)
                packed = await self._read_range(segment_at, start, end - start)
            known = segment.records_in(number, packed, decompress)
            self._cache.put(name, known, UNPACKED_FACTOR * len(packed))
        return cast("list[bytes]", known)

    async def _cached(
        self, name: str, parse: Callable[[bytes], Parsed], fallback: str = ""
    ) -> Parsed:
        known = self._cache.get(name)
        if known is None:
            packed = await self._read(name, fallback)
            known = _parsed(name, parse, packed)
            self._cache.put(name, known, UNPACKED_FACTOR * len(packed))
        return cast("Parsed", known)

    async def _read(self, name: str, fallback: str = "") -> bytes:
        """`fallback`: what takes its place once that is there."""
        for each in dict.fromkeys((name, fallback or name)):
            try:
                return await self._objects.read(each)
            except FileNotFoundError:
                continue
        raise Incomplete(name)

    async def _read_range(self, name: str, start: int, length: int) -> bytes:
        try:
            return await self._objects.read_range(name, start, length)
        except FileNotFoundError as error:
            raise Incomplete(name) from error


class _Cache:
    """What was read last, by name."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[object, int]] = OrderedDict()

    def get(self, name: str) -> object | None:
        """What stands under a name."""
        known = self._kept.get(name)
        if known is None:
            return None
        self._kept.move_to_end(name)
        return known[0]

    def clear(self) -> None:
        """Let go of all."""
        self._kept.clear()
        self._bytes = 0

    def drop(self, name: str) -> None:
        """Let go of one."""
        _, size = self._kept.pop(name, (None, 0))
        self._bytes -= size

    def put(self, name: str, found: object, size: int) -> None:
        """Keep something that takes so many bytes, and let go of what was not asked for longest."""
        if name not in self._kept:
            self._kept[name] = found, size
            self._bytes += size
        while self._bytes > self._bytes_max and len(self._kept) > 1:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._bytes -= dropped


def _parsed(name: str, parse: Callable[[bytes], Parsed], packed: bytes) -> Parsed:
    try:
        return parse(packed)
    except ValueError as error:
        raise Damaged(name, str(error)) from error


def _cut(found: list[Parsed], width: int, name: str) -> list[Parsed]:
    """Of what may have grown since, as much as there is at the checkpoint."""
    if len(found) < width:
        raise Damaged(name, f"expected {width} entries, got {len(found)}")
    return found if len(found) == width else found[:width]


def _unpack_entries(packed: bytes) -> list[bytes]:
    return tiles.unpack_entries(decompress(packed))


def _unpack_data(packed: bytes) -> list[Stored]:
    return tiles.unpack_data(decompress(packed))
