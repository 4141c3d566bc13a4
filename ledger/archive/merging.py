"""Segments of the index made one, without looking into more than has to change.

What is larger is older, and ids of tasks are in the order of time: most blocks of the first segment
are taken over as they are.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final

from ledger.archive.index import (
    ID_BYTES,
    Compress,
    SegmentPacker,
    Summary,
    number_at,
    pack_record,
    packed_number,
    unpack_record,
)
from ledger.archive.merkle import Range
from ledger.archive.segment import Segment

_key: Final = itemgetter(slice(ID_BYTES))
_PAST_ALL: Final = b"\xff" * (ID_BYTES + 1)
"""No key is greater."""


def merge(
    covered: Range,
    segments: Sequence[Segment],
    records: Iterable[bytes],
    compress: Compress,
    decompress: Compress,
) -> tuple[bytes, Summary]:
    """The segment of a range, from those of its parts, which follow upon one another from its start
    on, and the records of the leaves behind those, in order, packed from the range's start on.

    Raises NoSegment for a segment that was altered.
    """
    start = covered[0]
    packer = SegmentPacker(covered, compress)
    parts = [_Part(_rebased(each, start, decompress)) for each in segments[1:]]
    parts.append(_Part(iter([list(records)])))
    if segments:
        first = segments[0]
        whole = _copy_blocks(packer, first, min(part.next_key for part in parts))
        parts.insert(0, _Part(_rebased(first, start, decompress, whole)))
    while any(part.records for part in parts):
        bound = min(part.last_key for part in parts)
        some = [taken for part in parts if (taken := part.take(bound))]
        packer.add(some[0] if len(some) == 1 else _joined(some, start))
    return packer.whole()


class _Part:
    """Records in order, some at a time."""

    def __init__(self, runs: Iterator[list[bytes]]) -> None:
        self._runs = runs
        self._more = True
        self.records: list[bytes] = []
        self._fill()

    @property
    def next_key(self) -> bytes:
        return _key(self.records[0]) if self.records else _PAST_ALL

    @property
    def last_key(self) -> bytes:
        """Up to which one knows all of its records."""
        return _key(self.records[-1]) if self._more else _PAST_ALL

    def take(self, bound: bytes) -> list[bytes]:
        """Those up to a key, and with it."""
        at = bisect_right(self.records, bound, key=_key)
        taken = self.records[:at]
        del self.records[:at]
        self._fill()
        return taken

    def _fill(self) -> None:
        while self._more and not self.records:
            run = next(self._runs, None)
            if run is None:
                self._more = False
            else:
                self.records = run


def _copy_blocks(packer: SegmentPacker, segment: Segment, before: bytes) -> int:
    """Take over the blocks of a segment that come before a key as they are; how many those are."""
    # A block ends before the next one's first key. The last one may not be full.
    firsts = [block.first for block in segment.blocks[1:]]
    count = bisect_right(firsts, before)
    for number, block in enumerate(segment.blocks[:count]):
        packer.add_block(block.first, segment.packed_block(number), block.root)
    return count


def _rebased(
    segment: Segment, start: int, decompress: Compress, first: int = 0
) -> Iterator[list[bytes]]:
    """A segment's records by blocks, from one of these on, as they are packed from `start` on."""
    shift = segment.covered[0] - start
    for number in range(first, len(segment.blocks)):
        records = segment.block_records(number, decompress)
        yield [_shifted(record, shift) for record in records] if shift else records


def _shifted(record: bytes, shift: int) -> bytes:
    """The record of the same leaves, where the range begins so many leaves earlier."""
    _, first_at = number_at(record, ID_BYTES)
    gap, rest_at = number_at(record, first_at)
    return record[:first_at] + packed_number(gap + shift) + record[rest_at:]


def _joined(parts: Iterable[list[bytes]], start: int) -> list[bytes]:
    """One record of each task, in the order of the keys, from records of ranges that follow upon
    one another."""
    records = [record for part in parts for record in part]
    records.sort(key=_key)  # stable: earlier ranges come first
    keys = [_key(record) for record in records]
    if len(set(keys)) == len(keys):
        return records
    joined: list[bytes] = []
    at = 0
    while at < len(keys):
        end = at + 1
        while end < len(keys) and keys[end] == keys[at]:
            end += 1
        joined.append(_one(records[at:end], start) if end > at + 1 else records[at])
        at = end
    return joined


def _one(records: Sequence[bytes], start: int) -> bytes:
    leaves = [leaf for record in records for leaf in unpack_record(record, start)[1]]
    return pack_record((_key(records[0]), leaves), start)
