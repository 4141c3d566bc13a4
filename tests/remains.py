"""What work leaves behind in a process: garbage that only the cycle collector frees, and memory."""

import contextlib
import gc
import tracemalloc
from collections.abc import Awaitable, Callable, Generator
from itertools import pairwise
from typing import Any, Final

BYTES_A_ROUND_MAX: Final = 60
"""Its id alone, which is the least that can be kept of a task, takes 85."""


@contextlib.contextmanager
def cyclic_garbage() -> Generator[list[Any]]:
    """What was made within and can only be freed by looking for cycles: filled in at the end."""
    gc.collect()
    gc.disable()
    found: list[Any] = []
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def bytes_a_round(
    work: Callable[[int], Awaitable[None]], *, warm_up: int, rounds: int
) -> float:
    """By how much Python's memory grows each time. `work(n)` does so many rounds, first for the
    warm-up, which must fill whatever has a bound; then twice, of which the smaller growth counts:
    what leaks does so in both, and what something else in the process is given once does not."""
    held: list[int] = []
    tracemalloc.start()
    try:
        for count in (warm_up, rounds, rounds):
            await work(count)
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return min(after - before for before, after in pairwise(held)) / rounds
