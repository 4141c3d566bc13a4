"""Python's cycle collector, set for a process that runs one loop for as long as it lives."""

import contextlib
import gc
from collections.abc import Generator
from typing import Final

NEW_OBJECTS: Final = 10_000
"""More containers made than freed between two looks for cycles; Python's default is 700. Neither an
attempt nor a request leaves a cycle behind, and tests hold them to it: what outlives a few looks is
looked at again only after so many hundreds of thousands of tasks. But a hundred in flight are
enough objects to set off look after look among them: a twelfth of a worker's CPU time, a twentieth
of an API's. Handlers may make cycles, hence not much higher.
"""


def collect_rarely() -> None:
    """Look for cycles seldom, and never among what exists now: call it after the imports."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])


@contextlib.contextmanager
def rarely_collecting() -> Generator[None]:
    """`collect_rarely` for a while."""
    thresholds = gc.get_threshold()
    collect_rarely()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
