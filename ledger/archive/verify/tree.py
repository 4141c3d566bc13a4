"""The tree of a log, made anew from its leaves: all tiles, and the root at any size."""

from collections.abc import Iterator, Sequence

from ledger.archive import merkle
from ledger.archive.tiles import TILE_HEIGHT, TILE_WIDTH

Tile = tuple[int, int, list[bytes]]
"""Level, number and hashes."""


class Tree:
    """Grows by leaves. Of each level, the hashes of the tile that is not whole yet are kept."""

    def __init__(self) -> None:
        self.size = 0
        self._open: list[list[bytes]] = [[]]

    def add(self, hashes: Sequence[bytes]) -> Iterator[Tile]:
        """The next leaves, none of which goes beyond the bundle that the first of them is in. The
        tiles that are whole now, from below."""
        self._open[0] += hashes
        self.size += len(hashes)
        level = 0
        while len(found := self._open[level]) == TILE_WIDTH:
            number = (self.size >> TILE_HEIGHT * (level + 1)) - 1
            self._open[level] = []
            yield level, number, found
            level += 1
            if level == len(self._open):
                self._open.append([])
            self._open[level].append(merkle.root(found))

    def partial(self) -> list[Tile]:
        """The tiles that are not whole."""
        return [
            (level, self.size >> TILE_HEIGHT * (level + 1), found)
            for level, found in enumerate(self._open)
            if found
        ]

    def root(self, more: Sequence[bytes] = ()) -> bytes:
        """The root over the leaves so far, and some more, which are in the same bundle."""
        levels = [[*self._open[0], *more], *self._open[1:]]
        subtrees: list[bytes] = []
        for hashes in reversed(levels):
            at = 0
            for height, _ in merkle.nodes_of(0, len(hashes)):
                subtrees.append(merkle.root(hashes[at : at + (1 << height)]))
                at += 1 << height
        return merkle.fold(subtrees)
