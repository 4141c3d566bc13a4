"""More work than the server has memory for: refused early, and what was taken is done."""

import httpx2
import pytest

from api.app import create_app
from api.overload import MemoryGuard
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Settings
from ledger.task import Status
from tests.api.requests import BATCH, body
from tests.checks import check_ledger
from tests.consumers.working import handles, until, working
from tests.servers import run_server, valkey_binary

MAXMEMORY = "8mb"
BATCH_TASKS = 200
TASKS_MAX = 12_000
"""More than there is memory for, even if nothing were kept free."""


async def well(context: object, payload: object) -> dict[str, int]:
    return {"chunks": 12}


@pytest.mark.timeout(120)
async def test_what_was_taken_before_memory_ran_out_is_done():
    with run_server(valkey_binary(), "--maxmemory", MAXMEMORY) as url:
        store = await RedisStore.open(url)
        app = create_app(store, Settings())
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
            taken: list[str] = []
            batch = [body(task_type="health_check")] * BATCH_TASKS
            answer = await api.post(BATCH, json=batch)
            while answer.status_code == 201 and len(taken) < TASKS_MAX:
                taken += [task["id"] for task in answer.json()["tasks"]]
                answer = await api.post(BATCH, json=batch)
        # Whatever is left is for the workers: none of them is refused a single write.
        async with working(store, handles("health_check", well), concurrency=200):
            for task_id in taken:
                await until(store, task_id, Status.COMPLETED)
        counts = await check_ledger(store)
        refused = (await send(store.client, ("INFO", "errorstats"))).decode()
        await app.close()
        await store.close()

    assert answer.status_code == 503
    assert answer.json()["code"] == "QUEUE_FULL"
    assert answer.headers["retry-after"]
    assert len(taken) >= 10 * BATCH_TASKS
    assert counts.in_status(Status.COMPLETED) == len(counts.tasks) == len(taken)
    assert "OOM" not in refused


async def test_a_server_that_is_too_busy_to_answer_is_not_taken_for_an_empty_one(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("api.overload.READ_EVERY_S", 0)
    with run_server(valkey_binary(), "--maxmemory", MAXMEMORY) as url:
        store = await RedisStore.open(url)
        guard = MemoryGuard(store, Settings())
        await guard.check(1, 0)
        monkeypatch.setattr("api.overload.READ_TIMEOUT_S", 0)
        with pytest.raises(Rejection) as refused:
            for _ in range(TASKS_MAX):
                await guard.check(1, 0)
        await guard.close()
        await store.close()

    assert refused.value.code is RejectionCode.QUEUE_FULL
