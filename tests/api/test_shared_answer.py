"""What many requests want to know is asked once."""

import asyncio
import contextlib
import gc
import weakref
from typing import Final

import pytest

from api.shared_answer import SharedAnswer

LONG_S: Final = 3_600.0


class Ledger:
    """Answers with how often it was asked, when the test lets it."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.fails = False

    async def ask(self) -> int:
        self.asked += 1
        answer = self.asked
        await self.may_answer.wait()
        if self.fails:
            raise ConnectionError("nobody there")
        return answer


@pytest.fixture
async def ledger() -> Ledger:
    return Ledger()


async def turn() -> None:
    await asyncio.sleep(0)


async def test_it_is_asked_once_for_all_who_want_to_know_at_the_same_time(ledger: Ledger):
    shared = SharedAnswer(ledger.ask, fresh_s=0)
    asking = [asyncio.create_task(shared.get()) for _ in range(3)]
    await turn()

    ledger.may_answer.set()

    assert await asyncio.gather(*asking) == [1, 1, 1]


async def test_an_answer_that_is_fresh_is_not_asked_for_again(ledger: Ledger):
    ledger.may_answer.set()
    shared = SharedAnswer(ledger.ask, LONG_S)

    assert [await shared.get() for _ in range(3)] == [1, 1, 1]


async def test_an_answer_that_is_not_is(ledger: Ledger):
    ledger.may_answer.set()
    shared = SharedAnswer(ledger.ask, fresh_s=0)

    assert [await shared.get() for _ in range(3)] == [1, 2, 3]


async def test_an_answer_is_as_old_as_its_question(ledger: Ledger):
    loop, short_s = asyncio.get_running_loop(), 0.01
    shared = SharedAnswer(ledger.ask, short_s)
    asking = asyncio.create_task(shared.get())
    await turn()
    began_s = loop.time()
    while loop.time() < began_s + short_s:
        await turn()
    ledger.may_answer.set()
    await asking

    assert await shared.get() == 2


async def test_a_failure_is_for_those_who_waited_and_nobody_else(ledger: Ledger):
    ledger.fails = True
    ledger.may_answer.set()
    shared = SharedAnswer(ledger.ask, LONG_S)
    failed = await asyncio.gather(shared.get(), shared.get(), return_exceptions=True)

    ledger.fails = False

    assert [type(each) for each in failed] == [ConnectionError] * 2
    assert await shared.get() == 2


class Lost(ConnectionError):
    """A failure that can be watched until it is gone."""


async def test_a_failure_is_not_kept():
    kept: list[weakref.ref[Lost]] = []

    async def ask() -> int:
        error = Lost()
        kept.append(weakref.ref(error))
        raise error

    shared = SharedAnswer(ask, LONG_S)
    with contextlib.suppress(Lost):
        await shared.get()
    await turn()  # what woke us has it
    gc.collect()

    assert kept[0]() is None


async def test_who_hangs_up_does_not_end_it_for_the_others(ledger: Ledger):
    shared = SharedAnswer(ledger.ask, LONG_S)
    first, second = (asyncio.create_task(shared.get()) for _ in range(2))
    await turn()

    first.cancel()
    await turn()
    ledger.may_answer.set()

    assert await second == 1
    assert first.cancelled()


async def test_it_is_closed_when_it_is_not_asked_any_more(ledger: Ledger):
    shared = SharedAnswer(ledger.ask, LONG_S)
    asking = asyncio.create_task(shared.get())
    await turn()
    closing = asyncio.create_task(shared.close())
    await turn()
    was_closed = closing.done()

    ledger.may_answer.set()
    await asyncio.gather(asking, closing)

    assert not was_closed


async def test_one_that_nobody_asked_is_closed_at_once(ledger: Ledger):
    await SharedAnswer(ledger.ask, LONG_S).close()

    assert ledger.asked == 0
