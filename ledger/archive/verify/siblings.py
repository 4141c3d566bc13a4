"""Whether hashes are right, as the tiles beside and above them say: that tells which was altered,
where a tile and what it is over differ."""

from collections.abc import Awaitable, Callable, Sequence

from ledger.archive import merkle, tiles
from ledger.archive.merkle import Range
from ledger.archive.verify import bundles


async def leads_to_root(
    root: bytes,
    covered: Range,
    hashes: Sequence[bytes],
    size: int,
    read: Callable[[str], Awaitable[bytes | None]],
) -> bool:
    """Whether these hashes, over the leaves of a range, lead to the root of a log of this size.
    `read` gives its objects by name; None where one is missing."""

    async def node_hash(node: merkle.Node) -> bytes:
        level, number = tiles.tile_of(node)
        name = tiles.tile_name(level, number, tiles.width_of(number, level, size))
        return tiles.node_in(tiles.hashes_in(await read(name) or b""), node)

    try:
        siblings = [
            merkle.fold([await node_hash(node) for node in merkle.nodes_of(*each)])
            for each in bundles.ranges_beside(covered, size)
        ]
    except ValueError:  # a tile is missing, or none
        return False
    return bundles.leads_to(root, covered, size, hashes, siblings)
