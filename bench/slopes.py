"""How fast something grows, from samples over time, and how sure that is."""

import statistics
from collections.abc import Sequence
from typing import Final

BLOCKS: Final = 10

Sample = tuple[float, float]
"""(time, value)"""


def slope(samples: Sequence[Sample]) -> tuple[float, float]:
    """Of the line through the samples, by least squares, and its standard error.

    Samples of memory are no independent draws: neighbours are alike, and steps are rare. So the
    error is that of leaving out one tenth of the time after the other (the jackknife), not the one
    of the residuals, which would be much too small.
    """
    whole = statistics.linear_regression(*zip(*samples, strict=True)).slope
    size = len(samples) / BLOCKS
    partial: list[float] = []
    for block in range(BLOCKS):
        first, last = round(block * size), round((block + 1) * size)
        kept = (*samples[:first], *samples[last:])
        partial.append(statistics.linear_regression(*zip(*kept, strict=True)).slope)
    mean = statistics.fmean(partial)
    spread = sum((each - mean) ** 2 for each in partial)
    return whole, ((BLOCKS - 1) / BLOCKS * spread) ** 0.5
