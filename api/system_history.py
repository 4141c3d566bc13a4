"""A page of the service's own history, for about the price of a page.

Events name the one before them, so a history is read backwards. The first look walks from the end
to its page, and remembers on the way where every MARK_EVERYth event stands: later ones begin there.
"""

from typing import Final

from ledger.identity import SYSTEM
from ledger.store import Position, Recorded, Store

MARK_EVERY: Final = 100
"""Events that a page may read beyond its own."""

CHUNK: Final = 500
"""Events that are read together."""


class SystemHistoryPages:
    """What happened to the service, a page at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._marks: dict[int, Position] = {}
        """Where events stand, by version."""

    async def page(self, after: int, limit: int) -> tuple[list[Recorded], bool]:
        """At most `limit` events of the versions after `after`, oldest first; and whether there
        are more."""
        total = await self._store.system_version()
        last = min(after + limit, total)  # versions have no gaps
        if last <= after:
            return [], False
        mark = min((version for version in self._marks if version >= last), default=None)
        found = None if mark is None else await self._read(mark, self._marks[mark], after, last)
        if found is None:
            # From the end. Where a mark led to something else, the ledger has gone back since.
            self._marks = {} if mark is not None else self._marks
            found = await self._read(total, None, after, last)
        return found or [], last < total

    async def _read(
        self, version: int, start: Position | None, after: int, last: int
    ) -> list[Recorded] | None:
        """The events after `after` up to `last`, by a walk from the one of `version` at `start`, or
        from the end. None when another stands there."""
        found: list[Recorded] = []
        while version > after:
            count = min(version - after, CHUNK)
            some = await self._store.history_back(SYSTEM, start, count)
            if start is not None and (not some or some[0].version != version):
                return None
            self._marks |= {e.version: e.position for e in some if e.version % MARK_EVERY == 0}
            found += (event for event in some if after < event.version <= last)
            if not some or not some[-1].prev:
                break
            version, start = some[-1].version - 1, Position(0, some[-1].prev)
        return found[::-1]
