"""Many runs in one process."""

import gc
import time
import traceback
from collections import Counter
from typing import Final

from tests.simulation.summary import Summary
from tests.simulation.watch import Violation
from tests.simulation.world import Outcome, simulate

RUNS_PER_COLLECTION: Final = 100
"""A run leaves cycles behind; looking for them all the time would cost more than the runs."""


def run_all(seeds: range) -> Summary:
    """Some seeds, one after the other."""
    gc.collect()
    gc.freeze()
    gc.disable()
    began_s = time.process_time()
    summary = Summary()
    for count, seed in enumerate(seeds):
        if count % RUNS_PER_COLLECTION == RUNS_PER_COLLECTION - 1:
            gc.collect()
        summary.add(_simulated(seed))
    gc.enable()
    gc.unfreeze()
    summary.processor_s = time.process_time() - began_s
    return summary


def _simulated(seed: int) -> Outcome:
    """A fault of the simulation itself must name its seed too."""
    try:
        return simulate(seed)
    except Exception:
        fault = Violation("the simulation itself", traceback.format_exc(), 0.0)
        nothing = Counter[str]()
        return Outcome(seed, [fault], Counter(), Counter(), nothing, 0, 0, 0, 0, 0.0, "")
