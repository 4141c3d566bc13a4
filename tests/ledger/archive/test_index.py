"""The index of tasks: which leaves each has, and the proof that there are no more."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.archive import merkle
from ledger.archive.compression import compress, decompress
from ledger.archive.index import (
    LARGEST,
    SMALLEST,
    NoSegment,
    key_of,
    pack_record,
    pack_segment,
    segment_ranges,
    unpack_record,
)
from ledger.archive.merkle import leaf_hash
from ledger.archive.segment import Place, Segment
from ledger.archive.tiles import TILE_WIDTH
from ledger.identity import SYSTEM
from tests.ledger.archive.rows import rows_in, rows_of

KEYS = st.integers(min_value=0, max_value=40).map(lambda n: (n * 7).to_bytes(16, "big"))


@given(size=st.integers(min_value=0, max_value=5 * LARGEST))
def test_segments_cover_a_log_without_gaps_and_there_are_few(size: int):
    ranges = segment_ranges(size)
    assert [start for start, _ in ranges] == [0, *(end for _, end in ranges)][: len(ranges)]
    assert (ranges[-1][1] if ranges else 0) == size
    lengths = [end - start for start, end in ranges]
    assert lengths == sorted(lengths, reverse=True)
    assert len(ranges) <= size // LARGEST + LARGEST.bit_length()
    # each lies where its length says, which is what lets two of them become one
    assert all(start % (end - start) == 0 for start, end in ranges if end - start >= SMALLEST)


@given(leaves=st.sets(st.integers(min_value=100, max_value=1 << 40), min_size=1), key=KEYS)
def test_a_record_comes_back(leaves: set[int], key: bytes):
    row = (key, sorted(leaves))
    assert unpack_record(pack_record(row, 100), 100) == row


@given(leaves=st.lists(KEYS, min_size=1, max_size=900), start=st.sampled_from([0, 1 << 22]))
def test_a_segment_tells_each_tasks_leaves_and_proves_them(leaves: list[bytes], start: int):
    # given a segment
    rows = rows_of((key, start + n) for n, key in enumerate(leaves))
    packed, summary = pack_segment((start, start + len(leaves)), rows, compress)
    segment = Segment.parse(packed)
    assert segment.summary == summary
    assert list(rows_in(segment)) == rows
    known = dict(rows)
    for number in range(0, 42 * 7, 5):
        # when a task is asked for, whether it is there or not
        key = number.to_bytes(16, "big")
        assert list(leaves_of(segment, key)) == known.get(key, [])
        places = places_of(segment, key)
        # then what is told is proved to stand in the segment
        for place in places:
            root = merkle.root_from_inclusion(
                place.number, summary.records, leaf_hash(place.record), place.proof
            )
            assert root == summary.root
        if key in known:
            [place] = places
            assert unpack_record(place.record, start) == (key, known[key])
        else:
            # and what is not there would stand between neighbours
            before = [place for place in places if place.key < key]
            after = [place for place in places if place.key > key]
            assert len(before) + len(after) == len(places) > 0
            if before and after:
                assert after[0].number == before[0].number + 1
            elif after:
                assert after[0].number == 0
            else:
                assert before[0].number == summary.records - 1


def leaves_of(segment: Segment, key: bytes) -> Sequence[int]:
    if not segment.count:
        return ()
    return segment.leaves_in(segment.block_records(segment.number_of(key), decompress), key)


def places_of(segment: Segment, key: bytes) -> list[Place]:
    number = segment.number_of(key)
    proving = segment.proving(number, segment.block_records(number, decompress), key)
    return [
        segment.place(each, segment.block_records(each // TILE_WIDTH, decompress))
        for each in proving
    ]


@given(leaves=st.lists(KEYS, min_size=1, max_size=300), data=st.data())
def test_a_changed_byte_is_noticed(leaves: list[bytes], data: st.DataObject):
    rows = rows_of((key, n) for n, key in enumerate(leaves))
    packed, summary = pack_segment((0, len(leaves)), rows, compress)
    at = data.draw(st.integers(min_value=0, max_value=len(packed) - 1))
    changed = bytearray(packed)
    changed[at] ^= data.draw(st.integers(min_value=1, max_value=255))
    try:
        segment = Segment.parse(bytes(changed))
        assert segment.summary == summary
        found = list(rows_in(segment))
    except (ValueError, AssertionError):
        return
    # offsets of the directory may be changed and lead to the same blocks nevertheless
    assert found == rows


def test_the_service_as_a_whole_stands_before_all_tasks():
    assert key_of(SYSTEM) == bytes(16)
    assert key_of("0193b9e0-5c31-7cc4-9f6e-3f0d3f0e7a11") > key_of(SYSTEM)


@pytest.mark.parametrize("packed", [b"", b"LQI1", b"LQI2" + bytes(32), b"LQI1" + bytes(31)])
def test_what_is_no_segment_is_refused(packed: bytes):
    with pytest.raises(NoSegment):
        Segment.parse(packed)


@pytest.mark.parametrize("record", [bytes(16), bytes(16) + b"\x80", bytes(15) + b"\x01\x01"])
def test_what_is_no_record_is_refused(record: bytes):
    with pytest.raises(NoSegment):
        unpack_record(record, 0)
