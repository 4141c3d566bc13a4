"""Group commit: what is asked for at once travels together."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ledger import lingering
from ledger.batching import SPLIT_ITEMS_MIN, Coalescer
from ledger.lingering import QUIET_TURNS_MAX
from ledger.rejections import Rejection, RejectionCode


class Line:
    """A line to nowhere: it notes the batches and answers when told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.error: BaseException | None = None

    async def send(self, batch: list[int]) -> list[int]:
        self.batches.append(batch)
        self.arrived.set()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return [item * 10 for item in batch]

    def coalescer(
        self, *, items_max: int = 100, bytes_max: int = 1_000, queue: int = 100, in_flight: int = 1
    ) -> Coalescer[int, int]:
        return Coalescer(
            self.send,
            items_max=items_max,
            bytes_max=bytes_max,
            queue_items_max=queue,
            in_flight_max=in_flight,
        )


async def turns(count: int) -> None:
    """So many turns of the loop go by."""
    for _ in range(count):
        await asyncio.sleep(0)


async def in_company(line: Line, coalescer: Coalescer[int, int]) -> None:
    """Two have left together, which the patient then hope for too."""
    await asyncio.gather(*(coalescer.submit(0, 1, patient=True) for _ in range(2)))
    line.batches.clear()
    line.arrived.clear()


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns alone count: a machine that stands still for a moment ends no patience."""
    monkeypatch.setattr(lingering, "WAIT_S", 3_600.0)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    line = Line()
    yield line
    line.open.set()


async def test_what_is_submitted_in_one_turn_travels_together_and_in_order(line: Line):
    coalescer = line.coalescer()

    replies = await asyncio.gather(*(coalescer.submit(n, 1) for n in range(5)))

    assert replies == [0, 10, 20, 30, 40]
    assert line.batches == [[0, 1, 2, 3, 4]]


async def test_one_alone_does_not_wait_for_others(line: Line):
    coalescer = line.coalescer()

    assert await coalescer.submit(1, 1) == 10
    assert await coalescer.submit(2, 1) == 20
    assert line.batches == [[1], [2]]


async def test_what_comes_while_a_batch_is_out_makes_the_next_batch(line: Line):
    coalescer = line.coalescer()
    line.open.clear()
    first = coalescer.submit(1, 1)
    await line.arrived.wait()
    rest = [coalescer.submit(n, 1) for n in (2, 3, 4)]

    line.open.set()

    assert await asyncio.gather(first, *rest) == [10, 20, 30, 40]
    assert line.batches == [[1], [2, 3, 4]]


async def test_a_batch_has_at_most_so_many_items(line: Line):
    coalescer = line.coalescer(items_max=2)

    await asyncio.gather(*(coalescer.submit(n, 1) for n in range(5)))

    assert line.batches == [[0, 1], [2, 3], [4]]


async def test_a_batch_has_at_most_so_many_bytes_but_a_large_item_still_travels(line: Line):
    coalescer = line.coalescer(bytes_max=10)

    await asyncio.gather(*(coalescer.submit(size, size) for size in (4, 6, 1, 99, 9, 1)))

    assert line.batches == [[4, 6], [1], [99], [9, 1]]


async def test_as_many_batches_are_out_as_are_allowed(line: Line):
    coalescer = line.coalescer(items_max=1, in_flight=2)
    line.open.clear()
    futures = [coalescer.submit(n, 1) for n in range(3)]
    await line.arrived.wait()
    for _ in range(3):
        await asyncio.sleep(0)

    assert line.batches == [[0], [1]]
    line.open.set()
    assert await asyncio.gather(*futures) == [0, 10, 20]


async def test_what_waits_is_divided_among_the_batches_that_may_leave(line: Line):
    coalescer = line.coalescer(in_flight=2)

    await asyncio.gather(*(coalescer.submit(n, 1) for n in range(50)))

    assert [len(batch) for batch in line.batches] == [25, 25]


async def test_a_few_items_are_not_divided(line: Line):
    coalescer = line.coalescer(in_flight=2)

    await asyncio.gather(*(coalescer.submit(n, 1) for n in range(SPLIT_ITEMS_MIN)))

    assert [len(batch) for batch in line.batches] == [SPLIT_ITEMS_MIN]


async def test_one_alone_leaves_beside_a_batch_that_is_out(line: Line):
    coalescer = line.coalescer(in_flight=2)
    line.open.clear()
    first = coalescer.submit(1, 1)
    await line.arrived.wait()
    line.arrived.clear()

    second = coalescer.submit(2, 1)
    await line.arrived.wait()

    assert line.batches == [[1], [2]]
    line.open.set()
    assert await asyncio.gather(first, second) == [10, 20]


@pytest.mark.usefixtures("no_clock")
async def test_patient_callers_who_get_ready_a_few_turns_apart_travel_together(line: Line):
    coalescer = line.coalescer(queue=1_000)
    callers = 200
    await in_company(line, coalescer)

    futures: list[asyncio.Future[int]] = []
    for n in range(callers):
        futures.append(coalescer.submit(n, 1, patient=True))
        await turns(QUIET_TURNS_MAX // 2)

    assert await asyncio.gather(*futures) == [n * 10 for n in range(callers)]
    assert [n for batch in line.batches for n in batch] == list(range(callers))
    assert len(line.batches) < callers / 2, "they left one by one"


@pytest.mark.usefixtures("no_clock")
async def test_one_who_is_not_patient_takes_those_along_who_are(line: Line):
    coalescer = line.coalescer()
    await in_company(line, coalescer)

    patient = coalescer.submit(1, 1, patient=True)
    await turns(2)
    assert line.batches == []
    other = coalescer.submit(2, 1)
    await turns(2)

    assert line.batches == [[1, 2]]
    assert await asyncio.gather(patient, other) == [10, 20]


async def test_the_patient_wait_no_longer_than_their_time(
    line: Line, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lingering, "WAIT_S", 0.0)
    coalescer = line.coalescer()
    await in_company(line, coalescer)

    patient = coalescer.submit(1, 1, patient=True)
    await turns(2)

    assert line.batches == [[1]]
    assert await patient == 10


async def test_what_is_not_patient_never_waits(line: Line):
    coalescer = line.coalescer()
    await in_company(line, coalescer)

    for n in (1, 2, 3):
        future = coalescer.submit(n, 1)
        await turns(2)
        assert line.batches[-1] == [n]
        await future


@pytest.mark.usefixtures("no_clock")
async def test_the_patient_linger_behind_a_batch_too(line: Line):
    coalescer = line.coalescer()
    await in_company(line, coalescer)
    line.open.clear()
    first = coalescer.submit(1, 1)
    await line.arrived.wait()
    second = coalescer.submit(2, 1, patient=True)
    line.open.set()
    await first
    await turns(3)
    assert line.batches == [[1]]

    third = coalescer.submit(3, 1, patient=True)

    assert await asyncio.gather(second, third) == [20, 30]
    assert line.batches == [[1], [2, 3]]


async def test_an_error_reaches_every_item_of_its_batch_and_no_other(line: Line):
    coalescer = line.coalescer(items_max=2)
    line.error = Rejection(RejectionCode.SERVICE_UNAVAILABLE, "down")
    failing = await asyncio.gather(
        *(coalescer.submit(n, 1) for n in (1, 2)), return_exceptions=True
    )
    line.error = None

    assert [str(error) for error in failing] == ["down", "down"]
    assert failing[0] is not failing[1], "each caller adds its own traceback"
    assert await coalescer.submit(3, 1) == 30


async def test_what_waits_behind_an_unavailable_server_does_not_begin_to_wait_again(line: Line):
    coalescer = line.coalescer()
    line.open.clear()
    out = coalescer.submit(1, 1)
    await line.arrived.wait()
    waiting = [coalescer.submit(n, 1) for n in (2, 3)]
    given_up = coalescer.submit(4, 1)
    given_up.cancel()

    line.error = Rejection(RejectionCode.SERVICE_UNAVAILABLE, "down")
    line.open.set()
    failing = await asyncio.gather(out, *waiting, return_exceptions=True)

    assert [str(error) for error in failing] == ["down"] * 3
    assert len({id(error) for error in failing}) == 3
    assert line.batches == [[1]]
    line.error = None
    assert await coalescer.submit(5, 1) == 50


async def test_what_waits_behind_another_error_is_sent(line: Line):
    coalescer = line.coalescer()
    line.open.clear()
    out = coalescer.submit(1, 1)
    await line.arrived.wait()
    waiting = coalescer.submit(2, 1)

    line.error = ValueError("no")
    line.open.set()
    await asyncio.gather(out, waiting, return_exceptions=True)

    assert line.batches == [[1], [2]]


async def test_replies_that_do_not_fit_are_an_error_not_a_hang():
    async def send(batch: list[int]) -> list[int]:
        return batch[1:]

    coalescer = Coalescer[int, int](
        send, items_max=9, bytes_max=9, queue_items_max=9, in_flight_max=1
    )

    failing = await asyncio.gather(
        *(coalescer.submit(n, 1) for n in (1, 2)), return_exceptions=True
    )

    assert [str(error) for error in failing] == ["2 items were sent, 1 replies came"] * 2


async def test_a_caller_who_gives_up_does_not_hurt_the_others(line: Line):
    coalescer = line.coalescer()
    line.open.clear()
    futures = [coalescer.submit(n, 1) for n in (1, 2, 3)]
    await line.arrived.wait()

    futures[1].cancel()
    line.open.set()

    assert await futures[0] == 10
    assert await futures[2] == 30
    assert line.batches == [[1, 2, 3]], "what was sent is not recalled"


async def test_a_canceled_item_in_the_queue_is_sent_all_the_same(line: Line):
    coalescer = line.coalescer()
    line.open.clear()
    first = coalescer.submit(1, 1)
    await line.arrived.wait()
    given_up, kept = coalescer.submit(2, 1), coalescer.submit(3, 1)

    given_up.cancel()
    line.open.set()

    assert await asyncio.gather(first, kept) == [10, 30]
    assert line.batches == [[1], [2, 3]]


async def test_too_many_waiting_items_are_refused_at_once(line: Line):
    coalescer = line.coalescer(queue=2)
    line.open.clear()
    out = coalescer.submit(1, 1)
    await line.arrived.wait()
    waiting = [coalescer.submit(n, 1) for n in (2, 3)]

    with pytest.raises(Rejection) as raised:
        coalescer.submit(4, 1)

    assert raised.value.code is RejectionCode.SERVICE_UNAVAILABLE
    assert raised.value.retryable
    line.open.set()
    assert await asyncio.gather(out, *waiting) == [10, 20, 30]


async def test_draining_waits_for_all_that_was_submitted(line: Line):
    coalescer = line.coalescer(items_max=1)
    futures = [coalescer.submit(n, 1) for n in range(3)]

    await coalescer.drain()

    assert [future.result() for future in futures] == [0, 10, 20]


async def test_draining_an_idle_line_returns(line: Line):
    await line.coalescer().drain()

    assert line.batches == []


async def test_draining_outlives_errors(line: Line):
    coalescer = line.coalescer(items_max=1)
    line.error = ValueError("no")
    futures = [coalescer.submit(n, 1) for n in range(2)]

    await coalescer.drain()

    assert [str(future.exception()) for future in futures] == ["no", "no"]
