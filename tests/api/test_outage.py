"""The server goes away, and comes back."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import httpx2
import pytest
from redis.asyncio import Redis

from api.app import create_app
from ledger import redis_calls
from ledger.redis_connection import Caller, Script
from ledger.redis_store import RedisStore, StoreOptions
from ledger.rejections import Rejection
from ledger.script_format import Argument
from ledger.settings import Settings
from tests.api.requests import TASKS, body, submitted
from tests.servers import PERSISTENT, make_server, valkey_binary

TIMEOUT_MS = 400
ANSWER_WITHIN_S = 20


async def answers(api: httpx2.AsyncClient, task_id: str) -> dict[str, httpx2.Response]:
    """Every endpoint's answer, asked at once."""
    one = f"{TASKS}/{task_id}"
    asked = {
        "submit": api.post(TASKS, json=body()),
        "submit under a key": api.post(TASKS, json=body(), headers={"Idempotency-Key": "k"}),
        "batch": api.post(f"{TASKS}/batch", json=[body()] * 300),
        "task": api.get(one),
        "wait": api.get(one, params={"wait": "60"}),
        "version": api.get(one, params={"version": "1"}),
        "events": api.get(f"{one}/events"),
        "live": api.get("/api/v1/events"),
        "cancel": api.delete(one),
        "retry": api.post(f"{one}/retry"),
        "dead letters": api.get("/api/v1/dead-letters"),
        "bulk retry": api.post("/api/v1/dead-letters/retry", json={}),
        "progress": api.put(f"{one}/progress", json={"progress": 1}),
        "health": api.get("/health"),
        "readyz": api.get("/readyz"),
    }
    async with asyncio.timeout(ANSWER_WITHIN_S):
        told = await asyncio.gather(*asked.values())
    return dict(zip(asked, told, strict=True))


@pytest.mark.timeout(90)
async def test_without_a_server_every_endpoint_says_so_and_recovers_by_itself():
    with make_server(valkey_binary(), *PERSISTENT) as server:
        store = await RedisStore.open(server.url, StoreOptions(timeout_ms=TIMEOUT_MS))
        app = create_app(store, Settings(redis_timeout_ms=TIMEOUT_MS))
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
            task = await submitted(api)
            server.kill()
            told = await answers(api, task["id"])
            live = await api.get("/livez")
            server.start()
            back = await api.get(f"{TASKS}/{task['id']}")
            health = await api.get("/health")
            created = await submitted(api)
        await app.stop_waiting()
        await store.close()

    assert {name: a.status_code for name, a in told.items()} == dict.fromkeys(told, 503)
    assert all(a.headers["retry-after"] and a.headers["x-request-id"] for a in told.values())
    assert live.status_code == 200
    assert back.json() == task
    assert (health.status_code, created["queue_position"]) == (200, 2)


class CountingCaller(Caller):
    """Counts the calls that were given up, and tells when one is out."""

    def __init__(self, client: Redis, timeout_ms: int) -> None:
        super().__init__(client, timeout_ms)
        self.given_up = 0
        self.out = asyncio.Event()

    async def script(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> tuple[Any, bool]:
        self.out.set()
        try:
            return await super().script(script, keys, arguments)
        except Rejection:
            self.given_up += 1
            raise


@pytest.mark.timeout(90)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_whoever_comes_during_an_outage_waits_for_one_time_out(
    method: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(redis_calls, "Caller", CountingCaller)
    options = StoreOptions(timeout_ms=TIMEOUT_MS, in_flight_max=1)
    with make_server(valkey_binary()) as server:
        store = await RedisStore.open(server.url, options)
        caller = cast("CountingCaller", store._caller)  # pyright: ignore[reportPrivateUsage]
        app = create_app(store, Settings())
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
            task = await submitted(api)
            path, sent = (TASKS, body()) if method == "POST" else (f"{TASKS}/{task['id']}", None)
            server.kill()
            caller.out.clear()
            async with asyncio.timeout(ANSWER_WITHIN_S):
                first = asyncio.create_task(api.request(method, path, json=sent))
                await caller.out.wait()
                later = [asyncio.create_task(api.request(method, path, json=sent)) for _ in "123"]
                told = await asyncio.gather(first, *later)
        await app.close()
        await store.close()

    assert [answer.status_code for answer in told] == [503] * 4
    assert caller.given_up == 1


@pytest.mark.timeout(90)
async def test_whoever_waits_is_told_of_an_outage():
    with make_server(valkey_binary()) as server:
        store = await RedisStore.open(server.url, StoreOptions(timeout_ms=TIMEOUT_MS))
        app = create_app(store, Settings())
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
            task = await submitted(api)
            request = asyncio.create_task(api.get(f"{TASKS}/{task['id']}", params={"wait": "60"}))
            async with asyncio.timeout(ANSWER_WITHIN_S):
                while not app.live.waiting:  # noqa: ASYNC110 - nothing signals it
                    await asyncio.sleep(0)
                server.kill()
                answer = await request
        await app.stop_waiting()
        await store.close()

    assert answer.status_code == 503
