"""How far the read model is behind the ledger: in events, and in time."""

import asyncio
from collections.abc import Iterable, Mapping

from ledger.store import Position, Store
from projections.read_model import BEGINNING, Checkpoint

_NOTHING = Checkpoint(BEGINNING, b"", 0)
_AT_ONCE_MS = 1


async def behind_ms(store: Store, seen: Mapping[int, Position], ends: Iterable[Position]) -> int:
    """For how many ms, by the ledger's clock, the oldest event has been there that comes after what
    was `seen` of its partition; 0 when that is where the ledger ends. Raises as the store does."""
    last = [(seen.get(end.partition) or Position(end.partition, BEGINNING), end) for end in ends]
    ages = (_waiting_ms(store, begin) for begin, end in last if begin.order < end.order)
    return max(await asyncio.gather(*ages), default=0)


async def _waiting_ms(store: Store, last: Position) -> int:
    events = await store.events_after(last, 1, _AT_ONCE_MS)
    if not events:
        return 0  # what stands there is no event, or was taken away
    # Positions begin with the server's time in ms, which this process knows about.
    written_ms, _ = events[0].position.order
    return max(1, store.now_ms() - written_ms)


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
