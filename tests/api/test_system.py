"""GET /api/v1/stats/system, and estimates: over a ledger, a read model and announced workers."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from ledger.commands import CancelTask, CompleteTask
from ledger.keys import PartitionKeys
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from ledger.workers import WorkerState
from projections.read_model import ReadModel
from tests.api.requests import TASKS, UNKNOWN_ID, complete, do, fail, start, submitted
from tests.contracts.store import a_report
from tests.read_models import bring_level, read_model

SYSTEM = "/api/v1/stats/system"

CLOCK_MS = 1_000
"""How far the estimate of the server's clock may be off, with much to spare."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(read_model_dir=str(tmp_path))


@pytest.fixture
async def model(store: RedisStore, tmp_path: Path) -> AsyncIterator[ReadModel]:
    model = await read_model(store, tmp_path)
    yield model
    model.db.close()


async def system(api: httpx2.AsyncClient) -> dict[str, Any]:
    answer = await api.get(SYSTEM)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_workers_are_listed_and_counted_by_what_they_are_at(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel
):
    busy = a_report(
        "busy",
        state=WorkerState.BUSY,
        running=2,
        task_ids=(UNKNOWN_ID,),
        succeeded=3,
        failed=1,
        task_ms=10_000,
    )
    await store.announce(busy)
    await store.announce(a_report("idle", started_at=2_000))
    await store.announce(a_report("draining", started_at=3_000, state=WorkerState.DRAINING))

    told = await system(api)

    names = ("total_workers", "active_workers", "idle_workers", "busy_workers")
    assert [told[name] for name in names] == [3, 3, 1, 1]
    assert [w["id"] for w in told["workers"]] == ["busy", "idle", "draining"]
    first = told["workers"][0]
    assert first.pop("last_heartbeat") >= "2026"
    assert first == {
        "id": "busy",
        "status": "busy",
        "current_task_id": UNKNOWN_ID,
        "current_task_ids": [UNKNOWN_ID],
        "tasks_processed": 4,
        "tasks_succeeded": 3,
        "tasks_failed": 1,
        "started_at": "1970-01-01T00:00:01.000Z",
        "average_task_time": 2.5,
        "task_types": ["document_processing"],
        "concurrency": 4,
        "running": 2,
        "host": "h1",
        "pid": 7,
    }
    assert told["workers"][1]["average_task_time"] is None
    assert told["workers"][1]["current_task_id"] is None


async def test_what_waits_and_what_was_finished_in_the_last_minute_is_counted(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel
):
    tasks = [await submitted(api) for _ in range(7)]
    await submitted(api, schedule_for="2100-01-01T00:00:00Z")
    await complete(store, tasks[0]["id"])
    await fail(store, tasks[1]["id"])
    await do(store, tasks[2]["id"], CancelTask())
    await start(store, tasks[3]["id"])
    await bring_level(model, store)

    told = await system(api)

    assert (told["queue_size"], told["processing_rate"]) == (3, 2.0)
    assert told["task_stats"] == (await api.get("/api/v1/stats/tasks")).json()
    assert told["task_stats"]["total_tasks"] == 8
    level = {"behind_ms": 0, "stopped_at": None, "reason": None}
    assert told["projection_lag"] == dict.fromkeys(("tasks", "stats", "queues"), level)


async def test_after_a_silence_the_lag_is_the_age_of_what_was_not_seen(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel
):
    long_ago = ("XADD", PartitionKeys(0).events, "1-0", "x", "y")
    await send(store.client, long_ago)
    await bring_level(model, store)
    began_s = time.monotonic()
    await submitted(api)
    await submitted(api)

    answer = await api.get(SYSTEM)

    took_ms = (time.monotonic() - began_s) * 1000
    header_ms = int(answer.headers["projection-lag"])
    told_ms = answer.json()["projection_lag"]["tasks"]["behind_ms"]
    assert 0 < header_ms <= told_ms <= took_ms + CLOCK_MS


async def test_a_stopped_projection_says_where_and_why(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel
):
    await submitted(api)
    await bring_level(model, store)
    model.stop_all("0:1-0", "garbage")

    lag = (await system(api))["projection_lag"]["queues"]

    assert (lag["stopped_at"], lag["reason"]) == ("0:1-0", "garbage")
    assert lag["behind_ms"] > 0


async def test_without_a_read_model_it_is_unavailable(api: httpx2.AsyncClient, store: RedisStore):
    answer = await api.get(SYSTEM)

    assert (answer.status_code, answer.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"


async def test_a_task_tells_when_it_will_be_completed_wherever_it_is_shown(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel
):
    measured = await submitted(api)
    await start(store, measured["id"])
    await do(store, measured["id"], CompleteTask(1, msgspec.Raw(b"null")))
    await store.announce(a_report(concurrency=1, running=1, state=WorkerState.BUSY))
    task = await submitted(api)
    await bring_level(model, store)

    read = (await api.get(f"{TASKS}/{task['id']}")).json()
    listed = (await api.get(TASKS, params={"status": "queued"})).json()["tasks"]
    explained = (await api.get(f"{TASKS}/{task['id']}/explain")).json()

    for shown in (read, *listed, explained):
        assert shown["estimated_completion"] >= task["created_at"]
    assert len(listed) == 1
    done = (await api.get(f"{TASKS}/{measured['id']}")).json()
    assert done["estimated_completion"] is None


async def test_a_task_that_nobody_can_estimate_says_nothing(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel
):
    await store.announce(a_report())
    task = await submitted(api)
    await bring_level(model, store)

    assert (await api.get(f"{TASKS}/{task['id']}")).json()["estimated_completion"] is None
