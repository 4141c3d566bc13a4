"""What one run is like: drawn from its seed, before anything happens."""

from random import Random
from typing import Final

import msgspec

from ledger.system.events import LimitScope
from tests.simulation.network import BY_OPERATORS, IN_CALLS, Fault

TASK_TYPES: Final = ("parse", "embed", "index")
KB_IDS: Final = ("kb-a", "kb-b", "kb-c")

LONGER_S: Final = 6.0
"""Faults go on for so much longer where outages outlast leases."""

RETRY_BASE_MS: Final = 100
RETRY_CAP_MS: Final = 1_000


class Plan(msgspec.Struct, frozen=True):
    """Times in s unless named otherwise."""

    partitions: int
    workers: int
    concurrency: int
    schedulers: int
    clients: int
    wishes: int
    """Of each client."""
    faults_s: float
    """When they cease at the latest."""
    rates: dict[Fault, float]
    """Of the calls over the network, what part meets each of these."""
    disasters: tuple[Fault, ...]
    """What happens to processes and clocks meanwhile."""
    disaster_every_s: float
    changes: tuple[Fault, ...]
    """What an operator does meanwhile; without any, there is none."""
    lease_ms: int
    pending_idle_ms: int
    queue_max: int
    limits: tuple[tuple[LimitScope, str, int], ...]
    """How many tasks of a type or of a kb_id may run at once."""
    is_crowded: bool
    """Many quick tasks and one slot, so that priorities matter."""


def draw_plan(chance: Random) -> Plan:
    """Each run has some kinds of faults and not others: together they would drown each other."""
    is_crowded = chance.random() < 0.01
    is_calm = chance.random() < 0.08
    kinds = [kind for kind in Fault if not is_calm and chance.random() < 0.4]
    intensity = chance.choice((0.01, 0.03, 0.08))
    return Plan(
        partitions=chance.choice((1, 1, 2)),
        workers=1 if is_crowded else chance.choice((1, 2, 2, 3)),
        concurrency=1 if is_crowded else chance.choice((1, 2, 4)),
        schedulers=1 if chance.random() < 0.8 else 2,
        clients=2 if is_crowded else chance.choice((1, 2)),
        wishes=50 if is_crowded else chance.choice((2, 3, 5)),
        faults_s=chance.choice((2.0, 4.0)) + (LONGER_S if Fault.LONG_OUTAGE in kinds else 0),
        rates={kind: intensity for kind in kinds if kind in IN_CALLS},
        disasters=tuple(kind for kind in kinds if kind not in (*IN_CALLS, *BY_OPERATORS)),
        disaster_every_s=chance.choice((0.5, 1.0, 2.0)),
        changes=tuple(kind for kind in kinds if kind in BY_OPERATORS),
        lease_ms=chance.choice((2_000, 3_000)),
        pending_idle_ms=chance.choice((1_000, 2_000)),
        queue_max=chance.choice((0, 0, 0, 2)),
        limits=_draw_limits(chance),
        is_crowded=is_crowded,
    )


def _draw_limits(chance: Random) -> tuple[tuple[LimitScope, str, int], ...]:
    limits: list[tuple[LimitScope, str, int]] = []
    if chance.random() < 0.2:
        limits.append((LimitScope.TYPE, chance.choice(TASK_TYPES), chance.choice((1, 2))))
    if chance.random() < 0.2:
        limits.append((LimitScope.KB, chance.choice(KB_IDS), chance.choice((1, 2))))
    return tuple(limits)
