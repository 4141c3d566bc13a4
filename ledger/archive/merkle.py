"""The Merkle tree of RFC 6962, section 2.1: roots, and proofs that a verifier can follow.

Nothing here reads anything. Who makes a proof asks which subtrees it is made of (`nodes_of`), finds
their hashes wherever they are kept, and folds them. A node is named by its height and by its place
among those of that height: (0, 5) is the sixth leaf, (3, 0) the root of the first eight.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

HASH_BYTES: Final = 32

Node = tuple[int, int]
Range = tuple[int, int]
"""Leaves from the first number up to, and without, the second."""

_sha256 = hashlib.sha256

EMPTY_ROOT: Final = _sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf."""
    return _sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over its two children."""
    return _sha256(b"\1" + left + right).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    """The root over these hashes, in order: of leaves, or of subtrees that are equally high, but
    for the last one, which may be lower."""
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        pairs = [
            _sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)
        ]
        if len(level) % 2:
            pairs.append(level[-1])
        level = pairs
    return level[0]


def nodes_of(start: int, end: int) -> list[Node]:
    """The perfect subtrees that the tree over the leaves from `start` on consists of, the highest
    first. `start` is a multiple of a power of two that is no less than the number of leaves."""
    nodes: list[Node] = []
    while start < end:
        height = (end - start).bit_length() - 1
        nodes.append((height, start >> height))
        start += 1 << height
    return nodes


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over the subtrees of `nodes_of`."""
    if not hashes:
        return EMPTY_ROOT
    *others, folded = hashes
    for each in reversed(others):
        folded = node_hash(each, folded)
    return folded


def split(start: int, end: int) -> int:
    """Where the tree over these leaves, two or more, parts."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The subtrees whose roots prove that a leaf is in the tree of `size` leaves, from the leaf's
    sibling up. Raises ValueError for a leaf that the tree does not have."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    ranges: list[Range] = []
    start, end = 0, size
    while end - start > 1:
        middle = split(start, end)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """The subtrees whose roots prove that the tree of `new` leaves begins with that of `old`.
    Raises ValueError where it cannot."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not begin with one of {old}")
    if old in (0, new):
        return []
    ranges: list[Range] = []
    start, end, is_whole = 0, new, True
    while old != end:
        middle = split(start, end)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, is_whole = middle, False
    if not is_whole:
        ranges.append((start, end))
    return ranges[::-1]


def inclusion_proof(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """That one of these leaves is in the tree over all of them, all being at hand."""
    return [root(hashes[start:end]) for start, end in inclusion_ranges(index, len(hashes))]


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root of the tree of `size` leaves in which a leaf hash stands at `index`, by a proof (RFC
    9162, section 2.1.3.2). Raises ValueError for a proof of another length."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    at, last, found = index, size - 1, leaf
    for each in proof:
        if last == 0:
            raise ValueError("the inclusion proof is too long")
        if at % 2 or at == last:
            found = node_hash(each, found)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, each)
        at, last = at >> 1, last >> 1
    if last:
        raise ValueError("the inclusion proof is too short")
    return found


def is_consistent(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether a proof shows that the tree of `new` leaves begins with that of `old` (RFC 9162,
    section 2.1.4.2)."""
    if old > new or old < 0:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    at, last = old - 1, new - 1
    while at % 2:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for each in path[1:]:
        if last == 0:
            return False
        if at % 2 or at == last:
            first, second = node_hash(each, first), node_hash(each, second)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, each)
        at, last = at >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root
