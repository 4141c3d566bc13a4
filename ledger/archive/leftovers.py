"""What a log does not need any more, and when it is removed: with the checkpoint after the one that
made it so, so that whoever reads at this moment is not bereft of it."""

import asyncio
from collections.abc import Sequence
from typing import Final

from ledger.archive import tiles
from ledger.archive.growth import superseded
from ledger.archive.index import segment_name, segment_ranges
from ledger.archive.log_objects import LogObjects
from ledger.objects.together import all_done
from ledger.settings import ARCHIVE_SEAL_EVENTS_MAX

REMOVED_AT_ONCE_MAX: Final = 16

_LEVELS: Final = tuple((f"tile/{level}", level) for level in range(tiles.LEVELS_MAX))


class Leftovers:
    """Those of one log. Every method may raise ObjectStoreError."""

    def __init__(self, objects: LogObjects) -> None:
        self._objects = objects
        self._few = asyncio.Semaphore(REMOVED_AT_ONCE_MAX)
        self._partials: dict[str, list[str]] = {}
        """By the name of a whole tile or bundle, the partial ones that came before it."""
        self._names: list[str] = []

    async def find(self, size: int) -> None:
        """What killed writers of a log of this size left behind: objects of checkpoints that were
        never signed, and those that older ones needed."""
        needed = {segment_name(covered) for covered in segment_ranges(size)}
        self._names += [name for name in await self._objects.names("index") if name not in needed]
        # What was written for a checkpoint that was never signed lies within so many leaves.
        for kind, level in (("tile/entries", 0), ("data", 0), *_LEVELS):
            sealed = size >> (tiles.TILE_HEIGHT * (level + 1))
            reach = size + ARCHIVE_SEAL_EVENTS_MAX >> (tiles.TILE_HEIGHT * (level + 1))
            for folder in {f"{kind}/{tiles.number_path(n)[:-4]}" for n in (sealed, reach)}:
                await self._find_partials(kind, folder.removesuffix("/"), sealed)

    async def _find_partials(self, kind: str, folder: str, sealed: int) -> None:
        for name in await self._objects.names(folder):
            whole, is_partial, _ = name.partition(".p/")
            if not is_partial:
                continue
            number = tiles.path_number(whole.removeprefix(f"{kind}/"))
            if number is not None and number < sealed:
                self._names.append(name)
            else:
                self._partials.setdefault(whole, []).append(name)

    async def remove(self, old: int, new: int, written: Sequence[str]) -> None:
        """A log of `old` leaves has `new` by now, and these objects were written for that: remove
        what others before have left."""
        removed, self._names = self._names, list(superseded(old, new))
        for name in written:
            whole, is_partial, _ = name.partition(".p/")
            if is_partial:
                self._partials.setdefault(whole, []).append(name)
            else:
                self._names += self._partials.pop(name, ())
        still_needed = {segment_name(covered) for covered in segment_ranges(new)}
        await all_done(self._remove(name) for name in removed if name not in still_needed)

    async def _remove(self, name: str) -> None:
        async with self._few:
            await self._objects.remove(name)
