"""The service tells how it is."""

import httpx2
import pytest

from api.app import App, create_app
from ledger import __version__
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.api.requests import BATCH, TASKS, body, submitted
from tests.servers import run_server, valkey_binary


async def test_a_healthy_service_says_so(api: httpx2.AsyncClient):
    await submitted(api)

    answer = await api.get("/health")

    health = answer.json()
    assert answer.status_code == 200
    assert (health["status"], health["service"]) == ("healthy", "task-manager")
    assert health["version"] == __version__
    details = health["details"]
    assert details["redis"]["status"] == details["queue"]["status"] == "healthy"
    assert details["redis"]["size"] > 0
    assert details["database"]["status"] == "not_used"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_answer(api: httpx2.AsyncClient, path: str):
    assert (await api.get(path)).json() == {"status": "healthy"}


async def test_a_stopping_service_is_not_ready(app: App, api: httpx2.AsyncClient):
    await app.stop_waiting()

    assert (await api.get("/readyz")).status_code == 503
    assert (await api.get("/livez")).status_code == 200


async def test_a_server_with_spent_memory_takes_no_new_tasks():
    with run_server(valkey_binary(), "--maxmemory", "100mb") as url:
        store = await RedisStore.open(url)
        transport = httpx2.ASGITransport(app=create_app(store, Settings(memory_high_percent=1)))
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
            refused = [
                await api.post(TASKS, json=body()),
                await api.post(BATCH, json=[body()]),
            ]
            health, ready, live = [await api.get(p) for p in ("/health", "/readyz", "/livez")]
        await store.close()

    for answer in refused:
        assert answer.status_code == 503
        assert answer.json()["code"] == "QUEUE_FULL"
        assert answer.headers["retry-after"]
    assert (health.status_code, ready.status_code, live.status_code) == (503, 503, 200)
    assert health.json()["details"]["redis"]["status"] == "healthy"
    assert health.json()["details"]["queue"]["status"] == "unhealthy"


async def test_a_server_without_a_memory_limit_takes_tasks(store: RedisStore):
    transport = httpx2.ASGITransport(app=create_app(store, Settings(memory_high_percent=1)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        assert (await submitted(api))["status"] == "queued"


async def test_a_full_queue_refuses_and_others_do_not(store: RedisStore):
    transport = httpx2.ASGITransport(app=create_app(store, Settings(queue_tasks_max=2)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        answers = [await api.post(TASKS, json=body()) for _ in range(3)]
        other = await api.post(TASKS, json=body(priority="high"))

    assert [a.status_code for a in answers] == [201, 201, 503]
    assert answers[2].json()["code"] == "QUEUE_FULL"
    assert answers[2].headers["retry-after"]
    assert other.status_code == 201
