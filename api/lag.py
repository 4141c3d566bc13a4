"""How many events the read model has still to take."""

import asyncio
from collections.abc import Mapping

from ledger.store import Store
from projections.read_model import BEGINNING, Checkpoint

_NOTHING = Checkpoint(BEGINNING, b"", 0)


class Lag:
    """Compares checkpoints with the ends of the ledger.

    The ledger counts all entries that there ever were, the read model those that it took. They
    differ by what was taken away before it was made, and by foreign entries: by how much is learnt
    whenever the read model has got to the end.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._never_taken: dict[int, int] = {}

    async def events(self, checkpoints: Mapping[int, Checkpoint]) -> Mapping[int, int]:
        """By partition. Raises as the store does."""
        partitions = range(self._store.partitions)
        behind = (self._behind(p, checkpoints.get(p, _NOTHING)) for p in partitions)
        return dict(zip(partitions, await asyncio.gather(*behind), strict=True))

    async def _behind(self, partition: int, taken: Checkpoint) -> int:
        extent, end = await asyncio.gather(
            self._store.extent(partition), self._store.last_position(partition)
        )
        missing = extent.added - taken.events
        if taken.entry == end.entry:
            self._never_taken[partition] = missing
            return 0
        return max(1, missing - self._never_taken.get(partition, 0))
