"""A worker's slots: each holds a task that runs, or one that is about to be claimed."""

import asyncio
from collections.abc import Sized


class Slots:
    """`reserve`, claim, `give_back`: what was claimed meanwhile counts as running."""

    def __init__(self, count: int, running: Sized) -> None:
        self._count = count
        self._running = running
        self._reserved = 0
        self._kept_for_stale = 0
        self._freed = asyncio.Event()
        self._ended = False

    async def reserve(self, slots_max: int | None = None) -> int:
        """Wait for free slots, and hold them for a claim; 0 once `end` was called."""
        while not self._ended:
            room = self._reserve_free(self._count if slots_max is None else slots_max)
            if room:
                return room
            await self.change()
        return 0

    async def reserve_for_stale(self) -> int:
        """As `reserve`, but the very next slot: what was left behind must not wait until the
        worker has nothing else to do."""
        while not self._ended:
            self._kept_for_stale = 0
            room = self._reserve_free(self._count)
            if room:
                return room
            self._kept_for_stale = 1
            await self.change()
        return 0

    def give_back(self, room: int) -> None:
        """Give up what was reserved."""
        self._reserved -= room
        self.freed()

    def resize(self, count: int) -> None:
        """From now on there are so many."""
        self._count = count
        self.freed()

    @property
    def any_free(self) -> bool:
        """Whether `reserve` would not have to wait."""
        return self._count > len(self._running) + self._reserved + self._kept_for_stale

    def freed(self) -> None:
        """Let those who wait look again."""
        self._freed.set()

    async def change(self) -> None:
        """Return the next time that a slot may have become free."""
        self._freed.clear()
        await self._freed.wait()

    def end(self) -> None:
        """Nobody is to claim anything any more."""
        self._ended = True
        self.freed()

    def _reserve_free(self, slots_max: int) -> int:
        free = self._count - len(self._running) - self._reserved - self._kept_for_stale
        room = max(0, min(free, slots_max))
        self._reserved += room
        return room
