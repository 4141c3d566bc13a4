"""A pause or a limit that is wanted only while the service is as its caller saw it."""

from typing import Final

import httpx2
import pytest

from ledger.codec import Meta
from ledger.redis_store import RedisStore
from ledger.system.commands import PauseQueue, SetLimit
from ledger.system.events import LimitScope
from ledger.system.transact import transact_system

TYPE: Final = "document_processing"
LIMITS: Final = "/api/v1/limits"
CHANGES: Final = {
    "pause": ("POST", f"/api/v1/queues/{TYPE}/pause"),
    "resume": ("POST", "/api/v1/queues/vector_storage/resume"),
    "set type": ("PUT", f"{LIMITS}/types/{TYPE}"),
    "set kb": ("PUT", f"{LIMITS}/kbs/kb-1"),
    "remove type": ("DELETE", f"{LIMITS}/types/vector_storage"),
    "remove kb": ("DELETE", f"{LIMITS}/kbs/docs"),
}
VERSION: Final = 3


@pytest.fixture(autouse=True)
async def something_to_change(store: RedisStore) -> None:
    for command in (
        PauseQueue("vector_storage"),
        SetLimit(LimitScope.TYPE, "vector_storage", 2),
        SetLimit(LimitScope.KB, "docs", 2),
    ):
        await transact_system(store, command, Meta("ann"))


async def change(api: httpx2.AsyncClient, name: str, if_match: str) -> httpx2.Response:
    method, path = CHANGES[name]
    headers = {"if-match": if_match}
    if method == "PUT":
        return await api.put(path, json={"limit": 1}, headers=headers)
    return await api.request(method, path, headers=headers)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("if_match", [f'"{VERSION}"', "*", f'"1", "{VERSION}"'])
async def test_the_version_that_is_there_is_changed(
    api: httpx2.AsyncClient, name: str, if_match: str
):
    answer = await change(api, name, if_match)

    assert (answer.status_code, answer.headers["etag"]) == (200, f'"{VERSION + 1}"')
    assert (await api.get(LIMITS)).headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("if_match", ['"2"', f'W/"{VERSION}"', '"x"'])
async def test_another_version_is_left_alone(
    api: httpx2.AsyncClient, store: RedisStore, name: str, if_match: str
):
    answer = await change(api, name, if_match)

    assert (answer.status_code, answer.json()["code"]) == (409, "VERSION_CONFLICT")
    assert f"version {VERSION}" in answer.json()["message"]
    assert await store.system_version() == VERSION


@pytest.mark.parametrize("name", CHANGES)
async def test_what_is_no_list_of_versions_is_refused(
    api: httpx2.AsyncClient, store: RedisStore, name: str
):
    answer = await change(api, name, str(VERSION))

    assert (answer.status_code, answer.json()["details"]["field"]) == (400, "If-Match")
    assert await store.system_version() == VERSION
