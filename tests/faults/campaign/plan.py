"""What a seed stands for: which service, which tasks, which faults, and when. Pure."""

import random
from enum import StrEnum
from typing import Final, Literal

import msgspec

POOL: Final = "pool"
ROLES: Final = ("api", "worker-1", POOL, "scheduler", "projector")
VALKEY: Final = "valkey"


class Kind(StrEnum):
    """The faults there are."""

    KILL = "kill -9"
    STOP = "SIGSTOP, SIGCONT"
    KILL_CHILD = "kill -9 in a pool"
    STOP_CHILD = "SIGSTOP, SIGCONT in a pool"
    CUT = "connections cut"
    REFUSE = "connections refused"
    SILENCE = "half-open connections"
    DELAY = "delayed"
    THROTTLE = "throttled"
    FORGET = "scripts forgotten"
    FAIL_OVER = "fail-over"
    LOSSY_FAIL_OVER = "fail-over with loss"
    DISK_FULL = "disk full"
    TORN_FILE = "truncated file"
    CORRUPT_FILE = "corrupted file"


OF_PROCESSES: Final = (Kind.KILL, Kind.STOP)
OF_CHILDREN: Final = (Kind.KILL_CHILD, Kind.STOP_CHILD)
OF_LINES: Final = (Kind.CUT, Kind.REFUSE, Kind.SILENCE, Kind.DELAY, Kind.THROTTLE)
OF_VALKEY: Final = (Kind.KILL, Kind.STOP, Kind.FORGET)
OF_REPLICAS: Final = frozenset((Kind.FAIL_OVER, Kind.LOSSY_FAIL_OVER))

SPECIAL: Final[tuple[Kind | None, ...]] = (
    Kind.FAIL_OVER,
    None,
    Kind.TORN_FILE,
    Kind.DISK_FULL,
    None,
    Kind.LOSSY_FAIL_OVER,
    None,
    Kind.CORRUPT_FILE,
    Kind.DISK_FULL,
    None,
)
"""In turn: the faults that happen at most once in a run, so that twenty seeds have each twice."""


class Fault(msgspec.Struct, frozen=True):
    """One fault: `at_s` after the beginning, for `lasts_s`."""

    kind: Kind
    target: str
    at_s: float
    lasts_s: float


class Plan(msgspec.Struct, frozen=True):
    """Everything that a seed decides."""

    seed: int
    durability: Literal["always", "everysec"]
    tasks: int
    seconds: float
    """How long tasks are submitted, and faults begin."""
    faults: tuple[Fault, ...]

    @property
    def has_replica(self) -> bool:
        return any(fault.kind in OF_REPLICAS for fault in self.faults)

    @property
    def has_small_disk(self) -> bool:
        return any(fault.kind is Kind.DISK_FULL for fault in self.faults)


def plan(seed: int, *, seconds: float = 10.0, tasks: int = 600, faults: int = 7) -> Plan:
    """The same for the same arguments, always."""
    draw = random.Random(seed)  # noqa: S311 - chosen, not secret
    special = SPECIAL[seed % len(SPECIAL)]
    drawn: list[Fault] = []
    if special is not None:
        drawn.append(Fault(special, VALKEY, seconds * draw.uniform(0.4, 0.6), draw.uniform(1, 3)))
    valkey = special not in OF_REPLICAS
    drawn += [_fault(draw, seconds, valkey=valkey) for _ in range(faults)]
    ordered = tuple(sorted(drawn, key=lambda fault: fault.at_s))
    durability = draw.choice(("always", "everysec"))
    return Plan(seed, durability, tasks, seconds, ordered)


def _fault(draw: random.Random, seconds: float, *, valkey: bool) -> Fault:
    target = draw.choice((*ROLES, *ROLES, VALKEY, VALKEY, VALKEY) if valkey else ROLES)
    if target == VALKEY:
        kind = draw.choice(OF_VALKEY)
    else:
        of_children = OF_CHILDREN if target == POOL else ()
        kind = draw.choice((*OF_PROCESSES, *OF_PROCESSES, *of_children, *of_children, *OF_LINES))
    at_s = draw.uniform(0.5, seconds)
    # Some outlast a lease, which is 2 s; some do not.
    return Fault(kind, target, at_s, draw.choice((0.3, 1.0, 3.0, 4.5)))
