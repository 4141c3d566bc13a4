"""Partial tiles and bundles, which earlier checkpoints needed: each must be the beginning of what
came after it."""

from collections.abc import Awaitable, Callable, Sequence

from ledger.archive import merkle, tiles
from ledger.archive.compression import decompress
from ledger.archive.tiles import Stored
from ledger.archive.verify.bundles import Leaves, Raw
from ledger.archive.verify.faults import Faults, Kind
from ledger.archive.verify.listing import Listing


class Partials:
    """Those of one log."""

    def __init__(
        self, read: Callable[[str], Awaitable[bytes | None]], listing: Listing, faults: Faults
    ) -> None:
        """`read`: an object of the log, or None where there is none."""
        self._read = read
        self._listing = listing
        self._faults = faults

    async def check(self, raw: Raw, leaves: Leaves, data: Sequence[Stored] | None) -> None:
        """Those of a bundle, of its data and of its tile."""
        number = raw.number
        for width in self._widths(tiles.entries_name(number), raw.width):
            if leaves.hashes:
                name = tiles.entries_name(number, width)
                await self._check_bundle(name, _entry_hashes, leaves.hashes[:width])
        for width in self._widths(tiles.data_name(number), raw.width):
            if data is not None:
                name = tiles.data_name(number, width)
                await self._check_bundle(name, tiles.unpack_data, data[:width])
        if leaves.hashes:
            await self.check_tiles(0, number, leaves.hashes)

    async def check_tiles(self, level: int, number: int, right: Sequence[bytes]) -> None:
        """Those of a tile, whose hashes are `right`."""
        for width in self._widths(tiles.tile_name(level, number), len(right)):
            name = tiles.tile_name(level, number, width)
            packed = await self._read(name)
            if packed is not None and packed != b"".join(right[:width]):
                self._faults.add(Kind.ALTERED, name, "it is not the beginning of the tile after it")

    def _widths(self, whole: str, width: int) -> list[int]:
        """Of those that are there, and narrower."""
        return [each for each in self._listing.partials.get(whole, ()) if each < width]

    async def _check_bundle(
        self, name: str, unpack: Callable[[bytes], Sequence[object]], right: Sequence[object]
    ) -> None:
        packed = await self._read(name)
        if packed is None:
            return
        try:
            found = unpack(decompress(packed))
        except ValueError as error:
            self._faults.add(Kind.ALTERED, name, str(error))
            return
        if list(found) != list(right):
            reason = "it is not the beginning of the bundle that came after it"
            self._faults.add(Kind.ALTERED, name, reason)


def _entry_hashes(bundle: bytes) -> Sequence[bytes]:
    return [merkle.leaf_hash(entry) for entry in tiles.unpack_entries(bundle)]
