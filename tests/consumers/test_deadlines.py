"""Time limits that share a timer."""

import asyncio
import functools
from collections.abc import Callable
from random import Random

from consumers.deadlines import RESOLUTION_S, Deadlines
from tests.simulation.loop import VirtualLoop

PATIENCE_S = 10


class Rung:
    """What was called, in order, with a wait for so many calls."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._rung = asyncio.Event()

    def bell(self, name: str) -> Callable[[], None]:
        def ring() -> None:
            self.names.append(name)
            self._rung.set()

        return ring

    async def times(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.names) < count:
                self._rung.clear()
                await self._rung.wait()


async def test_calls_come_in_the_order_of_their_times_and_not_before() -> None:
    deadlines, rung = Deadlines(), Rung()
    loop = asyncio.get_running_loop()
    began = loop.time()
    deadlines.add(4 * RESOLUTION_S, rung.bell("late"))
    deadlines.add(0.0, rung.bell("early"))
    await rung.times(2)

    assert rung.names == ["early", "late"]
    assert loop.time() - began >= 4 * RESOLUTION_S


async def test_what_was_dropped_is_not_called() -> None:
    deadlines, rung = Deadlines(), Rung()
    dropped = rung.bell("dropped")
    slot = deadlines.add(RESOLUTION_S, dropped)
    deadlines.add(2 * RESOLUTION_S, rung.bell("kept"))
    deadlines.drop(slot, dropped)
    await rung.times(1)

    assert rung.names == ["kept"]


async def test_dropping_what_was_called_does_nothing() -> None:
    deadlines, rung = Deadlines(), Rung()
    bell = rung.bell("rung")
    slot = deadlines.add(0.0, bell)
    await rung.times(1)
    deadlines.drop(slot, bell)

    assert rung.names == ["rung"]


async def test_a_call_may_set_the_next() -> None:
    deadlines, rung = Deadlines(), Rung()
    again = rung.bell("again")

    def first() -> None:
        rung.bell("first")()
        deadlines.add(0.0, again)

    deadlines.add(0.0, first)
    await rung.times(2)

    assert rung.names == ["first", "again"]


def test_a_bell_rings_once_for_what_is_due() -> None:
    """Times that are no whole fractions of a second must not be due and not due at once."""
    loop = VirtualLoop(Random(1))  # noqa: S311 - the order of callbacks has to be repeatable
    called: list[int] = []

    async def ring_all() -> None:
        deadlines = Deadlines()
        for number in range(400):
            deadlines.add(number * RESOLUTION_S, functools.partial(called.append, number))
        await asyncio.sleep(400 * RESOLUTION_S + 1)

    loop.run(ring_all())

    assert called == list(range(400))
    assert loop.callbacks < 2 * len(called)
