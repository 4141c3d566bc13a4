"""Time limits of many attempts, kept by one timer."""

import asyncio
from collections.abc import Callable
from typing import Final

RESOLUTION_S: Final = 0.05
"""A limit takes effect at most so much later than asked for."""


class Deadlines:
    """Calls back what has not been dropped when its time is up.

    A timer of the event loop for each attempt would cost more than starting its handler: nearly all
    attempts end long before their time. Here a limit is a place in a set, shared by those that end
    within the same RESOLUTION_S, and only the earliest set has a timer; nothing to watch, no timer.
    """

    def __init__(self) -> None:
        self._slots: dict[int, dict[Callable[[], None], None]] = {}
        """The sets keep the order in which calls were added: so a run can be played again."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_slot = 0

    def add(self, seconds: float, call: Callable[[], None]) -> int:
        """Call `call` in so many seconds, unless it is dropped. Returns what `drop` wants."""
        loop = asyncio.get_running_loop()
        slot = int((loop.time() + seconds) / RESOLUTION_S) + 1
        calls = self._slots.get(slot)
        if calls is None:
            calls = self._slots[slot] = {}
            if self._timer is None or slot < self._timer_slot:
                self._arm(loop, slot)
        calls[call] = None
        return slot

    def drop(self, slot: int, call: Callable[[], None]) -> None:
        """Forget a call; does nothing when its time has come already."""
        calls = self._slots.get(slot)
        if calls is not None:
            calls.pop(call, None)
            if not calls:
                del self._slots[slot]

    def _arm(self, loop: asyncio.AbstractEventLoop, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(slot * RESOLUTION_S, self._ring, loop)
        self._timer_slot = slot

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now_s = loop.time()
        # Compared as the timer was set: a quotient may be a hair less, and ring again at once.
        for slot in [slot for slot in self._slots if slot * RESOLUTION_S <= now_s]:
            for call in self._slots.pop(slot):
                call()
        if self._slots:
            self._arm(loop, min(self._slots))
