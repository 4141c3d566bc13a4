"""The last leaf of each task: the next one has its hash."""

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from ledger.archive.leaf import entry_of
from ledger.archive.merkle import leaf_hash
from ledger.archive.reader import SealedLog
from ledger.archive.tiles import TILE_WIDTH
from ledger.store import Position, Recorded
from ledger.subscriptions import order_of


class LastLeaves:
    """Those of one partition, as far as they are remembered; older ones are looked for in the log.

    `find` what a batch needs, then ask `of` each event's task and `put` its leaf.
    """

    def __init__(self, partition: int, kept: int) -> None:
        self._partition = partition
        self._kept = kept
        self._hashes: dict[str, bytes] = {}
        """By task, the one that was put last at the end."""
        self._bundle = _Bundle((), ())

    def of(self, task_id: str) -> bytes:
        """The hash; empty for a task that has no leaf."""
        return self._hashes.get(task_id, b"")

    def put(self, event: Recorded, hashed: bytes) -> None:
        """The leaf of an event is the last one of its task."""
        self._hashes.pop(event.task_id, None)
        self._hashes[event.task_id] = hashed

    def forget(self) -> None:
        """Let go of what was put longest ago."""
        over = len(self._hashes) - self._kept
        if over > 0:
            for task_id in list(self._hashes)[:over]:
                del self._hashes[task_id]

    async def find(self, events: Sequence[Recorded], log: SealedLog) -> None:
        """Remember the last leaves of these events' tasks. Raises as SealedLog's methods."""
        hashes = self._hashes
        unknown: dict[str, Position | None] = {}
        met: set[str] = set()
        for event in events:
            if event.task_id in hashes or event.task_id in met:
                continue
            met.add(event.task_id)
            if event.prev:
                unknown[event.task_id] = self._position(event.prev)
        # Tasks that were submitted together often go on together: bundle by bundle.
        for task_id, position in sorted(unknown.items(), key=_order):
            found = None if position is None else await self._at(position, log)
            if found is None:
                # What stands there was not sealed; something before it may be.
                leaves = await log.leaves_of(task_id)
                found = await log.leaf_hash(leaves[-1]) if leaves else None
            if found is not None:
                hashes[task_id] = found

    def _position(self, entry: str) -> Position | None:
        try:
            return Position.parse(f"{self._partition}:{entry}")
        except ValueError:
            return None  # whoever wrote that event was none of us

    async def _at(self, position: Position, log: SealedLog) -> bytes | None:
        """The hash of the leaf whose event stands there; None where there is none."""
        wanted = position.order
        if not self._bundle.may_have(wanted):
            index = await log.index_after(position) - 1
            if index < 0:
                return None
            entries = await log.entries(index // TILE_WIDTH)
            orders = tuple(order_of(entry_of(each)) for each in entries)
            self._bundle = _Bundle(orders, entries)
        return self._bundle.hash_of(wanted)


def _order(item: tuple[str, Position | None]) -> tuple[int, int]:
    return (0, 0) if item[1] is None else item[1].order


class _Bundle(msgspec.Struct, frozen=True):
    """Leaves, and where each one's event stands."""

    orders: Sequence[tuple[int, int]]
    entries: Sequence[bytes]

    def may_have(self, order: tuple[int, int]) -> bool:
        return bool(self.orders) and self.orders[0] <= order <= self.orders[-1]

    def hash_of(self, order: tuple[int, int]) -> bytes | None:
        at = bisect_left(self.orders, order)
        if at == len(self.orders) or self.orders[at] != order:
            return None
        return leaf_hash(self.entries[at])
