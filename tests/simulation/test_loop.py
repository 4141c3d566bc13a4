"""The loop that owns time, and the processes on it."""

import asyncio
from random import Random

import pytest

from tests.simulation.loop import Process, Stuck, VirtualLoop


def test_time_jumps_to_the_next_timer():
    async def sleep_long() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    assert VirtualLoop(Random(1)).run(sleep_long()) == 86_400


def test_the_seed_is_the_order_of_what_is_ready():
    def order(seed: int) -> list[int]:
        found: list[int] = []

        async def say(number: int) -> None:
            await asyncio.sleep(1)
            found.append(number)

        async def everybody() -> None:
            await asyncio.gather(*map(say, range(8)))

        VirtualLoop(Random(seed)).run(everybody())
        return found

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(5)}) == 5


def test_a_killed_process_does_nothing_any_more():
    done: list[str] = []
    loop = VirtualLoop(Random(1))

    async def work() -> None:
        try:
            while True:
                await asyncio.sleep(1)
                done.append("step")
        finally:
            done.append("finally")

    async def kill() -> list[str]:
        process = Process("worker")
        loop.start(process, work())
        await asyncio.sleep(2.5)
        loop.kill(process)
        await asyncio.sleep(10)
        return list(done)

    assert loop.run(kill()) == ["step", "step"]


def test_a_process_is_killed_at_the_callback_that_was_drawn():
    loop = VirtualLoop(Random(1))
    steps: list[int] = []

    async def work() -> None:
        for step in range(10):
            steps.append(step)
            await asyncio.sleep(0)

    async def watch() -> bool:
        process = Process("worker")
        process.kill_at = 4
        loop.start(process, work())
        await asyncio.sleep(1)
        return process.alive

    assert not loop.run(watch())
    assert steps == [0, 1, 2]


def test_a_paused_process_catches_up():
    loop = VirtualLoop(Random(1))
    at: list[float] = []

    async def work() -> None:
        while True:
            await asyncio.sleep(1)
            at.append(loop.time())

    async def pause() -> None:
        process = Process("worker")
        loop.start(process, work())
        await asyncio.sleep(0.5)
        process.paused = True
        await asyncio.sleep(5)
        loop.resume(process)
        await asyncio.sleep(1.2)

    loop.run(pause())

    assert at == [5.5, 6.5]


def test_what_can_never_go_on_is_noticed():
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        VirtualLoop(Random(1)).run(wait_for_ever())
