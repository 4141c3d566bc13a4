"""A change that is wanted only while the task is as its caller saw it."""

from typing import Final

import httpx2
import pytest

from ledger.redis_store import RedisStore
from ledger.store import Append, Outcome
from tests.api.requests import TASKS, UNKNOWN_ID, Step, fail, start, state_of, submitted

CHANGES: Final[dict[str, tuple[str, str, Step]]] = {
    "cancel": ("DELETE", "", start),
    "retry": ("POST", "/retry", fail),
    "progress": ("PUT", "/progress", start),
}

MALFORMED: Final = ["", "2", "'2'", '"2', '"2" "3"', '"2",', '*, "2"', '"2", *', 'w/"2"', "**"]


async def change(
    api: httpx2.AsyncClient, name: str, task_id: str, *if_match: str
) -> httpx2.Response:
    method, path, _ = CHANGES[name]
    content = b'{"progress":40}' if method == "PUT" else b""
    headers = [("if-match", value) for value in if_match]
    return await api.request(method, f"{TASKS}/{task_id}{path}", content=content, headers=headers)


async def changeable(api: httpx2.AsyncClient, store: RedisStore, name: str) -> tuple[str, int]:
    """A task that the change is possible for, and its version."""
    task_id = (await submitted(api))["id"]
    done = await CHANGES[name][2](store, task_id)
    return task_id, done.task.version


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("header", ['"{}"', "*", '"1", "{}"', '"x,y" ,W/"1",\t"{}"'])
async def test_the_version_that_is_there_is_changed(
    api: httpx2.AsyncClient, store: RedisStore, name: str, header: str
):
    task_id, version = await changeable(api, store, name)

    answer = await change(api, name, task_id, header.format(version))

    assert answer.status_code == 200
    assert answer.headers["etag"] == f'"{version + 1}"'


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("header", ['"1"', 'W/"{}"', '"0{}"', '"{}0", "x"', '""'])
async def test_another_version_is_left_alone(
    api: httpx2.AsyncClient, store: RedisStore, name: str, header: str
):
    task_id, version = await changeable(api, store, name)
    before = await state_of(store)

    answer = await change(api, name, task_id, header.format(version))

    assert answer.status_code == 409
    assert answer.json()["code"] == "VERSION_CONFLICT"
    assert answer.json()["details"] == {"task_id": task_id}
    assert f"version {version}," in answer.json()["message"]
    assert await state_of(store) == before


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("header", MALFORMED)
async def test_a_malformed_header_is_named(
    api: httpx2.AsyncClient, store: RedisStore, name: str, header: str
):
    task_id, _ = await changeable(api, store, name)
    before = await state_of(store)

    answer = await change(api, name, task_id, header)

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == "If-Match"
    assert await state_of(store) == before


async def test_several_lines_are_one_list(api: httpx2.AsyncClient, store: RedisStore):
    task_id, version = await changeable(api, store, "cancel")

    answer = await change(api, "cancel", task_id, f'"{version}"', '"9"')

    assert answer.status_code == 200


@pytest.mark.parametrize("header", ["*", '"1"'])
async def test_a_task_that_is_not_there_is_not_found(api: httpx2.AsyncClient, header: str):
    answer = await change(api, "cancel", UNKNOWN_ID, header)

    assert answer.status_code == 404


async def test_what_is_changed_between_look_and_write_is_left_alone(
    api: httpx2.AsyncClient, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    task_id = (await submitted(api))["id"]
    append = store.append

    async def overtaken(step: Append) -> Outcome:
        monkeypatch.undo()
        await start(store, task_id)
        return await append(step)

    monkeypatch.setattr(store, "append", overtaken)

    answer = await change(api, "cancel", task_id, '"1"')

    assert answer.status_code == 409
    assert answer.json()["code"] == "VERSION_CONFLICT"
    assert (await api.get(f"{TASKS}/{task_id}")).json()["status"] == "processing"
