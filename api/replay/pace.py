"""When events come again: as far apart as they happened, or faster."""

import asyncio
import math


def speed_of(text: str) -> float:
    """How many times as fast: a number above 0, or `max`. Raises ValueError."""
    if text == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not (0 < speed < math.inf):
        raise ValueError(f"--speed: expected a number above 0, or max, got {text[:40]!r}")
    return speed


class Pace:
    """Begins with the first event."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began: tuple[int, float] | None = None

    async def reach(self, at_ms: int) -> None:
        """Wait until an event that happened at this time is due."""
        if self._speed == math.inf:
            return
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = at_ms, loop.time()
        first_ms, began_s = self._began
        due_s = began_s + (at_ms - first_ms) / 1_000 / self._speed
        await asyncio.sleep(max(0.0, due_s - loop.time()))

    @property
    def unbounded(self) -> bool:
        """Whether nothing is ever waited for."""
        return self._speed == math.inf
