"""Proofs that several leaves are in a tree at once: each hash that is needed, and none twice.

The hashes are the roots of the largest subtrees that have none of the leaves, from left to right.
With them and the leaves, everything above can be calculated, the root at last.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from ledger.archive.merkle import EMPTY_ROOT, Range, inclusion_ranges, node_hash, split


def covering_ranges(size: int, leaves: Sequence[int]) -> list[Range]:
    """The subtrees whose roots prove that these leaves, in order, are in the tree of `size`."""
    found: list[Range] = []

    def cover(start: int, end: int) -> None:
        if not _any_within(leaves, start, end):
            found.append((start, end))
        elif end - start > 1:
            middle = split(start, end)
            cover(start, middle)
            cover(middle, end)

    if size:
        cover(0, size)
    return found


def subtrees(
    size: int, leaves: Mapping[int, bytes], hashes: Sequence[bytes]
) -> Mapping[Range, bytes]:
    """The roots of all subtrees on the way from these leaves (number: leaf hash) to the root, which
    is that of (0, size). Raises ValueError for hashes that are too few or too many."""
    found: dict[Range, bytes] = {}
    numbers = sorted(leaves)
    left = iter(hashes)

    def root_of(start: int, end: int) -> bytes:
        if not _any_within(numbers, start, end):
            root = next(left, None)
            if root is None:
                raise ValueError("there are too few hashes")
        elif end - start == 1:
            root = leaves[start]
        else:
            middle = split(start, end)
            root = node_hash(root_of(start, middle), root_of(middle, end))
        found[start, end] = root
        return root

    if size:
        root_of(0, size)
    else:
        found[0, 0] = EMPTY_ROOT
    if next(left, None) is not None:
        raise ValueError("there are too many hashes")
    return found


def inclusion_among(found: Mapping[Range, bytes], size: int, leaf: int) -> list[bytes]:
    """The proof of one of the leaves alone (RFC 6962), from what `subtrees` found."""
    return [found[covered] for covered in inclusion_ranges(leaf, size)]


def _any_within(leaves: Sequence[int], start: int, end: int) -> bool:
    at = bisect_left(leaves, start)
    return at < len(leaves) and leaves[at] < end
