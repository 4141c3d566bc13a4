"""Names and bytes of tiles and bundles: as tlog-tiles has them, and back again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.archive import merkle, tiles
from ledger.archive.growth import Growth, Made, Tail, superseded
from ledger.archive.index import Summary, segment_name, segment_ranges
from ledger.archive.last_leaves import LastLeaves
from ledger.archive.merkle import leaf_hash, nodes_of
from ledger.archive.salts import Salts
from ledger.archive.tiles import Stored
from tests.ledger.archive.sealed import lives

STORED = st.builds(
    Stored,
    st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
    st.binary(max_size=100),
    st.booleans(),
    st.booleans(),
)


@pytest.mark.parametrize(
    ("number", "path"),
    [
        (0, "000"),
        (67, "067"),
        (999, "999"),
        (1_000, "x001/000"),
        (1_234_067, "x001/x234/067"),
        (123_456_789_012, "x123/x456/x789/012"),
    ],
)
def test_a_number_is_written_as_tlog_tiles_writes_it(number: int, path: str):
    assert tiles.number_path(number) == path
    assert tiles.path_number(path) == number


@pytest.mark.parametrize(
    "path", ["", "1", "x001", "x001/0000", "001/000", "x000/001", "a/b", "²²²"]
)
def test_what_is_no_path_of_a_number_is_told(path: str):
    assert tiles.path_number(path) is None


def test_partial_ones_have_their_width_in_their_names():
    assert tiles.tile_name(2, 5) == "tile/2/005"
    assert tiles.tile_name(0, 1_234_067, 112) == "tile/0/x001/x234/067.p/112"
    assert tiles.entries_name(3, 7) == "tile/entries/003.p/7"
    assert tiles.data_name(3) == "data/003"


@given(entries=st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_of_leaves_comes_back(entries: list[bytes]):
    packed = tiles.pack_entries(entries)
    assert tiles.unpack_entries(packed) == entries


@given(entries=st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=5))
def test_a_bundle_that_is_cut_off_is_refused(entries: list[bytes]):
    packed = tiles.pack_entries(entries)
    with pytest.raises(ValueError, match="ends in the middle"):
        tiles.unpack_entries(packed[:-1])


@given(records=st.lists(STORED, max_size=20))
def test_a_bundle_of_data_comes_back(records: list[Stored]):
    packed = tiles.pack_data(records)
    assert tiles.unpack_data(packed) == records


@given(records=st.lists(STORED, min_size=1, max_size=5))
def test_a_bundle_of_data_that_is_cut_off_is_refused(records: list[Stored]):
    packed = tiles.pack_data(records)
    with pytest.raises(ValueError, match="ends in the middle"):
        tiles.unpack_data(packed[:-1])


@given(size=st.integers(min_value=1, max_value=2_000), data=st.data())
def test_every_node_of_the_tree_is_found_in_a_tile(size: int, data: st.DataObject):
    leaves = [leaf_hash(b"%d" % n) for n in range(size)]
    above = [merkle.root(leaves[n : n + 256]) for n in range(0, size - size % 256, 256)]
    levels = [leaves, above]
    end = data.draw(st.integers(min_value=1, max_value=size))
    found: list[bytes] = []
    for node in nodes_of(0, end):
        level, number = tiles.tile_of(node)
        tile = tiles.hashes_in(b"".join(levels[level][number * 256 : (number + 1) * 256]))
        found.append(tiles.node_in(tile, node))
    assert merkle.fold(found) == merkle.root(leaves[:end])


# -- growth ----------------------------------------------------------------------------------------


def grown(cuts: list[int]) -> tuple[Growth, dict[str, bytes]]:
    """A log after checkpoints at these sizes, and every object that was made on the way."""
    growth = Growth(Tail(), Salts(b"s" * 32, 0))
    objects: dict[str, bytes] = {}
    chains = LastLeaves(0, max(cuts))
    events = lives(max(cuts), at_once=9)

    def keep(made: Made) -> None:
        objects[made.name] = made.pack()

    for start, end in zip([0, *cuts], cuts, strict=False):
        assert growth.add(events[start:end], chains) == []
        for made in growth.take():
            keep(made)
        summaries: list[Summary] = []
        for plan in growth.plan():
            names = [segment_name((part.start, part.end)) for part in plan.parts]
            made, summary = plan.make([objects[name] for name in names])
            keep(made)
            summaries.append(summary)
        for name in superseded(start, end):
            del objects[name]
        growth.planned(summaries)
    return growth, objects


@given(cuts=st.sets(st.integers(min_value=1, max_value=1_100), min_size=1, max_size=6))
def test_a_log_is_the_same_however_it_was_cut(cuts: set[int]):
    sizes = sorted(cuts)
    pieces, objects = grown(sizes)
    whole, expected = grown([sizes[-1]])
    # the roots are the same
    assert (pieces.root, pieces.index_root) == (whole.root, whole.index_root)
    # and so are the objects, but for partial ones that lasted until there was a whole one
    assert {name: objects[name] for name in expected} == expected
    assert all(".p/" in name for name in objects.keys() - expected.keys())


@given(cuts=st.lists(st.integers(min_value=0, max_value=3_000), min_size=2, max_size=2))
def test_segments_are_superseded_that_a_larger_log_has_not(cuts: list[int]):
    old, new = sorted(cuts)
    before = {segment_name(each) for each in segment_ranges(old)}
    after = {segment_name(each) for each in segment_ranges(new)}
    assert set(superseded(old, new)) == before - after
