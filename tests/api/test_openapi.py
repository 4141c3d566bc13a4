"""The API describes itself: every endpoint, from the structs that it works with."""

import re
from typing import Any, cast

import httpx2
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from api.app import App
from api.exchange import Exchange
from api.openapi import document, endpoints
from api.resource import Resource
from ledger.settings import Settings
from tests.api.requests import TASKS, body

LEFT_OUT = frozenset({"/static/docs.css", "/static/task-monitor.js"})
"""Paths that are routed and not described, on purpose."""


@pytest.fixture
async def described(api: httpx2.AsyncClient) -> dict[str, Any]:
    """The document as it is served."""
    answer = await api.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


async def test_every_route_is_described_and_every_description_has_a_route(
    app: App, described: dict[str, Any]
):
    routed = {
        (route.path_format, method.lower())
        for route in app.table
        if route.path not in LEFT_OUT
        for method in cast("Resource", route.app).endpoints
    }
    told = {
        (path, method)
        for path, item in described["paths"].items()
        for method in item
        if method != "parameters"
    }

    assert told == routed


def test_a_route_without_a_description_is_an_error():
    async def endpoint(exchange: Exchange) -> None: ...

    table = [Route("/new", Resource({"GET": endpoint}))]

    with pytest.raises(LookupError, match="GET /new"):
        list(endpoints(table))


async def test_the_names_of_the_operations_differ(described: dict[str, Any]):
    names = [of["operationId"] for of in operations(described)]

    assert len(names) == len(set(names))


async def test_every_operation_says_what_it_is_for(described: dict[str, Any]):
    for of in operations(described):
        assert of["summary"], of["operationId"]
        assert len(of["summary"]) <= 80
        assert of["tags"][0] in {tag["name"] for tag in described["tags"]}


async def test_what_the_settings_allow_is_told(app: App):
    settings = Settings(
        task_types=("summarize",), wait_seconds_max=7, batch_items_max=9, callback_hosts=("a.test",)
    )

    told = document(app.table, settings)

    submission = told["components"]["schemas"]["Submission"]["properties"]
    assert submission["task_type"]["enum"][-1] == "summarize"
    assert "health_check" in submission["task_type"]["enum"]
    pattern = submission["callback_url"]["anyOf"][0]["pattern"]
    assert re.search(pattern, "https://a.test:80/x")
    assert not re.search(pattern, "https://a-test/x")
    batch = told["paths"]["/api/v1/tasks/batch"]["post"]["requestBody"]
    assert batch["content"]["application/json"]["schema"]["maxItems"] == 9
    parameters = told["paths"]["/api/v1/tasks/{task_id}"]["get"]["parameters"]
    assert next(p for p in parameters if p.get("name") == "wait")["schema"]["maximum"] == 7


async def test_a_document_that_is_known_is_not_sent_again(api: httpx2.AsyncClient):
    first = await api.get("/openapi.json")

    again = await api.get("/openapi.json", headers={"If-None-Match": first.headers["etag"]})
    other = await api.get("/openapi.json", headers={"If-None-Match": '"x", W/"y"'})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert (other.status_code, other.content) == (200, first.content)


async def test_an_answer_that_is_not_described_fails_its_test(
    api: httpx2.AsyncClient, app: App, monkeypatch: pytest.MonkeyPatch
):
    async def other(exchange: Exchange) -> None:
        await exchange.respond(201, b'{"id": 7}', [(b"etag", b"x")])

    monkeypatch.setattr(cast("Resource", app.table[0].app), "_handlers", {"POST": other})

    with pytest.raises(AssertionError, match=r"missing: {'(location|ledger-position)'"):
        await api.post(TASKS, json=body())


async def test_the_document_is_valid(described: dict[str, Any]):
    validate(described)


def operations(described: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        of
        for item in described["paths"].values()
        for method, of in item.items()
        if method != "parameters"
    ]
