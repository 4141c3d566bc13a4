"""Python's cycle collector, set for a process that runs one loop for as long as it lives."""

import gc
from typing import Final

NEW_OBJECTS: Final = 10_000
"""More containers made than freed between two looks for cycles; Python's default is 700. An attempt
leaves no cycle behind, but a hundred attempts in flight are enough objects to set off look after
look among them: a twelfth of a worker's CPU time. Handlers may make cycles, hence not much higher.
"""


def collect_rarely() -> None:
    """Look for cycles seldom, and never among what exists now: call it after the imports."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
