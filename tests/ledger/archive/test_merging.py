"""A segment that was made of others is the one that would have been made at once."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.archive.compression import compress, decompress
from ledger.archive.index import (
    NoSegment,
    Row,
    pack_record,
    pack_segment,
)
from ledger.archive.merging import merge
from ledger.archive.segment import Segment
from tests.ledger.archive.rows import merged, rows_of


def key(number: int, *, in_order: bool) -> bytes:
    return number.to_bytes(16, "big") if in_order else hashlib.md5(b"%d" % number).digest()  # noqa: S324


def segment_of(start: int, keys: list[bytes]) -> tuple[Segment, list[Row]]:
    rows = rows_of((each, start + n) for n, each in enumerate(keys))
    packed, _ = pack_segment((start, start + len(keys)), rows, compress)
    return Segment.parse(packed), rows


@given(
    lengths=st.lists(st.sampled_from([1, 3, 255, 256, 257, 700]), max_size=4),
    new=st.sampled_from([0, 1, 300]),
    tasks=st.sampled_from([1, 5, 600, 100_000]),
    in_order=st.booleans(),
    start=st.sampled_from([0, 1 << 20]),
)
def test_merged_segments_are_one_segment(
    lengths: list[int], new: int, tasks: int, in_order: bool, start: int
):
    # given segments that follow upon one another, and what comes behind them
    segments: list[Segment] = []
    rows: list[list[Row]] = []
    at = start
    for length in lengths:
        keys = [key(n * 7919 % tasks + n // 9, in_order=in_order) for n in range(at, at + length)]
        segment, those = segment_of(at, keys)
        segments.append(segment)
        rows.append(those)
        at += length
    added = rows_of((key(n // 3, in_order=in_order), n) for n in range(at, at + new))
    # when they are merged
    records = [pack_record(row, start) for row in added]
    found = merge((start, at + new), segments, records, compress, decompress)
    # then it is the segment of all of them
    expected = pack_segment((start, at + new), merged([*rows, added]), compress)
    assert found == expected


def test_a_block_that_was_altered_is_not_merged():
    # given a segment whose directory tells of other records than those that its block has
    segment, _ = segment_of(0, [key(n, in_order=True) for n in range(10)])
    other, _ = segment_of(0, [key(n + 1, in_order=True) for n in range(10)])
    forged = Segment((0, 10), 10, other.entries, segment.packed_block(0))
    # when it is merged, then that is noticed
    added = pack_record((key(0, in_order=True), [10]), 0)
    with pytest.raises(NoSegment, match="was altered"):
        merge((0, 11), [forged], [added], compress, decompress)
