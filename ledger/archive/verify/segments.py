"""Whether the index has what the leaves say, at every checkpoint.

The rows of those segments that may still become part of a larger one are kept, each task's as the
bytes of its leaves' numbers: some 80 bytes a leaf where tasks have three each, and they have fewer
than LARGEST leaves together.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from ledger.archive.compression import decompress
from ledger.archive.index import (
    BLOCK,
    HEAD,
    LARGEST,
    MAGIC,
    NoSegment,
    Row,
    Summary,
    index_root,
    pack_segment,
    segment_ranges,
)
from ledger.archive.merkle import Range
from ledger.archive.segment import Segment

_NUMBER: Final = "I"
"""Of LARGEST numbers, each fits."""

Rows = dict[bytes, bytes]
"""By task, the numbers of its leaves, from a multiple of LARGEST on, as the bytes of an array."""


class Index:
    """The index that a log must have, made anew from its leaves."""

    def __init__(self) -> None:
        self._size = 0
        self._rows: list[tuple[Range, Rows]] = []
        """By segment, those of the last checkpoint; none where no larger one can come."""
        self._summaries: list[Summary] = []
        self._pending: list[bytes] = []
        """Tasks of the leaves since the last checkpoint, in the leaves' order."""
        self.fresh: dict[Range, bytes] = {}
        """Segments that the last checkpoint made necessary, with their blocks not compressed."""

    def add(self, keys: Sequence[bytes]) -> None:
        """Of which tasks the next leaves are."""
        self._pending += keys

    @property
    def size(self) -> int:
        """The leaves so far."""
        return self._size + len(self._pending)

    def root(self) -> bytes:
        """What a checkpoint of the leaves so far has."""
        size = self.size
        ranges = segment_ranges(size)
        kept = 0
        while kept < len(self._rows) and self._rows[kept][0] == ranges[kept]:
            kept += 1
        parts = [rows for _, rows in self._rows[kept:]]
        del self._rows[kept:], self._summaries[kept:]
        self.fresh = {}
        taken = 0
        for covered in ranges[kept:]:
            start = max(covered[0], self._size)
            count = covered[1] - start
            rows = _joined(parts, self._pending[taken : taken + count], start % LARGEST)
            parts, taken = [], taken + count
            packed, summary = pack_segment(covered, _in_order(rows, covered), bytes)
            self.fresh[covered] = packed
            self._rows.append((covered, rows if covered[1] % LARGEST else {}))
            self._summaries.append(summary)
        self._size, self._pending = size, []
        return index_root(self._summaries)


def check_segment(packed: bytes, expected: bytes) -> None:
    """Whether a segment as it is kept is, but for the compression of its blocks, what it must be.
    Raises NoSegment, saying what is wrong."""
    found, right = Segment.parse(packed), Segment.parse(expected)
    if found.covered != right.covered:
        raise NoSegment(f"it is about the leaves {found.covered}, expected {right.covered}")
    if found.records != right.records:
        raise NoSegment(f"it has {found.records} tasks, expected {right.records}")
    blocks: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for number, block in enumerate(right.blocks):
        kept = found.packed_block(number)
        if decompress(kept) != right.packed_block(number):
            raise NoSegment(f"its block {number} is not what the leaves say")
        directory.append(BLOCK.pack(block.first, offset, len(kept), block.root))
        blocks.append(kept)
        offset += len(kept)
    head = HEAD.pack(MAGIC, *right.covered, right.records, len(right.blocks))
    if b"".join([head, *directory, *blocks]) != packed:
        raise NoSegment("its directory is not what its blocks say")


def _joined(parts: Sequence[Rows], keys: Sequence[bytes], start: int) -> Rows:
    """The rows of ranges that follow upon one another, the last one given by its leaves' tasks."""
    rows: Rows = {}
    for part in parts:
        if rows:
            for key, numbers in part.items():
                rows[key] = rows.get(key, b"") + numbers
        else:
            rows = part  # nobody else needs it any more
    numbers = array(_NUMBER, range(start, start + len(keys))).tobytes()
    width = len(numbers) // len(keys) if keys else 0
    for at, key in enumerate(keys):
        rows[key] = rows.get(key, b"") + numbers[at * width : (at + 1) * width]
    return rows


def _in_order(rows: Rows, covered: Range) -> Iterator[Row]:
    base = covered[0] - covered[0] % LARGEST
    for key in sorted(rows):
        numbers = array(_NUMBER, rows[key])
        yield key, [base + number for number in numbers] if base else numbers
