"""Which leaves every task has, in a form that proves that there are no more.

A segment is about the leaves of a range: a record for each task that has any of them, in the order
of the tasks' ids, and a Merkle tree (RFC 6962) over the records. A log of some size has segments as
its size says (`segment_ranges`); the root over them stands in its checkpoint. So a record that is
in a segment's tree, or two neighbours between which there is none, say all that there is to say of
a task within a range.

    record   id (16 bytes), number of leaves, first leaf after the range's start, and the gaps
             between them, as LEB128
    segment  "LQI1", start, end, records, blocks (8 bytes each, big-endian), then for each block of
             256 records: id of the first one, offset, length (8 bytes each), hash of the block's
             tree; then the blocks, compressed: each record after its length as LEB128
"""

import struct
from binascii import unhexlify
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from ledger.archive import merkle
from ledger.archive.merkle import HASH_BYTES, Range
from ledger.archive.tiles import TILE_WIDTH
from ledger.identity import SYSTEM

SMALLEST: Final = 256
"""Leaves of the smallest whole segment; the last one of a log may have fewer."""

LARGEST: Final = 1 << 22
"""Leaves of the largest one: making one takes time and memory in proportion."""

ID_BYTES: Final = 16
_SYSTEM_KEY: Final = bytes(ID_BYTES)
MAGIC: Final = b"LQI1"
HEAD: Final = struct.Struct(">4sQQQQ")
BLOCK: Final = struct.Struct(f">{ID_BYTES}sQQ{HASH_BYTES}s")
_COMMITTED: Final = struct.Struct(f">QQQ{HASH_BYTES}s")

Compress = Callable[[bytes], bytes]
Row = tuple[bytes, Sequence[int]]
"""A task's key, and its leaves, in order."""


class NoSegment(ValueError):
    """Bytes that are no segment of an index; says why."""


def key_of(task_id: str) -> bytes:
    """How a task (or SYSTEM) stands in the index."""
    return _SYSTEM_KEY if task_id == SYSTEM else unhexlify(task_id.replace("-", ""))


def segment_ranges(size: int) -> list[Range]:
    """The ranges of the segments that a log of `size` leaves has: the largest ones first, each half
    as large as the one before or less, but for the largest size, of which there may be many."""
    ranges: list[Range] = []
    start = 0
    while size - start >= SMALLEST:
        length = min(LARGEST, 1 << ((size - start).bit_length() - 1))
        ranges.append((start, start + length))
        start += length
    if start < size:
        ranges.append((start, size))
    return ranges


def segment_name(covered: Range) -> str:
    """Where a segment lies."""
    return f"index/{covered[0]}-{covered[1]}"


class Summary(msgspec.Struct, frozen=True):
    """What a checkpoint commits to of a segment."""

    start: int
    end: int
    records: int
    root: bytes

    @property
    def hash(self) -> bytes:
        packed = _COMMITTED.pack(self.start, self.end, self.records, self.root)
        return merkle.leaf_hash(packed)


def index_root(summaries: Iterable[Summary]) -> bytes:
    """What stands in a checkpoint: the root over the segments of its size."""
    return merkle.root([each.hash for each in summaries])


def pack_record(row: Row, start: int) -> bytes:
    """A record, as it is hashed."""
    key, leaves = row
    if len(leaves) == 1:  # as they are where most leaves begin a task
        return key + _ONE_BYTE[1] + packed_number(leaves[0] - start)
    packed = [key, packed_number(len(leaves))]
    before = start
    for each in leaves:
        packed.append(packed_number(each - before))
        before = each
    return b"".join(packed)


def unpack_record(record: bytes, start: int) -> Row:
    """Raises NoSegment for bytes that are no record."""
    count, at = number_at(record, ID_BYTES)
    leaves: list[int] = []
    before = start
    for _ in range(min(count, len(record))):
        gap, at = number_at(record, at)
        before += gap
        leaves.append(before)
    found = (record[:ID_BYTES], leaves)
    if pack_record(found, start) != record:
        raise NoSegment("a record of the index is not written as it must be")
    return found


def records_of(task_ids: Iterable[str], first: int, start: int) -> list[bytes]:
    """The records of the leaves from the one of number `first` on, given whose they are; packed
    from `start` on."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for number, task_id in enumerate(task_ids, first):
        found[task_id].append(number)
    # The keys are in front, and no two are the same.
    return sorted([pack_record((key_of(task_id), each), start) for task_id, each in found.items()])


class SegmentPacker:
    """Makes a segment of its records, as they come in order."""

    def __init__(self, covered: Range, compress: Compress) -> None:
        self._covered = covered
        self._compress = compress
        self._directory: list[bytes] = []
        self._blocks: list[bytes] = []
        self._roots: list[bytes] = []
        self._pending: list[bytes] = []
        self._count = self._offset = 0

    def add(self, records: Iterable[bytes]) -> None:
        """The next records, as `pack_record` gives them."""
        pending = self._pending
        pending += records
        for at in range(0, len(pending) - TILE_WIDTH + 1, TILE_WIDTH):
            self._pack(pending[at : at + TILE_WIDTH])
        del pending[: len(pending) // TILE_WIDTH * TILE_WIDTH]

    def add_block(self, first: bytes, packed: bytes, root: bytes) -> None:
        """The next TILE_WIDTH records, as they stand in another segment that begins where this one
        does."""
        self._add(first, packed, root, TILE_WIDTH)

    def whole(self) -> tuple[bytes, Summary]:
        """The segment, and what is committed to of it."""
        if self._pending:
            self._pack(self._pending)
            self._pending = []
        start, end = self._covered
        head = HEAD.pack(MAGIC, start, end, self._count, len(self._blocks))
        packed = b"".join([head, *self._directory, *self._blocks])
        return packed, Summary(start, end, self._count, merkle.root(self._roots))

    def _pack(self, records: Sequence[bytes]) -> None:
        parts = [b""] * (2 * len(records))
        parts[::2], parts[1::2] = map(packed_number, map(len, records)), records
        packed = b"".join(parts)
        root = merkle.root([merkle.leaf_hash(record) for record in records])
        self._add(records[0][:ID_BYTES], self._compress(packed), root, len(records))

    def _add(self, first: bytes, packed: bytes, root: bytes, count: int) -> None:
        self._directory.append(BLOCK.pack(first, self._offset, len(packed), root))
        self._blocks.append(packed)
        self._roots.append(root)
        self._offset += len(packed)
        self._count += count


def pack_segment(covered: Range, rows: Iterable[Row], compress: Compress) -> tuple[bytes, Summary]:
    """A segment of these rows, and what is committed to of it."""
    packer = SegmentPacker(covered, compress)
    packer.add(pack_record(row, covered[0]) for row in rows)
    return packer.whole()


def packed_number(number: int) -> bytes:
    """A number as LEB128."""
    # Nearly all have one byte, or two.
    if number < 0x80:
        return _ONE_BYTE[number]
    if number < 0x4000:
        return _TWO_BYTES(number & 0x7F | 0x80, number >> 7)
    packed = bytearray()
    while number > 0x7F:
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    packed.append(number)
    return bytes(packed)


_ONE_BYTE: Final = tuple(bytes((number,)) for number in range(0x80))
_TWO_BYTES: Final = struct.Struct("BB").pack


def number_at(packed: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends. Raises NoSegment."""
    number = shift = 0
    while at < len(packed) and shift < 64:
        byte = packed[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
    raise NoSegment("a number of the index is cut off")
