"""What may be wrong with an archive, and what was found of one."""

from collections.abc import Iterable, Set
from enum import StrEnum
from typing import Final

import msgspec

FAULTS_NAMED_MAX: Final = 1_000
"""Of one log; more are counted."""


NOTICES_MAX: Final = 20
"""Of one log."""


class Kind(StrEnum):
    """What was done to it, as far as its bytes tell."""

    ALTERED = "altered"
    DROPPED = "dropped"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    FORGED = "forged"
    MISSING = "missing"
    UNREADABLE = "unreadable"


INCOMPLETE: Final = frozenset({Kind.MISSING})
UNCHECKED: Final = frozenset({Kind.UNREADABLE})


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong: what was done, to what (an object, an event), and how that shows."""

    kind: Kind
    where: str
    reason: str

    @property
    def line(self) -> str:
        return f"{self.kind.value}: {self.where}: {self.reason}"


class Verdict(StrEnum):
    """What it comes to, the worst first."""

    TAMPERED = "tampered"
    INCOMPLETE = "incomplete"
    UNCHECKED = "could not check"
    FINE = "fine"


def verdict_of(kinds: Set[Kind]) -> Verdict:
    """The worst that faults of these kinds come to."""
    if kinds - INCOMPLETE - UNCHECKED:
        return Verdict.TAMPERED
    if kinds & INCOMPLETE:
        return Verdict.INCOMPLETE
    return Verdict.UNCHECKED if kinds else Verdict.FINE


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """What several of them come to."""
    return min(verdicts, key=list(Verdict).index, default=Verdict.FINE)


class Faults:
    """Those of a log, as they are found."""

    def __init__(self) -> None:
        self.named: list[Fault] = []
        self.more = 0
        """Found beside, and not named."""
        self.kinds: set[Kind] = set()
        """Of all of them."""
        self.notices: list[str] = []
        """What is worth a look, and no fault."""

    def __len__(self) -> int:
        return len(self.named) + self.more

    def add(self, kind: Kind, where: object, reason: str) -> None:
        """Something is wrong with `where`: the name of an object, the position of an event."""
        self.kinds.add(kind)
        if len(self.named) < FAULTS_NAMED_MAX:
            self.named.append(Fault(kind, str(where), reason))
        else:
            self.more += 1

    def notice(self, text: str) -> None:
        """Something is worth a look."""
        if len(self.notices) < NOTICES_MAX:
            self.notices.append(text)


class LogReport(msgspec.Struct, frozen=True):
    """What was found of a partition's log."""

    verdict: Verdict
    partition: int
    origin: str
    size: int
    checkpoints: int
    tasks: int
    keys: tuple[str, ...]
    """Who signed, of those that are trusted: as keys are handed around."""
    erased_events: int
    erased_tasks: int
    in_stream: int
    """Events that stand in the ledger too, and are the same there."""
    not_sealed: int
    """Events of the ledger that follow on from what was sealed."""
    witnessed: dict[str, int]
    """The size of the newest checkpoint that each of the witnesses asked for has cosigned."""
    faults: tuple[Fault, ...]
    more_faults: int
    notices: tuple[str, ...]
    """What is worth a look, and no fault."""
