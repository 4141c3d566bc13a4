"""Proofs of several leaves at once."""

from itertools import combinations

import pytest

from ledger.archive import merkle
from ledger.archive.multiproof import covering_ranges, inclusion_among, subtrees

LEAVES = [merkle.leaf_hash(b"%d" % number) for number in range(20)]


@pytest.mark.parametrize("size", range(1, 20))
def test_any_leaves_lead_to_the_root_and_each_has_its_own_proof(size: int) -> None:
    hashes = LEAVES[:size]
    for numbers in combinations(range(size), min(size, 3)):
        shared = [merkle.root(hashes[a:b]) for a, b in covering_ranges(size, numbers)]

        found = subtrees(size, {n: hashes[n] for n in numbers}, shared)

        assert found[0, size] == merkle.root(hashes)
        for n in numbers:
            assert inclusion_among(found, size, n) == merkle.inclusion_proof(hashes, n)


def test_hashes_that_are_missing_or_left_over_are_refused() -> None:
    shared = [merkle.root(LEAVES[a:b]) for a, b in covering_ranges(20, [3, 4])]
    leaves = {3: LEAVES[3], 4: LEAVES[4]}

    for wrong in (shared[1:], shared[:-1], [*shared, LEAVES[0]], []):
        with pytest.raises(ValueError, match=r"too (few|many) hashes"):
            subtrees(20, leaves, wrong)


def test_of_neighbours_no_hash_is_needed_twice() -> None:
    assert len(covering_ranges(1 << 20, [8, 9, 10, 11, 12])) == 19
