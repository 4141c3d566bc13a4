"""Many runs in one process."""

import gc
import time
import traceback
from collections import Counter
from typing import Final

from tests.simulation.summary import Summary
from tests.simulation.watch import Violation
from tests.simulation.world import Outcome, simulate

RUNS_PER_COLLECTION: Final = 15
"""A run leaves cycles behind. Looking for them all the time costs time, and so does memory that is
always new: 500 runs took 7.3 ms each with 100, 5.7 with 40, 5.0 with 15, 5.2 with 5."""


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
