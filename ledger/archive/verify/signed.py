"""What was signed of a log: its checkpoints and its keys, read in an order that a log which grows
meanwhile cannot confuse."""

from collections.abc import Awaitable, Callable, Sequence

from ledger.archive import tiles
from ledger.archive.key_list import unpack_keys
from ledger.archive.notes import NOTES_AN_OBJECT, BadNote
from ledger.archive.verify.faults import Faults, Kind
from ledger.archive.verify.history import History, Point
from ledger.archive.verify.listing import Listing
from ledger.archive.verify.trust import Trust


class Signed:
    """`read_all` of it, and `read_newer` again and again while the log grows."""

    def __init__(
        self,
        origin: str,
        read: Callable[[str], Awaitable[bytes | None]],
        listing: Listing,
        trust: Trust,
        faults: Faults,
    ) -> None:
        """`read`: an object of the log, None where there is none."""
        self._origin = origin
        self._read = read
        self._listing = listing
        self._trust = trust
        self._faults = faults
        self._keys = b""
        self.history = History(origin, trust, faults)

    @property
    def points(self) -> Sequence[Point]:
        """The checkpoints, in order."""
        return self.history.points

    @property
    def head(self) -> int:
        """The size of the newest checkpoint."""
        return self.points[-1].size if self.points else 0

    async def read_all(self) -> None:
        """The list of all checkpoints, the keys, and the checkpoint that is published."""
        # Whatever is published stands in the list before, so it must be read before.
        published = await self._read(tiles.CHECKPOINT)
        # Where anything was signed, there is a list.
        numbers, holes = self._listing.lists()
        for number in numbers:
            packed = await self._read(tiles.checkpoints_name(number))
            if packed is None:
                reason = "the list of the checkpoints is not there"
                self._faults.add(Kind.MISSING, tiles.checkpoints_name(number), reason)
            else:
                await self._read_keys()
                is_last = number == numbers[-1]
                self.history.add_list(number, packed, is_last=is_last)
        for start, end in holes:
            before = tiles.checkpoints_name(end)
            reason = f"{end - start:,} objects of the list of the checkpoints, before {before},"
            self._faults.add(Kind.MISSING, tiles.checkpoints_name(start), f"{reason} are not there")
        await self._read_keys()
        if not self._keys and self._listing.objects:
            self._faults.add(Kind.MISSING, tiles.KEYS, "the list of the keys is not there")
        if published is not None:
            self.history.add_published(published)
        elif self._listing.objects:
            self._faults.add(Kind.MISSING, tiles.CHECKPOINT, "the checkpoint is not there")

    async def read_newer(self) -> bool:
        """Whether there is a newer checkpoint, which is taken then."""
        size, history = self.head, self.history
        number = history.signed // NOTES_AN_OBJECT
        while (packed := await self._read(tiles.checkpoints_name(number))) is not None:
            await self._read_keys()
            history.add_list(number, packed, is_last=True)
            number += 1
        return self.head > size

    async def _read_keys(self) -> None:
        """The list of the keys, as it is now: it was written before what the newest of them
        signed was, and must be read after that."""
        packed = await self._read(tiles.KEYS)
        if packed is None or packed == self._keys:
            return
        self._keys = packed
        try:
            introduced = unpack_keys(packed)
        except BadNote as error:
            self._faults.add(Kind.ALTERED, tiles.KEYS, str(error))
        else:
            self._trust.introduce(tiles.KEYS, self._origin, introduced, self._faults)
