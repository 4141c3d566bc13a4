"""What is kept for estimates in a process: read aside, rarely, and only while somebody asks."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from api.estimates import Estimates
from ledger.codec import Meta
from ledger.commands import CompleteTask
from ledger.memory_store import MemoryStore
from ledger.system.commands import SetLimit
from ledger.system.events import LimitScope
from ledger.system.transact import transact_system
from projections.figures import BOUNDS_MS, NONE_WAITING, Figures
from projections.readers import Unavailable
from projections.starts import Start
from tests.contracts.store import RESULT, a_report, send, start, submit
from tests.given import T0

PATIENCE_S = 10
SLOW = Figures(
    (0,) * (len(BOUNDS_MS) - 1) + (1,), (0,) * (len(BOUNDS_MS) - 1) + (4_000_000,), NONE_WAITING
)


class Source:
    """A read model in which attempts took so long, as often as it is asked."""

    def __init__(self) -> None:
        self.found: Mapping[str, Figures] = {"document_processing": SLOW}
        self.fails = False
        self.asked = 0
        self.starts: Mapping[str, Start] = {}
        self._news = asyncio.Event()

    async def __call__(self) -> Mapping[str, Figures]:
        self.asked += 1
        self._news.set()
        if self.fails:
            raise Unavailable("there is no read model yet")
        return self.found

    async def started(self, ids: Sequence[str]) -> Mapping[str, Start]:
        return {task_id: self.starts[task_id] for task_id in ids}

    async def asked_again(self) -> None:
        self._news.clear()
        async with asyncio.timeout(PATIENCE_S):
            await self._news.wait()


@pytest.fixture
def store() -> MemoryStore:
    async def no_wait(_: int) -> None:
        await asyncio.sleep(0)

    return MemoryStore(lambda: T0, no_wait)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def estimates(store: MemoryStore, source: Source) -> AsyncIterator[Estimates]:
    estimates = Estimates(store, source, source.started)
    yield estimates
    await estimates.close()


async def test_the_first_question_has_its_answer(store: MemoryStore, estimates: Estimates):
    await store.announce(a_report())

    told = await estimates.of(await submit(store), 1)

    assert told == T0 + 4_000_000


async def test_what_is_not_known_is_not_told(
    store: MemoryStore, source: Source, estimates: Estimates
):
    nobody = await estimates.of(await submit(store), 1)
    await store.announce(a_report("w1", task_types=("document_processing", "health_check")))
    unmeasured = await estimates.of(await submit(store, task_type="health_check"), 1)

    assert (nobody, unmeasured) == (None, None)
    assert source.asked == 1


async def test_a_broken_read_model_costs_the_estimate_and_nothing_else(
    store: MemoryStore, source: Source, estimates: Estimates, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.estimates.REFRESH_S", 0)
    await store.announce(a_report())
    source.fails = True

    assert await estimates.of(await submit(store), 1) is None
    source.fails = False
    await source.asked_again()
    await source.asked_again()
    assert await estimates.of(await submit(store), 1) is not None


async def test_many_questions_share_what_is_read(
    store: MemoryStore, source: Source, estimates: Estimates
):
    await store.announce(a_report())
    tasks = [await submit(store) for _ in range(20)]

    told = await asyncio.gather(*(estimates.of(task, 1) for task in tasks))

    assert None not in told
    assert source.asked == 1


async def test_nothing_is_read_when_nobody_asks_any_more(
    store: MemoryStore, source: Source, estimates: Estimates, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.estimates.IDLE_S", -1)
    monkeypatch.setattr("api.estimates.REFRESH_S", 0)
    monkeypatch.setattr("api.estimates.STALE_S", 0)
    await store.announce(a_report())
    await estimates.of(await submit(store), 1)

    reading = [task for task in asyncio.all_tasks() if task.get_name() == "estimates"]
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*reading)
    asked = source.asked
    assert await estimates.of(await submit(store), 1) is not None
    assert source.asked == asked + 1


async def test_nobody_knows_when_tasks_end_that_take_longer_than_any_before(
    store: MemoryStore, source: Source, estimates: Estimates
):
    quick = Figures(
        (5_000,) + (0,) * (len(BOUNDS_MS) - 1), (10_000, *SLOW.counts[1:]), NONE_WAITING
    )
    source.found = {"document_processing": quick}
    running = [(await submit(store)).id for _ in range(4)]
    source.starts = {task_id: Start("document_processing", T0 - 60_000) for task_id in running}
    await store.announce(a_report(running=4, task_ids=tuple(running)))
    waiting = [await submit(store) for _ in range(4)]

    assert [await estimates.of(task, n) for n, task in enumerate(waiting, 1)] == [None] * 4


async def test_nothing_is_known_of_what_waits_while_its_kb_id_is_at_its_limit(
    store: MemoryStore, estimates: Estimates
):
    done = await transact_system(store, SetLimit(LimitScope.KB, "docs", 1), Meta("ann"))
    await store.spread_limits(done.system)
    running = await start(store, await submit(store, kb_id="docs"))
    held, free = await submit(store, kb_id="docs"), await submit(store, kb_id="other")
    await store.announce(a_report())

    assert await estimates.of(held, 1) is None
    assert await estimates.of(free, 1) is not None
    assert await estimates.of(running, 0) is not None


async def test_a_finished_task_needs_no_estimate(
    store: MemoryStore, source: Source, estimates: Estimates
):
    task = await start(store, await submit(store))
    done = await send(store, task, CompleteTask(1, RESULT))

    assert await estimates.of(done, 0) is None
    assert source.asked == 0
