"""An archive verified, beside reading and decoding the same events and doing nothing with them."""

import time
from collections.abc import Sequence
from typing import Final

from bench.archived import EPOCH, beside_decoding
from bench.measure import Goal, Measured
from bench.scale import Scale
from ledger.archive.verify.faults import Faults
from ledger.archive.verify.log import LogCheck, Options
from ledger.objects import ObjectStore

RATIO_GOAL: Final = Goal(ratio_min=0.2)


async def run(scale: Scale) -> Sequence[Measured]:
    """Of the bench's history."""
    return await beside_decoding(scale, "verify of {}", _verify_s, RATIO_GOAL)


async def _verify_s(objects: ObjectStore, events: int) -> float:
    began = time.perf_counter()
    faults = Faults()
    report = await LogCheck(objects, EPOCH, 0, Options(), None, faults, _nothing).run()
    assert not report.faults and report.size == events
    return time.perf_counter() - began


def _nothing(_: int) -> None:
    pass
