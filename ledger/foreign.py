"""Entries of the ledger's streams that ledgerq did not write: readers step over them."""

from typing import Final

import structlog

from ledger.codec import Undecodable
from ledger.store import Position

log = structlog.get_logger("ledger")

LOGGED_MAX: Final = 100
"""Lines that one process logs of them: whoever writes many must not fill the log."""


class ForeignEntry(Undecodable):
    """An entry of a stream that is no event of ledgerq; says where it stands and what it lacks."""

    def __init__(self, position: Position, reason: str) -> None:
        super().__init__(f"the entry at {position} is no event of ledgerq: {reason}")
        self.position = position


class ForeignEntries:
    """What one process met of them: each is told once and counted once, however often it is read.

    A reader that goes back to before the newest one of a partition does not count anew.
    """

    def __init__(self) -> None:
        self.count = 0
        self._newest: dict[int, tuple[int, int]] = {}

    def met(self, entry: ForeignEntry) -> None:
        """A reader stepped over `entry`."""
        position = entry.position
        if position.order <= self._newest.get(position.partition, (0, 0)):
            return
        self._newest[position.partition] = position.order
        self.count += 1
        if self.count <= LOGGED_MAX:
            hint = "readers step over it; look at it with XRANGE, take it away with XDEL"
            log.warning("foreign_entry", position=str(position), reason=str(entry), hint=hint)
