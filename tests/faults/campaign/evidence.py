"""What a run leaves behind, and all that is judged: the oracle's part lies outside of Redis."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ledger.events import Priority
from ledger.store import Recorded
from ledger.task import Task

OVERLAP_S: Final = 3.0
"""A worker that can reach the ledger again learns so soon that an attempt is not its own any more:
a lease of 2 s, and a second until a dead connection is given up."""

LEARNED_S: Final = 5.0
"""A worker asks with each heartbeat, and starts what it has claimed by then; on a busy machine."""

Span = tuple[float, float]
"""From when to when, in s of the machine."""


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One line of a handler's log. `what` is began, works or ended; `role` whose worker it is in;
    `at` in s of the machine."""

    what: str
    run: str
    task_id: str
    attempt: int
    role: str
    at: float


encode_step = msgspec.json.Encoder().encode
_decode_step = msgspec.json.Decoder(Step).decode


class Run(msgspec.Struct):
    """One call of a handler, as far as its log goes: it was at work from `began` to `last`."""

    name: str
    task_id: str
    attempt: int
    role: str
    began: float
    last: float
    ended: bool = False


class Injected(msgspec.Struct, frozen=True):
    """A fault as it happened: when it began and when it was over, in s of the machine."""

    kind: str
    target: str
    began: float
    over: float


class Sent(msgspec.Struct, frozen=True):
    """What a client submitted; the payload as the bytes that it sent."""

    kb_id: str
    task_type: str
    priority: Priority
    payload: bytes


class Evidence(msgspec.Struct, kw_only=True):
    """Of one run."""

    acknowledged: Mapping[str, float]
    """When each submission was answered with 201 (or 200, as a replay), by task id."""
    sent: Mapping[str, Sent]
    """What was submitted in each of these, by task id."""
    canceled: Mapping[str, float]
    """When each cancel was answered with 200, by task id."""
    runs: Sequence[Run]
    events: Sequence[Recorded]
    """The whole ledger, oldest first."""
    snapshots: Mapping[str, Task | None]
    faults: Sequence[Injected] = ()
    clock_s: float = 0.0
    """What the ledger's clock is ahead of the machine's."""
    learned_s: float = LEARNED_S
    """How long after a pause a worker that can reach the ledger may start a task of that type."""
    overlap_s: float = OVERLAP_S
    losable: Sequence[Span] = ()
    """What was acknowledged in one of these may be lost: it reached neither the replica nor, with
    `everysec`, the file."""
    rebuild_differences: Sequence[str] = ()
    """What `ledgerq rebuild --check` found."""
    oddities: Sequence[str] = ()
    """What did not go as the plan expects: a role that ended by itself, a damage not noticed."""

    def may_be_lost(self, at: float) -> bool:
        return is_within(self.losable, at)


def is_within(spans: Sequence[Span], at: float) -> bool:
    return any(began <= at <= over for began, over in spans)


def read_runs(folder: Path) -> list[Run]:
    """Every run that the handlers' logs in `folder` tell of. A last line without its end is passed
    over: its writer was killed over it."""
    runs: dict[str, Run] = {}
    for path in sorted(folder.glob("*.log")):
        *lines, _unfinished = path.read_bytes().split(b"\n")
        for line in lines:
            step = _decode_step(line)
            run = runs.get(step.run)
            if run is None:
                run = runs[step.run] = Run(
                    step.run, step.task_id, step.attempt, step.role, step.at, step.at
                )
            run.last = step.at
            run.ended = step.what == "ended"
    return list(runs.values())


def by_task(events: Sequence[Recorded]) -> Mapping[str, list[Recorded]]:
    found: defaultdict[str, list[Recorded]] = defaultdict(list)
    for event in events:
        found[event.task_id].append(event)
    return found
