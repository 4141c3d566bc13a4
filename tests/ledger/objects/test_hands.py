"""Work that blocks, done for an event loop."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from ledger.objects.hands import Hands, Outcome

PATIENCE_S: Final = 10

Work = Callable[[], None]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def each(works: Sequence[Work]) -> list[Outcome]:
    for work in works:
        work()
    return [None] * len(works)


def wait_for(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S)


async def test_all_that_is_asked_for_is_done_in_its_order(threads: ThreadPoolExecutor):
    done: list[int] = []

    def noting(number: int) -> Work:
        return lambda: done.append(number)

    hands = Hands(threads, 1, each)
    await asyncio.gather(*(hands.do(noting(number)) for number in range(500)))

    assert done == list(range(500))


async def test_what_a_job_fails_with_is_raised_where_it_was_asked_for(threads: ThreadPoolExecutor):
    def fail() -> None:
        raise OSError("the disk is full")

    hands = Hands(threads, 1, each)

    with pytest.raises(OSError, match="the disk is full"):
        await hands.do(fail)
    await hands.do(lambda: None)


async def test_no_more_threads_work_than_may(threads: ThreadPoolExecutor):
    working, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        threading.Event().wait(0.001)
        with lock:
            working -= 1

    hands = Hands(threads, 2, each)
    await asyncio.gather(*(hands.do(work) for _ in range(50)))

    assert most == 2


async def test_what_gathers_meanwhile_is_done_together_and_each_hears_its_own_outcome(
    threads: ThreadPoolExecutor,
):
    together: list[list[int]] = []
    first_began, go_on = threading.Event(), threading.Event()

    def do(numbers: Sequence[int]) -> list[Outcome]:
        together.append(list(numbers))
        first_began.set()
        wait_for(go_on)
        return [OSError(str(number)) if number % 2 else None for number in numbers]

    hands = Hands(threads, 1, do, at_once_max=3)
    first = asyncio.create_task(hands.do(0))
    await asyncio.to_thread(wait_for, first_began)
    others = [asyncio.create_task(hands.do(number)) for number in range(1, 6)]
    await asyncio.sleep(0)
    go_on.set()
    outcomes = await asyncio.gather(first, *others, return_exceptions=True)

    assert together == [[0], [1, 2, 3], [4, 5]]
    assert [str(outcome) for outcome in outcomes] == ["None", "1", "None", "3", "None", "5"]


async def test_who_is_cancelled_leaves_when_the_job_is_over_however_often(
    threads: ThreadPoolExecutor,
):
    began, go_on = threading.Event(), threading.Event()
    over = False

    def work() -> None:
        nonlocal over
        began.set()
        wait_for(go_on)
        over = True

    asked = asyncio.create_task(Hands(threads, 1, each).do(work))
    await asyncio.to_thread(wait_for, began)
    for _ in range(3):
        asked.cancel()
        await asyncio.sleep(0)
        assert not asked.done()
    go_on.set()

    with pytest.raises(asyncio.CancelledError):
        await asked
    assert over
