"""A task that its caller has is not sent again."""

import httpx2
import pytest

from ledger.redis_store import RedisStore
from tests.api.requests import TASKS, complete, start, submitted


@pytest.mark.parametrize("header", ['"2"', 'W/"2"', "*", '"1", "2"', '"x,y" ,W/"2"'])
async def test_a_version_that_is_known_is_not_sent_again(
    api: httpx2.AsyncClient, store: RedisStore, header: str
):
    task_id = (await submitted(api))["id"]
    await start(store, task_id)

    answer = await api.get(f"{TASKS}/{task_id}", headers={"If-None-Match": header})

    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == '"2"'


@pytest.mark.parametrize("header", ['"1"', 'W/"3"', '"x"', "2", ""])
async def test_another_version_is_sent(api: httpx2.AsyncClient, store: RedisStore, header: str):
    task_id = (await submitted(api))["id"]
    await start(store, task_id)

    answer = await api.get(f"{TASKS}/{task_id}", headers={"If-None-Match": header})

    assert (answer.status_code, answer.json()["version"]) == (200, 2)


async def test_a_task_that_waits_is_sent_again_since_its_position_changes(api: httpx2.AsyncClient):
    ahead, task = await submitted(api), await submitted(api)
    known = {"If-None-Match": '"1"'}

    before = await api.get(f"{TASKS}/{task['id']}", headers=known)
    await api.delete(f"{TASKS}/{ahead['id']}")
    canceled = await api.get(f"{TASKS}/{ahead['id']}", headers={"If-None-Match": '"2"'})

    assert (before.status_code, before.json()["queue_position"]) == (200, 2)
    assert canceled.status_code == 304


async def test_a_known_task_may_be_asked_for_in_its_past(
    api: httpx2.AsyncClient, store: RedisStore
):
    task_id = (await submitted(api))["id"]
    await complete(store, task_id)
    path, known = f"{TASKS}/{task_id}", {"If-None-Match": '"3"'}

    past = await api.get(path, params={"version": 1}, headers=known)
    present = await api.get(path, params={"wait": 1}, headers=known)

    assert (past.status_code, past.json()["version"]) == (200, 1)
    assert present.status_code == 304
