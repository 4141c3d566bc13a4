"""Whose turn it is: in which order a worker looks for tasks in its queues."""

import itertools
from collections.abc import Container, Iterable, Sequence
from typing import Final

from ledger.events import Priority
from ledger.placement import Queue
from ledger.store import Claimed

PASSED_OVER_MAX: Final = 64
"""After so many tasks in a row that left others waiting, the next one is taken out of order, from a
less urgent queue that has any: urgent tasks delay the others, they do not starve them."""

_LESS_URGENT: Final = (Priority.LOW, Priority.NORMAL, Priority.HIGH)
"""Take turns at that, so that none of them starves behind another."""


class Turns:
    """The urgent before the less urgent, and within one priority the task types in turn."""

    def __init__(self, task_types: Iterable[str], partitions: int) -> None:
        self._types = list(task_types)
        """In turn: those that were served last come last."""
        self._passing_over = [0] * partitions
        """Tasks that were taken since something less urgent was, or nothing was left waiting."""
        self._turns_of_less_urgent = itertools.cycle(_LESS_URGENT)

    def are_overdue(self, partition: int) -> bool:
        """Whether the next task is to be taken `out_of_order`."""
        return self._passing_over[partition] >= PASSED_OVER_MAX

    def in_order(self, paused: Container[str]) -> list[Queue]:
        """The queues of all types that are not paused, the most urgent first."""
        return self._queues(tuple(Priority), paused)

    def out_of_order(self, paused: Container[str]) -> list[Queue]:
        """One of the less urgent priorities first, then the least urgent ones."""
        first = next(self._turns_of_less_urgent)
        return self._queues((first, *(p for p in reversed(Priority) if p is not first)), paused)

    def took(self, partition: int, claimed: Sequence[Claimed], *, passed_over: bool) -> None:
        """Types without work pass their turns on to all others alike, not to the next in line.

        `passed_over`: the tasks were taken in order, and may have left others waiting.
        """
        served = {claim.delivery.queue.task_type for claim in claimed}
        self._types.sort(key=served.__contains__)
        if passed_over:
            self._passing_over[partition] += len(claimed)
        else:
            self._passing_over[partition] = 0

    def _queues(self, priorities: Sequence[Priority], paused: Container[str]) -> list[Queue]:
        types = [kind for kind in self._types if kind not in paused]
        return [Queue(kind, priority) for priority in priorities for kind in types]
