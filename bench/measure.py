"""Figures beside their floors: rounds of the two in turn, so that a busy machine slows both."""

import gc
import math
import statistics
from collections.abc import Awaitable, Callable, Sequence

import msgspec

Measure = Callable[[], Awaitable[float]]
"""One round; gives its figure."""


class Goal(msgspec.Struct, frozen=True):
    """What a row must reach: a ratio to its floor, or a figure that is low enough."""

    ratio_min: float | None = None
    ratio_max: float | None = None
    figure_max: float | None = None

    def text(self) -> str:
        if self.ratio_min is not None:
            return f"ratio ≥ {self.ratio_min:g}"
        if self.ratio_max is not None:
            return f"ratio ≤ {self.ratio_max:g}"
        return f"≤ {self.figure_max:g}"


class Row(msgspec.Struct, frozen=True, kw_only=True, tag="measured"):
    """A measured figure. `low` and `high` are its worst rounds, `ratio` is figure to floor."""

    name: str
    unit: str
    figure: float
    low: float
    high: float
    floor_name: str = ""
    floor: float | None = None
    floor_low: float | None = None
    floor_high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    goal: Goal | None = None
    met: bool | None = None
    rounds: int = 1


class Skipped(msgspec.Struct, frozen=True, tag="skipped"):
    """A row that could not be measured here, and why."""

    name: str
    reason: str


Measured = Row | Skipped


async def alternate(rounds: int, floor: Measure, figure: Measure) -> list[tuple[float, float]]:
    """(figure, floor) of each round."""
    pairs: list[tuple[float, float]] = []
    for _ in range(rounds):
        gc.collect()
        below = await floor()
        gc.collect()
        pairs.append((await figure(), below))
    return pairs


def row(
    name: str,
    unit: str,
    pairs: Sequence[tuple[float, float]],
    *,
    floor_name: str,
    goal: Goal | None = None,
) -> Row:
    """The medians of rounds. The ratio is the median of the rounds' own ratios: a round and its
    floor are neighbours in time, whereas medians may come from different weathers."""
    figures, floors = [f for f, _ in pairs], [f for _, f in pairs]
    ratios = [figure / floor for figure, floor in pairs]
    figure, ratio = statistics.median(figures), statistics.median(ratios)
    return Row(
        name=name,
        unit=unit,
        figure=figure,
        low=min(figures),
        high=max(figures),
        floor_name=floor_name,
        floor=statistics.median(floors),
        floor_low=min(floors),
        floor_high=max(floors),
        ratio=ratio,
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        goal=goal,
        met=None if goal is None else _met(goal, figure, ratio),
        rounds=len(pairs),
    )


def plain_row(name: str, unit: str, figures: Sequence[float], *, goal: Goal | None = None) -> Row:
    """The median of rounds that have no floor of their own."""
    figure = statistics.median(figures)
    return Row(
        name=name,
        unit=unit,
        figure=figure,
        low=min(figures),
        high=max(figures),
        goal=goal,
        met=None if goal is None else _met(goal, figure, 0.0),
        rounds=len(figures),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _met(goal: Goal, figure: float, ratio: float) -> bool:
    if goal.ratio_min is not None and ratio < goal.ratio_min:
        return False
    if goal.ratio_max is not None and ratio > goal.ratio_max:
        return False
    return goal.figure_max is None or figure <= goal.figure_max
