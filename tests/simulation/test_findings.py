"""Faults of the product that the simulation found, each told once more by itself."""

from collections.abc import Sequence

from msgspec.structs import replace

from ledger.memory_store import MemoryStore
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Delivery
from tests.simulation.network import Fault
from tests.simulation.test_checks import CALM
from tests.simulation.world import simulate

SEEDS = range(1, 21)


class Undroppable(MemoryStore):
    """Is out of reach whenever a claim is to be dropped."""

    drops = 0

    async def drop(self, delivery: Delivery) -> None:
        Undroppable.drops += 1
        raise Rejection(RejectionCode.SERVICE_UNAVAILABLE, "out of reach")


class Watched(MemoryStore):
    """Counts what was handed back."""

    released = 0

    async def release(self, partition: int, deliveries: Sequence[Delivery]) -> None:
        Watched.released += len(deliveries)
        await super().release(partition, deliveries)


def test_a_claim_that_cannot_be_dropped_breaks_no_attempt():
    plan = replace(CALM, workers=3, rates={Fault.DUPLICATE: 0.3, Fault.STALE_CLAIM: 0.2})

    outcomes = [simulate(seed, plan=plan, make_store=Undroppable) for seed in SEEDS]

    assert Undroppable.drops
    assert [outcome.violations for outcome in outcomes] == [[]] * len(outcomes)


def test_what_a_stopped_worker_hands_back_is_taken_by_others():
    plan = replace(CALM, rates={Fault.SLOW: 0.3}, disasters=(Fault.RESTART,), disaster_every_s=0.2)

    outcomes = [simulate(seed, plan=plan, make_store=Watched) for seed in SEEDS]

    assert Watched.released
    assert [outcome.violations for outcome in outcomes] == [[]] * len(outcomes)
