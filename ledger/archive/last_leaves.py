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
        """`kept`: of so many tasks at most, and of the last half of these for sure."""
        self._partition = partition
        self._kept = kept
        self._newer: dict[str, bytes] = {}
        self._older: dict[str, bytes] = {}
        self._bundle = _Bundle((), ())

    def of(self, task_id: str) -> bytes:
        """The hash; empty for a task that has no leaf."""
        return self._newer.get(task_id) or self._older.get(task_id, b"")

    def put(self, task_id: str, hashed: bytes) -> None:
        """This is the last leaf of a task."""
        self._newer[task_id] = hashed

    def forget(self) -> None:
        """Let go of what was put longest ago."""
        if len(self._newer) > self._kept // 2:
            self._older, self._newer = self._newer, {}

    async def find(self, events: Sequence[Recorded], log: SealedLog) -> None:
        """Remember the last leaves of these events' tasks. Raises as SealedLog's methods."""
        unknown: dict[str, Position | None] = {}
        begun: set[str] = set()
        for event in events:
            task_id = event.task_id
            if not event.prev:
                begun.add(task_id)
            elif task_id not in begun and not self.of(task_id) and task_id not in unknown:
                unknown[task_id] = self._position(event.prev)
        # Tasks that were submitted together often go on together: bundle by bundle.
        for task_id, position in sorted(unknown.items(), key=_order):
            found = None if position is None else await self._at(position, log)
            if found is None:
                # What stands there was not sealed; something before it may be.
                leaves = await log.leaves_of(task_id)
                found = await log.leaf_hash(leaves[-1]) if leaves else None
            if found is not None:
                self.put(task_id, found)

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
