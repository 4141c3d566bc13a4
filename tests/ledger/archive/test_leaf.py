"""Leaves are canonical JSON, by others' word too, and say all that there is to say of an event."""

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.archive.leaf import NoLeaf, data_hash, entry_of, pack_leaf, unpack_leaf
from ledger.codec import Meta, encode
from ledger.identity import SYSTEM
from ledger.moments import LAST_MS
from ledger.store import VERSION_MAX, Position, Recorded

NUMBERS_64 = st.integers(min_value=0, max_value=(1 << 64) - 1)
ENTRIES = st.tuples(NUMBERS_64, NUMBERS_64).map(lambda entry: f"{entry[0]}-{entry[1]}")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HEXADECIMAL = st.text("0f-", max_size=9)
PLAIN = st.text("aZ09._:@/-", max_size=9)
METAS = st.one_of(
    st.builds(Meta, TEXTS, TEXTS, TEXTS, TEXTS).map(encode),
    st.builds(Meta, PLAIN, PLAIN, HEXADECIMAL, HEXADECIMAL).map(encode),
    st.tuples(PLAIN, PLAIN).map(lambda of: f'{{"actor":"{of[0]}","commit":"{of[1]}"}}'.encode()),
    st.binary(max_size=30),
    st.just(b'{"commit": "spaced"}'),
    st.just(b'{"commit":"c","actor":"in another order"}'),
)
HASHES = st.binary(min_size=32, max_size=32)
EVENTS = st.builds(
    Recorded,
    st.builds(Position, st.just(3), ENTRIES),
    TEXTS,
    st.sampled_from(["0193b9e0-5c31-7cc4-9f6e-3f0d3f0e7a11", SYSTEM]),
    st.integers(min_value=1, max_value=VERSION_MAX),
    st.integers(min_value=0, max_value=LAST_MS),
    st.binary(max_size=50),
    METAS,
    st.one_of(st.just(""), ENTRIES, TEXTS),
)


@given(event=EVENTS, prev=st.one_of(st.just(b""), HASHES), salt=st.binary(max_size=16))
def test_a_leaf_says_what_the_event_was(event: Recorded, prev: bytes, salt: bytes):
    hashed = data_hash(salt, event.data)
    entry = pack_leaf(event, prev, hashed)
    found = unpack_leaf(3, entry)
    assert found.recorded(event.data) == event
    assert (found.prev, found.data_hash) == (prev, hashed)
    assert entry_of(entry) == event.position.entry


@given(event=EVENTS, prev=st.one_of(st.just(b""), HASHES))
def test_a_leaf_is_canonical_json(event: Recorded, prev: bytes):
    entry = pack_leaf(event, prev, bytes(32))
    told: Any = json.loads(entry)
    assert entry == rfc8785.dumps(told)


@pytest.mark.parametrize(
    ("version", "at"), [(1, -1), (1, LAST_MS + 1), (0, 1), (VERSION_MAX + 1, 1)]
)
def test_a_time_or_version_that_none_has_makes_no_leaf(version: int, at: int):
    event = Recorded(Position(0, "1-0"), "T", SYSTEM, version, at, b"", b"", "")
    with pytest.raises(NoLeaf, match="out of range"):
        pack_leaf(event, b"", bytes(32))
    # and is read from none
    possible = pack_leaf(replace(event, version=1, at=1), b"", bytes(32))
    told = {**json.loads(possible), "at": at, "version": version}
    with pytest.raises(NoLeaf, match="out of range"):
        unpack_leaf(0, encode(told))


@given(entry=st.binary(max_size=200))
def test_what_is_no_leaf_is_refused(entry: bytes):
    with pytest.raises(NoLeaf):
        unpack_leaf(0, entry)


@given(event=EVENTS, data=st.data())
def test_a_leaf_of_another_shape_is_refused(event: Recorded, data: st.DataObject):
    told: dict[str, Any] = json.loads(pack_leaf(event, b"", bytes(32)))
    field = data.draw(st.sampled_from(sorted(told)))
    if data.draw(st.booleans()):
        del told[field]
    else:
        told[field] = data.draw(st.sampled_from([None, [], 1.5]))
    with pytest.raises(NoLeaf):
        unpack_leaf(3, json.dumps(told).encode())
