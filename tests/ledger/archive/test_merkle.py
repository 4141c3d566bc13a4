"""The tree of RFC 6962, held against its own vectors and against pymerkle."""

# pymerkle has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import hashlib
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree, verify_consistency, verify_inclusion

from ledger.archive import merkle
from ledger.archive.merkle import leaf_hash, nodes_of

# Those of Certificate Transparency's own tests: the RFC has none.
ENTRIES: Final = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS: Final = [
    bytes.fromhex(text)
    for text in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]

SIZES: Final = st.integers(min_value=1, max_value=70)


def hashes(size: int) -> list[bytes]:
    return [leaf_hash(b"%d" % n) for n in range(size)]


def theirs(size: int) -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    for n in range(size):
        tree.append_entry(b"%d" % n)
    return tree


def range_hash(size: int, covered: tuple[int, int]) -> bytes:
    """The root over some leaves, from whole subtrees as they lie in tiles."""
    start, end = covered
    leaves = hashes(size)
    return merkle.fold(
        [
            merkle.root(leaves[index << height : (index + 1) << height])
            for height, index in nodes_of(start, end)
        ]
    )


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_vectors(size: int):
    assert merkle.root([leaf_hash(entry) for entry in ENTRIES[:size]]) == ROOTS[size]


@given(size=st.integers(min_value=0, max_value=600))
def test_a_root_is_that_of_pymerkle(size: int):
    assert merkle.root(hashes(size)) == theirs(size).get_root()


@given(size=SIZES, data=st.data())
def test_an_inclusion_proof_leads_to_the_root_and_holds_for_pymerkle(
    size: int, data: st.DataObject
):
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    leaves, tree = hashes(size), theirs(size)
    # ours is folded to the root
    proof = merkle.inclusion_proof(leaves, index)
    assert merkle.root_from_inclusion(index, size, leaves[index], proof) == merkle.root(leaves)
    # it is made of the same subtrees as one that was put together from tiles
    assert proof == [range_hash(size, each) for each in merkle.inclusion_ranges(index, size)]
    # and of the same hashes as theirs, which has the leaf's own too, and holds for our root
    other = tree.prove_inclusion(index + 1, size)
    told = [bytes.fromhex(each) for each in other.serialize()["path"] or ()]
    assert sorted([leaves[index], *proof]) == sorted(told)
    verify_inclusion(leaves[index], merkle.root(leaves), other)


@given(size=SIZES, data=st.data())
def test_a_consistency_proof_holds_and_no_other_root_fits_it(size: int, data: st.DataObject):
    old = data.draw(st.integers(min_value=1, max_value=size))
    leaves = hashes(size)
    proof = [range_hash(size, each) for each in merkle.consistency_ranges(old, size)]
    roots = merkle.root(leaves[:old]), merkle.root(leaves)
    assert merkle.is_consistent(old, size, *roots, proof)
    # theirs says so too
    verify_consistency(*roots, theirs(size).prove_consistency(old, size))
    # another root, another size, a longer or a shorter proof do not hold
    wrong = hashlib.sha256(b"wrong").digest()
    assert not merkle.is_consistent(old, size, wrong, roots[1], proof)
    assert not merkle.is_consistent(old, size, roots[0], wrong, proof)
    assert not merkle.is_consistent(old, size, *roots, [*proof, wrong])
    if proof:
        assert not merkle.is_consistent(old, size, *roots, proof[:-1])


@given(size=SIZES, data=st.data())
def test_an_inclusion_proof_of_another_leaf_or_length_leads_elsewhere(
    size: int, data: st.DataObject
):
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    leaves = hashes(size)
    proof, root = merkle.inclusion_proof(leaves, index), merkle.root(leaves)
    wrong = leaf_hash(b"wrong")
    assert merkle.root_from_inclusion(index, size, wrong, proof) != root
    with pytest.raises(ValueError, match="too long"):
        merkle.root_from_inclusion(index, size, leaves[index], [*proof, wrong])
    if proof:
        with pytest.raises(ValueError, match="too short"):
            merkle.root_from_inclusion(index, size, leaves[index], proof[:-1])
