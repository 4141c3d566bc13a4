"""Each leaf of a log, in order: its event, and whether the data of that is what was sealed."""

import contextlib
from typing import Final

import msgspec

from ledger.archive import tiles
from ledger.archive.index import key_of
from ledger.archive.leaf import PLAIN_TYPES, Leaf, data_hash, unpack_canonical_leaf
from ledger.archive.tiles import TILE_WIDTH, Stored
from ledger.archive.verify import bundles
from ledger.archive.verify.erasures import Erasures
from ledger.archive.verify.faults import Faults, Kind
from ledger.archive.verify.tasks import ERASED, Chains, LastEvents
from ledger.codec import Undecodable
from ledger.store import Position, Recorded
from ledger.system.events import ArchiveHalted

CLOCK_SLACK_MS: Final = 1_000
"""Processes whose clocks differ by less write events in the order in which the ledger has them."""

HALTED: Final = ArchiveHalted.__name__

_LATEST: Final = (1 << 64, 0)


class Checked(msgspec.Struct, frozen=True, gc=False):
    """A leaf's event."""

    key: bytes
    """Of its task."""
    event: Recorded
    is_whole: bool
    """Its data is what it was."""


class LeafChecks:
    """Of one log."""

    def __init__(self, partition: int, faults: Faults) -> None:
        self._partition = partition
        self._faults = faults
        self._last = LastEvents()
        self.chains = Chains(faults, self._last)
        self.erasures = Erasures(faults)
        self.position = Position(partition, "0-0")
        """Of the last event."""
        self._order = self.position.order
        self._hole_after: tuple[int, int] | None = None
        self._at = 0

    def check(
        self, index: int, entry: bytes, hashed: bytes, stored: Stored | None, apart: bytes | None
    ) -> Checked | None:
        """The next leaf, and what lies beside it; `apart`: its data, where that lies apart. None
        for what is no event."""
        try:
            leaf = unpack_canonical_leaf(self._partition, entry)
            key = key_of(leaf.task_id)
        except ValueError as error:
            self._faults.add(Kind.FORGED, bundles.leaf_name(index, None), str(error))
            self.open_hole()
            return None
        data = None if stored is None else self._data(index, leaf, stored, apart)
        is_whole = data is not None and stored is not None and not stored.erased
        event = leaf.recorded(data or b"")
        self._check_order(event)
        self.chains.add(key, event, hashed, leaf.prev, is_whole=is_whole)
        if stored is not None and stored.erased:
            self.erasures.gone(event, stored.data)
        elif event.type == ERASED and is_whole:
            self.erasures.erased(event)
        elif event.type == HALTED and is_whole:
            self._tell_halted(event)
        return Checked(key, event, is_whole)

    def _tell_halted(self, event: Recorded) -> None:
        """It explains what is told of events that the ledger has not got."""
        with contextlib.suppress(Undecodable):  # which was told then
            halted = event.system_event()
            if isinstance(halted, ArchiveHalted):
                where = f"at {event.position} the sealing of partition {halted.partition} halted"
                self._faults.notice(f"{where}, until somebody let it go on: {halted.reason}")

    def open_hole(self) -> None:
        """What comes next is not known."""
        if self._hole_after is None:
            self._hole_after = self._order

    def end(self) -> None:
        """There are no more."""
        if self._hole_after is not None:
            self.chains.hole(self._hole_after, _LATEST)

    def close(self) -> None:
        """Let go of what was remembered."""
        self._last.close()

    def _check_order(self, event: Recorded) -> None:
        order = event.position.order
        if order <= self._order:
            reason = f"it comes after the event at {self.position}"
            self._faults.add(Kind.REORDERED, event.position, reason)
        if self._hole_after is not None:
            self.chains.hole(self._hole_after, order)
            self._hole_after = None
        if event.at < self._at - CLOCK_SLACK_MS:
            back_ms = self._at - event.at
            self._faults.notice(f"at {event.position} the clock went back by {back_ms} ms")
        self._at, self.position, self._order = event.at, event.position, order

    def _data(self, index: int, leaf: Leaf, stored: Stored, apart: bytes | None) -> bytes | None:
        """The data of a leaf, or what an erasure left of it; None where it is not what was sealed,
        which was told then."""
        data, salt, where = stored.data, stored.salt, leaf.position
        if stored.apart:
            if data or stored.erased:
                self._faults.add(Kind.ALTERED, where, "its data lies apart, and here too")
            if apart is None:
                return None
            data = apart
        if stored.erased:
            if salt:
                self._faults.add(Kind.ALTERED, where, "its data was erased, and its salt was not")
            return data
        if data_hash(salt, data) != leaf.data_hash:
            name = tiles.apart_name(index) if stored.apart else tiles.data_name(index // TILE_WIDTH)
            reason = f"the data of this {leaf.type} is not what was sealed, in {name}"
            self._faults.add(Kind.ALTERED, where, reason)
            return None
        if (not salt) != (leaf.type in PLAIN_TYPES):
            self._faults.add(Kind.ALTERED, where, "its salt is not as for events of its type")
        return data
