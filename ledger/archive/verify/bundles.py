"""A bundle of leaves beside its tile of hashes: which of the two is right where they differ, and
what was done to the other."""

from collections.abc import Sequence
from typing import Final

import msgspec

from ledger.archive import merkle, tiles
from ledger.archive.compression import decompress
from ledger.archive.leaf import NoLeaf, unpack_leaf
from ledger.archive.merkle import HASH_BYTES, Range, leaf_hash, node_hash
from ledger.archive.tiles import TILE_WIDTH, Stored
from ledger.archive.verify.faults import Faults, Kind

NUMBERS_NAMED: Final = 5
"""Of several leaves that something happened to."""


class Raw(msgspec.Struct, frozen=True, gc=False):
    """The objects of a bundle as they lie; None where one is missing."""

    number: int
    width: int
    entries: bytes | None
    data: bytes | None
    tile: bytes | None


class Leaves(msgspec.Struct, frozen=True, gc=False):
    """What a bundle has, as far as it is right."""

    hashes: Sequence[bytes]
    """Of its leaves; none where nobody knows them."""
    entries: Sequence[bytes | None]
    """The leaves with these hashes; None where one is not there."""


def unpacked_entries(raw: Raw, faults: Faults) -> list[bytes] | None:
    """The leaves of a bundle; None where there are none, which was told then."""
    name = tiles.entries_name(raw.number, raw.width)
    if raw.entries is None:
        faults.add(Kind.MISSING, name, "the bundle of leaves is not there")
        return None
    try:
        return tiles.unpack_entries(decompress(raw.entries))
    except ValueError as error:
        faults.add(kind_of(error), name, str(error))
        return None


def unpacked_data(raw: Raw, faults: Faults) -> list[Stored] | None:
    """What lies beside the leaves; None where there is nothing, which was told then."""
    name = tiles.data_name(raw.number, raw.width)
    if raw.data is None:
        faults.add(Kind.MISSING, name, "the data of the leaves is not there")
        return None
    try:
        found = tiles.unpack_data(decompress(raw.data))
    except ValueError as error:
        faults.add(kind_of(error), name, str(error))
        return None
    if len(found) != raw.width:
        kind = Kind.TRUNCATED if len(found) < raw.width else Kind.FORGED
        faults.add(kind, name, f"it has {len(found)} records, expected {raw.width}")
        return None
    return found


def unpacked_tile(
    name: str, packed: bytes | None, width: int, faults: Faults
) -> list[bytes] | None:
    """The hashes of a tile; None where there are none, which was told then."""
    if packed is None:
        faults.add(Kind.MISSING, name, "the tile of hashes is not there")
        return None
    if len(packed) != width * HASH_BYTES:
        kind = Kind.TRUNCATED if len(packed) < width * HASH_BYTES else Kind.ALTERED
        faults.add(kind, name, f"it has {len(packed)} bytes, expected {width * HASH_BYTES}")
        return None
    return tiles.hashes_in(packed)


def leads_to(
    root: bytes, covered: Range, size: int, hashes: Sequence[bytes], siblings: Sequence[bytes]
) -> bool:
    """Whether a tree of `size` leaves with these hashes in a range of them has a root. `siblings`:
    the roots of `ranges_beside`."""
    found = merkle.root(hashes)
    for (start, _), sibling in zip(ranges_beside(covered, size), siblings, strict=True):
        found = node_hash(found, sibling) if start > covered[0] else node_hash(sibling, found)
    return found == root


def ranges_beside(covered: Range, size: int) -> list[Range]:
    """The subtrees that lead from that of a tile's leaves to the root, from the lowest up."""
    start, end = covered
    ranges = merkle.inclusion_ranges(start, size)
    return [each for each in ranges if not (start <= each[0] and each[1] <= end)]


def compared(
    raw: Raw,
    entries: Sequence[bytes] | None,
    tile: Sequence[bytes] | None,
    tile_is_right: bool | None,
    faults: Faults,
) -> Leaves:
    """What is right of a bundle and its tile, where that they differ is told. `tile_is_right`: what
    the tree above says; None where it says neither, or where they do not differ."""
    hashes = None if entries is None else [leaf_hash(entry) for entry in entries]
    if tile is None or (tile_is_right is False and hashes is not None):
        if hashes is None or entries is None or len(hashes) != raw.width:
            return Leaves((), ())
        if tile is not None:
            _tell_tile(raw, hashes, tile, faults)
        return Leaves(hashes, entries)
    if hashes == tile and entries is not None:
        return Leaves(tile, entries)
    if hashes is None or entries is None:
        return Leaves(tile, [None] * raw.width)
    _tell_entries(raw, hashes, entries, tile, faults)
    known = dict(zip(hashes, entries, strict=True))
    return Leaves(tile, [known.get(hashed) for hashed in tile])


def _tell_tile(raw: Raw, hashes: Sequence[bytes], tile: Sequence[bytes], faults: Faults) -> None:
    name = tiles.tile_name(0, raw.number, raw.width)
    for at, (right, found) in enumerate(zip(hashes, tile, strict=True)):
        if right != found:
            reason = f"its hash of leaf {raw.number * TILE_WIDTH + at} is not that leaf's"
            faults.add(Kind.ALTERED, name, reason)


def _tell_entries(
    raw: Raw,
    hashes: Sequence[bytes],
    entries: Sequence[bytes],
    tile: Sequence[bytes],
    faults: Faults,
) -> None:
    """What was done to a bundle whose leaves should have the hashes of the tile."""
    name = tiles.entries_name(raw.number, raw.width)
    first = raw.number * TILE_WIDTH
    gone = [at for at, hashed in enumerate(tile) if hashed not in set(hashes)]
    added = [at for at, hashed in enumerate(hashes) if hashed not in set(tile)]
    if len(hashes) == len(tile) and gone:
        for at in added:
            faults.add(
                Kind.ALTERED, leaf_name(first + at, entries[at]), f"not what was sealed, in {name}"
            )
    elif gone:
        is_end = gone[-1] == len(tile) - 1 and gone[-1] - gone[0] == len(gone) - 1
        kind = Kind.TRUNCATED if is_end else Kind.DROPPED
        reason = f"of its {len(tile)} leaves, {_listed([first + at for at in gone])} are not there"
        faults.add(kind, name, reason)
    elif len(hashes) > len(tile):
        reason = f"it has {len(hashes)} leaves, of which {len(tile)} were sealed"
        faults.add(Kind.FORGED, name, reason)
    else:
        moved = [first + at for at, hashed in enumerate(tile) if hashes[at] != hashed]
        reason = f"its leaves {_listed(moved)} stand in another order than when they were sealed"
        faults.add(Kind.REORDERED, name, reason)


def leaf_name(index: int, entry: bytes | None) -> str:
    """How a leaf is called: its number, and where its event stands, if that can be read."""
    try:
        at = "" if entry is None else f" at {unpack_leaf(0, entry).position.entry}"
    except NoLeaf:
        at = ""
    return f"leaf {index}{at}"


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:NUMBERS_NAMED]))
    return (
        f"{shown} and {len(numbers) - NUMBERS_NAMED} more"
        if len(numbers) > NUMBERS_NAMED
        else shown
    )


def kind_of(error: ValueError) -> Kind:
    """What was done to an object that cannot be unpacked."""
    return Kind.TRUNCATED if "ends in" in str(error) or "cut off" in str(error) else Kind.ALTERED
