"""What lies where in a log: names, and the bytes of tiles and bundles.

The layout is that of C2SP tlog-tiles (https://c2sp.org/tlog-tiles): hashes in tiles of 256, leaves
in bundles of 256, each under a path made of its number; the last one of each kind is partial and
has its width in its name. `data/` is ours, and has what the leaves have only the hashes of.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from ledger.archive.merkle import HASH_BYTES, Node, root

TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
ENTRY_BYTES_MAX: Final = 0xFFFF
SALT_BYTES: Final = 16
LEVELS_MAX: Final = 8
"""A log of more levels would have 256 to this power leaves."""

APART_BYTES: Final = 16 * 1024
"""Data that is larger lies in an object of its own, so that a bundle has a bound."""

CHECKPOINT: Final = "checkpoint"
KEYS: Final = "keys"


def number_path(number: int) -> str:
    """A tile's number as tlog-tiles writes it: 1234067 is `x001/x234/067`."""
    digits = str(number)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    *before, last = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "".join(f"x{each}/" for each in before) + last


def path_number(path: str) -> int | None:
    """The number that `number_path` wrote; None for what it did not write."""
    digits = path.replace("x", "").replace("/", "")
    found = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
    return found if found is not None and number_path(found) == path else None


def _numbered(kind: str, number: int, width: int) -> str:
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"{kind}/{number_path(number)}{partial}"


def tile_name(level: int, number: int, width: int = TILE_WIDTH) -> str:
    """A tile of hashes."""
    return _numbered(f"tile/{level}", number, width)


def entries_name(number: int, width: int = TILE_WIDTH) -> str:
    """A bundle of leaves."""
    return _numbered("tile/entries", number, width)


def data_name(number: int, width: int = TILE_WIDTH) -> str:
    """The data of the leaves of the bundle with the same number."""
    return _numbered("data", number, width)


def apart_name(index: int) -> str:
    """The data of the leaf at `index`, where it is large."""
    return f"data/apart/{number_path(index)}"


def checkpoints_name(number: int) -> str:
    """The checkpoints that were ever signed, 256 in an object."""
    return f"checkpoints/{number_path(number)}"


def width_of(number: int, level: int, size: int) -> int:
    """How many hashes a tile has in a log of `size` leaves (0: there is no such tile). Level 0 is
    that of bundles too."""
    return max(0, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - number * TILE_WIDTH))


def tile_of(node: Node) -> tuple[int, int]:
    """Level and number of the tile that has a node, or the hashes that it is made of."""
    height, index = node
    level, above = divmod(height, TILE_HEIGHT)
    return level, index << above >> TILE_HEIGHT


def node_in(hashes: Sequence[bytes], node: Node) -> bytes:
    """A node's hash from the hashes of its tile. Raises ValueError where there are too few."""
    height, index = node
    above = height % TILE_HEIGHT
    first = (index << above) % TILE_WIDTH
    some = hashes[first : first + (1 << above)]
    if len(some) < 1 << above:
        raise ValueError(f"a tile of {len(hashes)} hashes has not got the node {node}")
    return root(some)


def hashes_in(tile: bytes) -> list[bytes]:
    """The hashes of a tile. Raises ValueError."""
    if len(tile) % HASH_BYTES:
        raise ValueError(f"{len(tile)} bytes are no tile of hashes")
    return [tile[i : i + HASH_BYTES] for i in range(0, len(tile), HASH_BYTES)]


_pack_length: Final = struct.Struct(">H").pack


def pack_entries(entries: Sequence[bytes]) -> bytes:
    """A bundle: each leaf after its length. Raises struct.error above ENTRY_BYTES_MAX."""
    parts = [b""] * (2 * len(entries))
    parts[::2], parts[1::2] = map(_pack_length, map(len, entries)), entries
    return b"".join(parts)


def unpack_entries(bundle: bytes) -> list[bytes]:
    """The leaves of a bundle. Raises ValueError."""
    entries: list[bytes] = []
    at, end = 0, len(bundle)
    while at < end:
        first = at + 2
        at = first + int.from_bytes(bundle[at:first], "big")
        if first > end or at > end:
            raise ValueError(f"the bundle ends in the middle of its entry {len(entries)}")
        entries.append(bundle[first:at])
    return entries


class Stored(msgspec.Struct, frozen=True, gc=False):
    """An event's data as it lies beside its leaf."""

    salt: bytes
    data: bytes
    apart: bool = False
    """The data is not here, but in the object `apart_name`."""
    erased: bool = False
    """Parts of it were removed: the leaf has the hash of what it was."""


_HEAD: Final = struct.Struct(">BI")
_SALTED, _APART, _ERASED = 1, 2, 4


def pack_datum(salt: bytes, data: bytes, *, apart: bool = False, erased: bool = False) -> bytes:
    """A record of a bundle of data: flags, length, salt if there is one, and the bytes."""
    flags = (_SALTED if salt else 0) | (_APART if apart else 0) | (_ERASED if erased else 0)
    return _HEAD.pack(flags, len(data)) + salt + data


def pack_stored(each: Stored) -> bytes:
    """The record of what was read from one."""
    return pack_datum(each.salt, each.data, apart=each.apart, erased=each.erased)


def pack_data(records: Iterable[Stored]) -> bytes:
    """A bundle of data."""
    return b"".join([pack_stored(each) for each in records])


def unpack_data(bundle: bytes) -> list[Stored]:
    """The records of a bundle. Raises ValueError."""
    return list(_stored_in(bundle))


def _stored_in(bundle: bytes) -> Iterator[Stored]:
    at, end, number = 0, len(bundle), 0
    while at < end:
        if at + _HEAD.size > end:
            raise ValueError(f"the data ends in the middle of its record {number}")
        flags, length = _HEAD.unpack_from(bundle, at)
        if flags & ~(_SALTED | _APART | _ERASED):
            raise ValueError(f"record {number} of the data has unknown flags {flags}")
        at += _HEAD.size
        salted_at = at + (SALT_BYTES if flags & _SALTED else 0)
        if salted_at + length > end:
            raise ValueError(f"the data ends in the middle of its record {number}")
        data = bundle[salted_at : salted_at + length]
        yield Stored(bundle[at:salted_at], data, bool(flags & _APART), bool(flags & _ERASED))
        at, number = salted_at + length, number + 1
