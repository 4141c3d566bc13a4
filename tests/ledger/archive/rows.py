"""The index in its plainest form: each task's key, and its leaves."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from ledger.archive.compression import decompress
from ledger.archive.index import Row, unpack_record
from ledger.archive.segment import Segment


def rows_of(keys: Iterable[tuple[bytes, int]]) -> list[Row]:
    """Rows of leaves that are given as (task's key, number), in the order of the numbers."""
    found: dict[bytes, list[int]] = {}
    for key, number in keys:
        found.setdefault(key, []).append(number)
    return sorted(found.items())


def merged(parts: Sequence[Iterable[Row]]) -> Iterator[Row]:
    """The rows of ranges that follow upon one another, as those of one range."""
    in_order = heapq.merge(*parts, key=lambda row: row[0])  # stable: earlier ranges come first
    for key, rows in groupby(in_order, key=lambda row: row[0]):
        yield key, [leaf for _, some in rows for leaf in some]


def rows_in(segment: Segment) -> Iterator[Row]:
    """All of a segment. Raises NoSegment where a block is not what the directory says."""
    for number in range(segment.count):
        for record in segment.block_records(number, decompress):
            yield unpack_record(record, segment.covered[0])
