"""What this client has written: sent along with reads of the read model, which then see it."""

import threading
import time
from collections.abc import Callable
from typing import Final

from ledger.store import Position, parse_positions, positions_text

REMEMBERED_S: Final = 60.0
"""By then every read model has it, or its lag is an alarm. For ever would be too long: a ledger
that was put back to an older state would never get there."""

PARTITIONS_MAX: Final = 100


class Writes:
    """The last write in each partition."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # a blocking client is shared among threads
        self._last: dict[int, tuple[Position, float]] = {}

    def note(self, header: str | None) -> None:
        """Take note of the `Ledger-Position` of a write."""
        if not header:
            return
        try:
            positions = parse_positions(header, PARTITIONS_MAX)
        except ValueError:
            return  # of a later version's making: reads go without
        now_s = self._clock()
        with self._lock:
            for partition, position in positions.items():
                known = self._last.get(partition)
                # Answers may come in another order than the writes.
                if known is None or known[0].order < position.order:
                    self._last[partition] = position, now_s

    def header(self) -> dict[str, str]:
        """The header of a read that is to see them; empty when there is nothing to see."""
        since_s = self._clock() - REMEMBERED_S
        with self._lock:
            self._last = {p: seen for p, seen in self._last.items() if seen[1] >= since_s}
            last = [position for position, _ in self._last.values()]
        return {"ledger-position": positions_text(last)} if last else {}
