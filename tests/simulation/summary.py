"""What many runs come to."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from ledger.task import Status
from ledger.transitions import TRANSITIONS
from tests.simulation.network import Fault
from tests.simulation.world import Outcome

FAILURES_KEPT: Final = 20


class Summary(msgspec.Struct):
    """Outcomes, added up."""

    runs: int = 0
    failed: int = 0
    failures: list[Outcome] = []
    """The first FAILURES_KEPT of those that failed."""
    injected: Counter[Fault] = msgspec.field(default_factory=Counter[Fault])
    runs_with: Counter[Fault] = msgspec.field(default_factory=Counter[Fault])
    failed_with: Counter[Fault] = msgspec.field(default_factory=Counter[Fault])
    transitions: Counter[tuple[Status | None, str]] = msgspec.field(
        default_factory=Counter[tuple[Status | None, str]]
    )
    finals: Counter[str] = msgspec.field(default_factory=Counter[str])
    tasks: int = 0
    events: int = 0
    acknowledgements: int = 0
    callbacks: int = 0
    virtual_s: float = 0.0
    processor_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one run."""
        self.runs += 1
        self.injected.update(outcome.injected)
        self.runs_with.update(outcome.injected.keys())
        self.transitions.update(outcome.transitions)
        self.finals.update(outcome.finals)
        self.tasks += outcome.tasks
        self.events += outcome.events
        self.acknowledgements += outcome.acknowledgements
        self.callbacks += outcome.callbacks
        self.virtual_s += outcome.virtual_s
        if outcome.violations:
            self.failed += 1
            self.failed_with.update(outcome.injected.keys())
            if len(self.failures) < FAILURES_KEPT:
                self.failures.append(outcome)

    def merge(self, other: "Summary") -> None:
        """Count what another process counted."""
        for name in ("runs", "failed", "tasks", "events", "acknowledgements", "callbacks"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.virtual_s += other.virtual_s
        self.processor_s += other.processor_s
        for name in ("injected", "runs_with", "failed_with", "transitions", "finals"):
            getattr(self, name).update(getattr(other, name))
        self.failures += other.failures[: FAILURES_KEPT - len(self.failures)]

    @property
    def missing(self) -> list[tuple[Status | None, str]]:
        """Transitions of the table that never happened."""
        return [
            (before, kind.__name__)
            for before, kind in TRANSITIONS
            if (before, kind.__name__) not in self.transitions
        ]

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield (
            f"{self.tasks:,} tasks, {self.events:,} events, {self.acknowledgements:,} commands "
            f"acknowledged, {self.virtual_s / 3600:,.0f} h of virtual time"
        )
        yield "In the end: " + ", ".join(f"{n:,} {name}" for name, n in self.finals.most_common())
        yield ""
        yield from _table(
            ("fault", "injected", "runs with it", "of these failed"),
            (
                (str(fault), self.injected[fault], self.runs_with[fault], self.failed_with[fault])
                for fault in Fault
            ),
        )
        yield ""
        yield from _table(
            ("transition", "times"),
            (
                (f"{before or 'nothing'}, {kind.__name__}", self.transitions[before, kind.__name__])
                for before, kind in TRANSITIONS
            ),
        )


def _table(header: tuple[str, ...], rows: Iterable[tuple[str | int, ...]]) -> Iterator[str]:
    cells = [header, *((row[0], *(f"{n:,}" for n in row[1:])) for row in rows)]
    widths = [max(len(str(row[i])) for row in cells) for i in range(len(header))]
    for row in cells:
        first, *others = map(str, row)
        padded = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *padded])
