"""Every error has one shape and a request id."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from redis.exceptions import ResponseError

from api.app import App, create_app
from api.errors import ANSWERS, ErrorCode
from ledger.redis_store import RedisStore
from ledger.rejections import RejectionCode
from ledger.settings import Settings
from ledger.task import Task
from tests.api.requests import BATCH, TASKS, UNKNOWN_ID, body, state_of


def assert_shape(answer: httpx2.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = answer.json()
    assert list(error) == ["error", "message", "code", "details"]
    assert error["code"] == code
    assert error["error"]
    assert error["message"]
    assert isinstance(error["details"], dict)


def test_every_code_has_one_answer():
    assert set(ANSWERS) == {*ErrorCode, *RejectionCode}


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1/task", f"{TASKS}/", f"{TASKS}/a/b", "//", "/%00"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_where_nothing_is_nothing_is_found(api: httpx2.AsyncClient, method: str, path: str):
    assert_shape(await api.request(method, path), 404, "NOT_FOUND")


ALLOWED = {
    TASKS: "GET, HEAD, OPTIONS, POST",
    f"{TASKS}/batch": "OPTIONS, POST",
    f"{TASKS}/{UNKNOWN_ID}": "DELETE, GET, HEAD, OPTIONS",
    f"{TASKS}/{UNKNOWN_ID}/events": "GET, HEAD, OPTIONS",
    f"{TASKS}/{UNKNOWN_ID}/progress": "OPTIONS, PUT",
    f"{TASKS}/{UNKNOWN_ID}/retry": "OPTIONS, POST",
    "/health": "GET, HEAD, OPTIONS",
    "/livez": "GET, HEAD, OPTIONS",
    "/readyz": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
    "/docs": "GET, HEAD, OPTIONS",
    "/static/docs.css": "GET, HEAD, OPTIONS",
    "/static/task-monitor.js": "GET, HEAD, OPTIONS",
    "/ws/tasks": "GET, HEAD, OPTIONS",
}


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
async def test_another_method_is_told_the_possible_ones(
    api: httpx2.AsyncClient, path: str, allowed: str
):
    answer = await api.patch(path)

    assert_shape(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
async def test_options_tell_the_possible_methods(api: httpx2.AsyncClient, path: str, allowed: str):
    answer = await api.options(path)

    assert answer.status_code == 204
    assert answer.headers["allow"] == allowed
    assert answer.headers["x-request-id"]


class Broken(RedisStore):
    """A store with a fault of ours in it."""

    async def load(self, task_id: str) -> Task | None:
        raise RuntimeError("the secret of the house")


@pytest.fixture
async def broken(ledger_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    store = await Broken.open(ledger_url)
    transport = httpx2.ASGITransport(app=create_app(store, Settings()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client
    await store.close()


async def test_a_fault_of_ours_tells_nothing_but_the_request_id(
    broken: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str]
):
    answer = await broken.get(f"{TASKS}/{UNKNOWN_ID}", headers={"X-Request-ID": "r-7"})

    assert_shape(answer, 500, "INTERNAL_ERROR")
    assert answer.json()["details"] == {"request_id": "r-7"}
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    logged = capsys.readouterr().out
    assert "the secret of the house" in logged
    assert "r-7" in logged


async def test_a_server_that_refuses_the_call_is_an_outage(ledger_url: str):
    class Refused(RedisStore):
        async def load(self, task_id: str) -> Task | None:
            raise ResponseError("NOPERM this user has no permissions")

    store = await Refused.open(ledger_url)
    transport = httpx2.ASGITransport(app=create_app(store, Settings()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        answer = await client.get(f"{TASKS}/{UNKNOWN_ID}")
    await store.close()

    assert_shape(answer, 503, "SERVICE_UNAVAILABLE")
    assert "NOPERM" not in answer.text


async def test_more_requests_than_the_bound_are_refused(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.gate.REQUESTS_MAX", 0)
    refused = await api.get("/livez")
    monkeypatch.setattr("api.gate.REQUESTS_MAX", 1)

    assert_shape(refused, 503, "SERVICE_UNAVAILABLE")
    assert refused.headers["retry-after"]
    assert (await api.get("/livez")).status_code == 200


async def test_more_batches_than_the_bound_are_refused(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.submissions.BATCHES_MAX", 0)

    assert_shape(await api.post(BATCH, json=[body()]), 503, "SERVICE_UNAVAILABLE")


async def test_a_body_that_stalls_is_given_up(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.exchange.BODY_TIMEOUT_S", 0.01)

    async def stalls() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    answer = await api.post(TASKS, content=stalls(), headers={"content-type": "application/json"})

    assert_shape(answer, 408, "REQUEST_TIMEOUT")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("pieces", [[], [b"{"]])
async def test_a_caller_who_hangs_up_in_the_middle_is_not_answered(
    app: App, store: RedisStore, pieces: list[bytes]
):
    messages: list[dict[str, object]] = [
        *({"type": "http.request", "body": piece, "more_body": True} for piece in pieces),
        {"type": "http.disconnect"},
    ]
    sent: list[object] = []

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    async def send(message: object) -> None:
        sent.append(message)

    scope: dict[str, object] = {"type": "http", "method": "POST", "path": TASKS, "headers": []}
    before = await state_of(store)
    await app(scope | {"query_string": b""}, receive, send)

    assert sent == []
    assert await state_of(store) == before


@pytest.mark.parametrize("path", [TASKS, BATCH])
async def test_a_submission_takes_no_parameters(api: httpx2.AsyncClient, path: str):
    answer = await api.post(f"{path}?dry_run=1", json=body())

    assert_shape(answer, 400, "INVALID_REQUEST")
    assert answer.json()["details"]["field"] == "dry_run"


async def test_a_request_id_is_given_back(api: httpx2.AsyncClient):
    given = "a" * 128

    answers = [
        await api.get(path, headers={"X-Request-ID": given})
        for path in ("/livez", "/nothing", f"{TASKS}/{UNKNOWN_ID}")
    ]

    assert {a.headers["x-request-id"] for a in answers} == {given}


@pytest.mark.parametrize("given", [b"", b"a" * 129, b"a\tb", b"\xc3\xa9", b"\x7f"])
async def test_a_request_id_that_is_none_is_replaced(api: httpx2.AsyncClient, given: bytes):
    answer = await api.get("/livez", headers=[(b"x-request-id", given)])

    assert answer.headers["x-request-id"].encode() != given
    assert 1 <= len(answer.headers["x-request-id"]) <= 128


async def test_request_ids_differ(api: httpx2.AsyncClient):
    answers = [await api.get("/livez") for _ in range(3)]

    assert len({a.headers["x-request-id"] for a in answers}) == 3
