"""The newest events of a partition, kept ready for those who come back after a moment: a thousand
clients that reconnect at once do not read them a thousand times."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from api.task_facts import Occurrence
from ledger.events import TaskErased

RECENT_EVENTS_MAX: Final = 4_096
RECENT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of all partitions together."""

OCCURRENCE_BYTES: Final = 1_500
"""What an occurrence takes beside its event's data, about."""

FORMS: Final = 3
"""The data may be there as it was read, and in the messages of both feeds."""

Order = tuple[int, int]


class Recent:
    """A window without holes: all that happened after `_after` and up to the last one."""

    def __init__(self, partitions: int) -> None:
        self._bytes_max = RECENT_BYTES_MAX // partitions
        self._after: Order = (0, 0)
        self._occurrences: list[Occurrence] = []
        self._orders: list[Order] = []
        self._bytes = 0

    def clear(self) -> None:
        """Forget all."""
        self._occurrences, self._orders, self._bytes = [], [], 0

    def add(self, after: Order, occurrences: Sequence[Occurrence]) -> None:
        """What follows directly on `after`. What is older than the window is not kept, what
        stands beyond its end begins a new one."""
        if not occurrences:
            return
        if not self._orders or after > self._orders[-1]:
            self.clear()
            self._after = after
        elif after < self._after:
            return
        end = self._orders[-1] if self._orders else self._after
        for one in occurrences:
            if one.order > end:
                self._occurrences.append(one)
                self._orders.append(one.order)
                self._bytes += _size(one)
        self._forget_erased(len(occurrences))
        self._trim()

    def reaches(self, order: Order) -> bool:
        """Whether all that follows on `order` is here, up to the last one."""
        return bool(self._orders) and order >= self._after

    def after(self, order: Order, count: int) -> Sequence[Occurrence]:
        """What follows directly on `order`, at most `count`; empty when that is not known here."""
        if not self.reaches(order):
            return ()
        start = bisect_right(self._orders, order)
        return self._occurrences[start : start + count]

    def _forget_erased(self, added: int) -> None:
        """What was erased is not told out of here any more."""
        for at in range(len(self._occurrences) - 1, max(len(self._occurrences) - added, 0) - 1, -1):
            if self._occurrences[at].recorded.type == TaskErased.__name__:
                self._let_go(at)
                return

    def _trim(self) -> None:
        out, size_bytes = 0, self._bytes
        while len(self._orders) - out > RECENT_EVENTS_MAX or size_bytes > self._bytes_max:
            size_bytes -= _size(self._occurrences[out])
            out += 1
        self._let_go(out)

    def _let_go(self, out: int) -> None:
        """Of so many, the oldest."""
        if out:
            self._bytes -= sum(map(_size, self._occurrences[:out]))
            self._after = self._orders[out - 1]
            del self._occurrences[:out], self._orders[:out]


def _size(occurrence: Occurrence) -> int:
    return OCCURRENCE_BYTES + FORMS * len(occurrence.recorded.data)
