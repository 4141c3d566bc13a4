"""Reads segments of the index: the directory in front, and the blocks that are asked for.

A segment of millions of leaves is large, and who looks up one task needs its directory and a block
or two. So a `Directory` knows where in the object each block lies, and takes it from whoever read
it; a `Segment` has all of them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import Final, Self

import msgspec

from ledger.archive import merkle
from ledger.archive.index import (
    BLOCK,
    HEAD,
    ID_BYTES,
    MAGIC,
    Compress,
    NoSegment,
    Summary,
    number_at,
    unpack_record,
)
from ledger.archive.merkle import HASH_BYTES, Range
from ledger.archive.tiles import TILE_WIDTH

BYTES_MAX: Final = 1 << 40
"""Of a segment: an offset beyond that is none."""


BLOCKS_TOGETHER: Final = 64
"""Blocks whose hashes are made one, once, so that a proof need not go through all of them; a power
of two."""


class Block(msgspec.Struct, frozen=True):
    """What the directory says of TILE_WIDTH records, or of the last ones of a segment."""

    first: bytes
    """The key of the first of them."""
    offset: int
    length: int
    root: bytes


class Place(msgspec.Struct, frozen=True):
    """A record with the proof that it stands in its segment, at `number`."""

    number: int
    record: bytes
    proof: tuple[bytes, ...]

    @property
    def key(self) -> bytes:
        return self.record[:ID_BYTES]


class Directory:
    """Which blocks a segment has. It is kept as it is stored, 64 bytes a block: a large one has
    thousands of them, of which few are looked at."""

    def __init__(self, covered: Range, records: int, entries: bytes) -> None:
        self.covered = covered
        self.records = records
        self.entries = entries

    @staticmethod
    def head(packed: bytes) -> tuple[Range, int, int]:
        """What a segment is about, its records, and how many bytes there are in front of its
        blocks, as its first bytes say. Raises NoSegment."""
        if len(packed) < HEAD.size or packed[:4] != MAGIC:
            raise NoSegment("these bytes are no segment of an index")
        _, start, end, records, count = HEAD.unpack_from(packed)
        if count != -(-records // TILE_WIDTH) or records > end - start:
            raise NoSegment("a segment of the index is cut off, or its directory is damaged")
        return (start, end), records, HEAD.size + count * BLOCK.size

    @classmethod
    def parse(cls, packed: bytes) -> Self:
        """From a segment, or what it begins with. Raises NoSegment."""
        covered, records, size = cls.head(packed)
        if size > len(packed):
            raise NoSegment("a segment of the index is cut off, or its directory is damaged")
        return cls(covered, records, packed[HEAD.size : size])

    @property
    def count(self) -> int:
        """Blocks."""
        return len(self.entries) // BLOCK.size

    @property
    def blocks(self) -> list[Block]:
        return [Block(*found) for found in BLOCK.iter_unpack(self.entries)]

    def block(self, number: int) -> Block:
        return Block(*BLOCK.unpack(self.entry(number)))

    def entry(self, number: int) -> bytes:
        """What it says of a block, as it is stored."""
        return self.entries[number * BLOCK.size : (number + 1) * BLOCK.size]

    def span(self, number: int) -> Range:
        """Where in the object a block lies. Raises NoSegment."""
        block = self.block(number)
        start = HEAD.size + len(self.entries) + block.offset
        if start + block.length > BYTES_MAX:
            raise NoSegment(f"block {number} of the index of {self.covered} has no place")
        return start, start + block.length

    @property
    def summary(self) -> Summary:
        """What the directory says; whether the blocks do is found when they are read."""
        return Summary(*self.covered, self.records, merkle.root(self._together))

    def records_in(self, number: int, packed: bytes, decompress: Compress) -> list[bytes]:
        """The records of a block. Raises NoSegment where they are not what the directory says."""
        unpacked = decompress(packed)
        records: list[bytes] = []
        at = 0
        while at < len(unpacked):
            length, first = number_at(unpacked, at)
            at = first + length
            records.append(unpacked[first:at])
        found = merkle.root([merkle.leaf_hash(record) for record in records])
        block = self.block(number)
        if at != len(unpacked) or found != block.root or not records:
            raise NoSegment(f"block {number} of the index of {self.covered} was altered")
        if records[0][:ID_BYTES] != block.first:
            raise NoSegment(f"block {number} of the index of {self.covered} begins elsewhere")
        return records

    # -- one task -----------------------------------------------------------------------------

    def number_of(self, key: bytes) -> int:
        """The block that has a task's record, if there is one; the first, where its key comes
        before all."""
        return max(bisect_right(range(self.count), key, key=self._first) - 1, 0)

    def next_to(self, number: int, records: Sequence[bytes], key: bytes) -> int | None:
        """The block that must begin behind a task's key, if that is to be in none: where it comes
        behind all records of the block of that number. The proofs have no firsts, so one that is
        damaged would lead past a task."""
        is_behind = records[-1][:ID_BYTES] < key
        return number + 1 if is_behind and number + 1 < self.count else None

    def leaves_in(self, records: Sequence[bytes], key: bytes) -> Sequence[int]:
        """A task's leaves within the range, from the records of the block of that number."""
        at = bisect_left(records, key)
        if at == len(records) or records[at][:ID_BYTES] != key:
            return ()
        return unpack_record(records[at], self.covered[0])[1]

    def proving(self, number: int, records: Sequence[bytes], key: bytes) -> list[int]:
        """Which records prove what leaves a task has within the range: its own, or else those
        between which it would stand. `records` are those of the task's block, `number`."""
        inner = bisect_left(records, key)
        at = number * TILE_WIDTH + inner
        if inner < len(records) and records[inner][:ID_BYTES] == key:
            return [at]
        return [each for each in (at - 1, at) if 0 <= each < self.records]

    def place(self, number: int, records: Sequence[bytes]) -> Place:
        """A record, given all of its block."""
        block, at = divmod(number, TILE_WIDTH)
        if at >= len(records):
            raise NoSegment(f"block {block} of the index of {self.covered} was altered")
        within = merkle.inclusion_proof([merkle.leaf_hash(record) for record in records], at)
        return Place(number, records[at], (*within, *self._above(block)))

    def _first(self, number: int) -> bytes:
        at = number * BLOCK.size
        return self.entries[at : at + ID_BYTES]

    def _above(self, block: int) -> list[bytes]:
        """What proves a block's hash."""
        number, at = divmod(block, BLOCKS_TOGETHER)
        beside = merkle.inclusion_proof(self._roots(number), at)
        return [*beside, *merkle.inclusion_proof(self._together, number)]

    @cached_property
    def _together(self) -> list[bytes]:
        numbers = range(-(-self.count // BLOCKS_TOGETHER))
        return [merkle.root(self._roots(number)) for number in numbers]

    def _roots(self, number: int) -> list[bytes]:
        """The hashes of some blocks that are together."""
        width, first = BLOCK.size, number * BLOCKS_TOGETHER
        ends = range(first + 1, min(first + BLOCKS_TOGETHER, self.count) + 1)
        return [self.entries[end * width - HASH_BYTES : end * width] for end in ends]


class Segment(Directory):
    """A whole one."""

    def __init__(self, covered: Range, records: int, entries: bytes, body: bytes) -> None:
        super().__init__(covered, records, entries)
        self._body = body

    @classmethod
    def parse(cls, packed: bytes) -> Self:
        """Raises NoSegment."""
        found = Directory.parse(packed)
        body = packed[HEAD.size + len(found.entries) :]
        return cls(found.covered, found.records, found.entries, body)

    def packed_block(self, number: int) -> bytes:
        """A block as it is kept."""
        block = self.block(number)
        return self._body[block.offset : block.offset + block.length]

    def block_records(self, number: int, decompress: Compress) -> list[bytes]:
        """The records of a block. Raises NoSegment where they are not what the directory says."""
        return self.records_in(number, self.packed_block(number), decompress)
