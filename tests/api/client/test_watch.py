"""Following tasks, and the feed."""

import asyncio

import pytest

from api.client import AsyncClient, TaskNotFound, Update
from ledger.redis_store import RedisStore
from tests.api.client.conftest import client_of
from tests.api.conftest import Service
from tests.api.requests import UNKNOWN_ID, complete, fail, start


async def all_of(client: AsyncClient, *task_ids: str) -> list[Update]:
    return [update async for update in client.watch(*task_ids)]


async def test_a_finished_task_tells_its_history_and_ends(
    client: AsyncClient, store: RedisStore
) -> None:
    task = await client.submit("health_check", "kb-1")
    await complete(store, task.id)

    told = await all_of(client, task.id)

    assert [(u.type, u.status) for u in told] == [
        ("TaskSubmitted", "queued"),
        ("TaskStarted", "processing"),
        ("TaskCompleted", "completed"),
    ]
    assert {(u.kb_id, u.task_type) for u in told} == {("kb-1", "health_check")}
    assert told[-1].finished
    assert told[-1].progress == 100


async def test_a_task_tells_what_happens_until_it_is_finished(
    client: AsyncClient, store: RedisStore
) -> None:
    task = await client.submit("health_check", "kb-1")
    told: list[tuple[str, int | None, str | None]] = []

    async for update in client.watch(task.id):
        told.append((update.type, update.progress, update.message))
        match update.type:
            case "TaskSubmitted":
                await start(store, task.id)
            case "TaskStarted":
                await client.progress(task.id, 40, "parsing")
            case "TaskProgressed":
                await client.cancel(task.id)
            case _:
                pass

    assert told == [
        ("TaskSubmitted", None, None),
        ("TaskStarted", None, None),
        ("TaskProgressed", 40, "parsing"),
        ("TaskCanceled", None, None),
    ]


async def test_several_tasks_end_when_all_are_finished(
    client: AsyncClient, store: RedisStore
) -> None:
    one = await client.submit("health_check", "kb-1")
    other = await client.submit("health_check", "kb-2")
    await fail(store, one.id, "broken")
    last: dict[str, Update] = {}

    async for update in client.watch(one.id, other.id):
        last[update.task_id] = update
        if update.task_id == other.id and update.status == "queued":
            await complete(store, other.id)

    assert last[one.id].error_message == "broken"
    assert last[other.id].status == "completed"


async def test_a_task_that_is_not_there_cannot_be_watched(client: AsyncClient) -> None:
    with pytest.raises(TaskNotFound):
        await all_of(client, UNKNOWN_ID)


@pytest.mark.parametrize("count", [0, 51])
async def test_as_many_tasks_as_the_feed_filters(client: AsyncClient, count: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 50 task ids"):
        await all_of(client, *[f"{n}" for n in range(count)])


async def test_the_feed_tells_what_matches(client: AsyncClient) -> None:
    await client.submit("health_check", "kb-1")
    wanted = await client.submit("health_check", "kb,2")

    async for update in client.follow(after="beginning", kb_id=["kb,2", "kb-3"]):
        assert update.task_id == wanted.id
        break


async def test_a_broken_off_watch_leaves_nothing_open(client: AsyncClient) -> None:
    task = await client.submit("health_check", "kb-1")

    watching = client.watch(task.id)
    await anext(watching)
    await watching.aclose()

    assert (await client.get(task.id)).status == "queued"


async def test_feeds_leave_the_connections_to_calls(
    form: str, service: Service, store: RedisStore
) -> None:
    client = client_of(form, f"http://127.0.0.1:{service.port}", connections_max=1)
    tasks = [await client.submit("health_check", "kb-1") for _ in range(3)]
    watching = [asyncio.create_task(all_of(client, task.id)) for task in tasks]
    for task in tasks:
        await complete(store, task.id)

    async with asyncio.timeout(20):
        told = await asyncio.gather(*watching)
    await client.close()

    assert [updates[-1].status for updates in told] == ["completed"] * 3
