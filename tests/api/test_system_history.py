"""A page of the service's history costs about a page, however long the history is."""

import pytest

from api.system_history import MARK_EVERY, SystemHistoryPages
from ledger.codec import Meta
from ledger.memory_store import MemoryStore
from ledger.store import Position, Recorded
from ledger.system.commands import PauseQueue, ResumeQueue
from ledger.system.transact import transact_system
from tests.contracts.test_memory_store import no_wait, wall_clock_ms

EVENTS = 1_250


class Counting(MemoryStore):
    """Counts the events that it read."""

    read = 0

    async def history_back(
        self, task_id: str, start: Position | None, count: int
    ) -> list[Recorded]:
        found = await super().history_back(task_id, start, count)
        self.read += len(found)
        return found


@pytest.fixture
async def store() -> Counting:
    store = Counting(wall_clock_ms, no_wait)
    for n in range(EVENTS):
        await transact_system(store, (PauseQueue, ResumeQueue)[n % 2]("work"), Meta())
    return store


async def test_the_pages_are_the_history(store: Counting):
    pages, found, after = SystemHistoryPages(store), list[Recorded](), 0
    while True:
        some, is_more = await pages.page(after, 123)
        found += some
        if not is_more:
            break
        after = some[-1].version

    assert found == await store.history("system")
    assert await pages.page(EVENTS, 10) == ([], False)
    assert await pages.page(EVENTS + 7, 10) == ([], False)


async def test_after_the_first_look_a_page_costs_about_a_page(store: Counting):
    pages = SystemHistoryPages(store)
    await pages.page(0, 10)
    first, store.read = store.read, 0

    for after in range(0, EVENTS, 10):
        await pages.page(after, 10)

    assert first == EVENTS
    assert store.read <= (EVENTS // 10) * (10 + MARK_EVERY)


async def test_the_newest_events_cost_what_they_are(store: Counting):
    await SystemHistoryPages(store).page(EVENTS - 3, 10)

    assert store.read == 3


async def test_a_ledger_that_went_back_is_read_from_its_end(store: Counting):
    pages = SystemHistoryPages(store)
    await pages.page(0, 10)
    history = await store.history("system")
    for version in range(MARK_EVERY, EVENTS, MARK_EVERY):
        pages._marks[version] = Position(0, "7777-7")  # pyright: ignore[reportPrivateUsage]
    nowhere = await pages.page(0, 10)
    for version in range(MARK_EVERY, EVENTS, MARK_EVERY):
        pages._marks[version] = history[3].position  # pyright: ignore[reportPrivateUsage]

    elsewhere = await pages.page(200, 10)

    assert nowhere == (history[:10], True)
    assert elsewhere == (history[200:210], True)
