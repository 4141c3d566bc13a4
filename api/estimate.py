"""When a task will be finished, from what was measured: a pure function.

Let `d` be the mean duration of an attempt of the task's type, `slots` how many tasks the workers
that serve the type run at once, and `free` how many of these slots are empty.

*Waiting*, at position `p` in its queue (1 = next):

    start = now                                       when p <= free
    start = now + (p - free) / rate                   when the type's rate was measured
    start = now + ((p - free) d + others) / slots     otherwise
    completion = start + d

A slot whose attempt has more than `d` left, by the rule for running ones below, joins the `slots`
that late: when no more than `d` is left. One whose attempt takes longer than any before never does;
when there is no other slot, nothing is known. A rate holds from when the first slot has joined.

`rate` is how many attempts of the type ended per ms while some of it waited all the time: it holds
whatever bounds the workers, be it slots, processors or the ledger. `others` is the work of other
types that the same workers take before: all that is more urgent, and of what is as urgent as much
as there is of the task's own, since types take turns.

*Not before* a time `t` (a schedule, a retry): the queue as it is now is worked off meanwhile.

    completion = max(t, start at the end of the queue) + d

*Running* for `e` already: the mean of those attempts that took longer than `e`.

    completion = started + E[duration | duration > e]

A limit of the type bounds `slots`. Nothing that waits is taken while the type is paused: then
nothing is known. Nor is it of what waits while its knowledge base is at its limit.

It assumes that this attempt succeeds, and that workers, durations and queues stay as they are. It
is nothing (None) when no worker serves the type, when no attempt of it was ever measured, or when
it, or each that could make room for it, takes longer than any before. It is never in the past.
"""

import bisect
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ledger.events import Priority
from ledger.placement import Callback, Due, Leased, Nowhere, Ready, placement
from ledger.task import Task

ORDER: Final = tuple(Priority)


class Durations(msgspec.Struct, frozen=True):
    """How long attempts took: a histogram. Times in ms."""

    bounds_ms: Sequence[float]
    """Upper bounds of the buckets, rising; the last may be infinite."""
    counts: Sequence[int]
    sums_ms: Sequence[int]

    @property
    def count(self) -> int:
        """Of all attempts."""
        return sum(self.counts)

    @property
    def mean_ms(self) -> float | None:
        """Of all attempts; None when there was none."""
        return sum(self.sums_ms) / self.count if self.count else None

    def mean_beyond_ms(self, elapsed_ms: int) -> float | None:
        """Of those attempts that took longer than `elapsed_ms`; None when there was none. Within
        the bucket that this falls into, they count as spread evenly once its mean is passed."""
        bucket = bisect.bisect_left(self.bounds_ms, elapsed_ms)
        if bucket == len(self.counts):
            return None
        count = float(sum(self.counts[bucket + 1 :]))
        total = float(sum(self.sums_ms[bucket + 1 :]))
        own, low = self.counts[bucket], self.bounds_ms[bucket - 1] if bucket else 0.0
        high = self.bounds_ms[bucket]
        if own and self.sums_ms[bucket] > own * elapsed_ms:
            count, total = count + own, total + self.sums_ms[bucket]
        elif own and high < float("inf"):
            longer = own * (high - elapsed_ms) / (high - low)
            count, total = count + longer, total + longer * (elapsed_ms + high) / 2
        return max(total / count, float(elapsed_ms)) if count >= 0.5 else None


class Rival(msgspec.Struct, frozen=True):
    """Another type that the same workers serve."""

    waiting: Mapping[Priority, int]
    mean_ms: float


class Load(msgspec.Struct, frozen=True):
    """What was measured around one type."""

    durations: Durations
    slots: int
    """That the workers have which serve the type and take tasks."""
    free: int
    """Of these, how many are empty."""
    waiting: Mapping[Priority, int]
    """Ready tasks of the type."""
    rate: float | None = None
    """Attempts that ended, per ms, while tasks of the type waited all the time."""
    rivals: Sequence[Rival] = ()
    frees_at: Sequence[float] = ()
    """When the attempts that are known to fill slots are likely to end, in ms, rising."""
    stuck: int = 0
    """Slots filled by attempts that take longer than any before: nobody knows their end."""
    paused: bool = False
    """No task of the type is taken: when it will be, nobody knows."""
    mean_ms: float | None = None
    """That of the durations, added up once for many questions."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "mean_ms", self.durations.mean_ms)


def completion_ms(task: Task, position: int, load: Load, now_ms: int) -> int | None:
    """When the task is likely to be completed, in ms since the epoch, by the ledger's clock.

    `position` is its place in its queue; 0 for a task that was claimed and is not started.
    """
    mean_ms = load.mean_ms
    if mean_ms is None or not load.slots:
        return None
    match placement(task):
        case Callback() | Nowhere():
            return None
        case Leased():
            return _of_running(task, load.durations, now_ms)
        case _ if load.paused:
            return None
        case Ready():
            earliest_ms = now_ms
        case Due(at_ms):
            earliest_ms = at_ms
            position = 1 + sum(load.waiting[p] for p in _at_least_as_urgent(task))
    wait_ms = _wait_ms(task, position, load, mean_ms, now_ms)
    if wait_ms is None:
        return None
    return max(now_ms, round(max(earliest_ms, now_ms + wait_ms) + mean_ms))


def _wait_ms(task: Task, position: int, load: Load, mean_ms: float, now_ms: int) -> float | None:
    ahead = position - load.free
    if ahead <= 0:
        return 0.0
    late = load.frees_at[bisect.bisect_right(load.frees_at, now_ms + mean_ms) :]
    slots = max(load.free, load.slots - load.stuck - len(late))
    if not slots and not late:
        return None
    if load.rate:
        return max(ahead / load.rate, 0.0 if slots else late[0] - now_ms - mean_ms)
    work_ms = ahead * mean_ms + _others_ms(task, position, load.rivals)
    wait_ms = work_ms / slots if slots else float("inf")
    for free_at in late:
        joins_ms = free_at - now_ms - mean_ms
        if wait_ms <= joins_ms:
            break
        slots, work_ms = slots + 1, work_ms + joins_ms
        wait_ms = work_ms / slots
    return wait_ms


def _others_ms(task: Task, position: int, rivals: Sequence[Rival]) -> float:
    others_ms = 0.0
    for rival in rivals:
        waiting = rival.waiting
        own = task.submission.priority
        ahead = min(waiting[own], position)
        for priority in ORDER:
            if priority is own:
                break
            ahead += waiting[priority]
        others_ms += rival.mean_ms * ahead
    return others_ms


def _of_running(task: Task, durations: Durations, now_ms: int) -> int | None:
    started_at = task.state.started_at
    if started_at is None:
        return None
    mean_ms = durations.mean_beyond_ms(max(0, now_ms - started_at))
    return None if mean_ms is None else max(now_ms, round(started_at + mean_ms))


def _at_least_as_urgent(task: Task) -> tuple[Priority, ...]:
    return ORDER[: ORDER.index(task.submission.priority) + 1]
