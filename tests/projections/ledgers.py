"""Whole ledgers by chance: a few tasks, and whatever commands happen to them."""

import asyncio
import itertools
from collections.abc import Sequence

import msgspec
from hypothesis import strategies as st

from ledger.commands import Command, SubmitTask
from ledger.identity import derived_id
from ledger.memory_store import MemoryStore
from ledger.rejections import Rejection
from ledger.store import Store
from ledger.transact import transact
from tests.given import T0
from tests.strategies import commands, submissions

TASKS_MAX = 4


class Step(msgspec.Struct, frozen=True):
    """What is done to one of the tasks, after a pause."""

    task: int
    command: Command
    pause_ms: int


pauses = st.sampled_from([0, 1, 700, 40_000, 3_600_000])

steps = st.builds(
    Step,
    st.integers(0, TASKS_MAX - 1),
    st.one_of(st.builds(SubmitTask, submissions), *(commands(attempt) for attempt in range(3))),
    pauses,
)
histories = st.lists(steps, max_size=40)


class Clock:
    """The ledger's time, set by hand."""

    def __init__(self) -> None:
        self.ms = T0

    def now_ms(self) -> int:
        return self.ms


def make_store(partitions: int, clock: Clock) -> MemoryStore:
    async def idle(_timeout_ms: int) -> None:
        await asyncio.sleep(0)

    return MemoryStore(clock.now_ms, idle, partitions)


def task_ids() -> list[str]:
    return list(itertools.islice((derived_id("ledgers", str(i)) for i in itertools.count()), 4))


async def carry_out(store: Store, clock: Clock, chosen: Sequence[Step]) -> None:
    """Those of the steps that the rules allow."""
    ids = task_ids()
    for step in chosen:
        clock.ms += step.pause_ms
        try:
            await transact(store, ids[step.task], step.command)
        except Rejection:
            continue
