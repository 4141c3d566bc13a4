"""Folding in memory comes to what the read models hold, whatever happened."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given

from api.replay.chosen import in_order
from ledger.commands import CancelTask, RetryTask
from ledger.evolve import fold
from ledger.store import Position
from projections.ended_tasks import EndedTasks
from projections.list_query import Filters
from projections.lives import Counts, Lives, Unfoldable, queues_of
from projections.queue_sizes import queue_sizes
from projections.task_stats import task_stats
from tests.contracts.store import send, start, submit
from tests.projections.ledgers import Clock, Step, carry_out, histories, make_store
from tests.read_models import read_model
from tests.replay.ledgers import all_of, joined


@given(histories)
def test_statistics_queues_and_tasks_are_those_of_the_read_models(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[Step]
):
    asyncio.run(_compare(tmp_path_factory.mktemp("lives"), steps))


async def _compare(folder: Path, steps: Sequence[Step]) -> None:
    clock = Clock()
    store = make_store(2, clock)
    await carry_out(store, clock, steps)
    model = await read_model(store, folder)
    events = await joined(store, folder / "objects")
    counts, ended = Counts(), EndedTasks()
    counting = Lives(store.history, counts.ended, counts.returned)
    keeping = Lives(store.history, ended.ended, ended.returned, with_payloads=True)

    async for piece in in_order(events, await all_of(events)):
        await counting.take(piece)
        await keeping.take(piece)

    living = counting.living.values()
    assert counts.stats(living, None, None) == task_stats(model.db, Filters())
    sizes = [size for size in queue_sizes(model.db) if size.ready + size.delayed + size.processing]
    assert set(queues_of(living, None)) == set(sizes)
    found = {task.id: task for task in ended.tasks(keeping.living)}
    assert found == {task_id: await store.load(task_id) for task_id in found}
    assert len(found) == task_stats(model.db, Filters()).total
    ended.close()
    model.db.close()


async def test_only_what_lives_is_kept():
    store = make_store(1, Clock())
    for _ in range(10):
        await send(store, await submit(store), CancelTask())
    task = await submit(store)
    counts = Counts()
    lives = Lives(store.history, counts.ended, counts.returned)

    await lives.take(await store.events_after(Position(0, "0-0"), 100, 0))

    assert list(lives.living) == [task.id]


async def test_what_comes_back_to_life_is_taken_up_by_its_history():
    store = make_store(1, Clock())
    task = await send(store, await submit(store), CancelTask())
    before = await store.events_after(Position(0, "0-0"), 100, 0)
    await send(store, task, RetryTask())
    after = await store.events_after(before[-1].position, 100, 0)
    counts = Counts()
    lives = Lives(store.history, counts.ended, counts.returned)

    await lives.take(before)
    await lives.take(after)

    history = await store.history(task.id)
    expected = fold(task.id, ((event.event(), event.at) for event in history))
    assert expected is not None
    assert lives.living[task.id].state == expected.state
    assert counts.stats(lives.living.values(), None, None).total == 1


async def test_an_event_that_cannot_follow_is_named():
    store = make_store(1, Clock())
    await send(store, await start(store, await submit(store)), CancelTask())
    first, _, third = await store.events_after(Position(0, "0-0"), 100, 0)
    lives = Lives(store.history, Counts().ended, Counts().returned)

    with pytest.raises(Unfoldable, match=str(third.position)):
        await lives.take([first, third])
