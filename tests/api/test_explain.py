"""GET /api/v1/tasks/{id}/explain, over a ledger and workers that announced themselves."""

from typing import Any

import httpx2

from ledger.commands import StartTask
from ledger.redis_store import RedisStore
from ledger.workers import WorkerState
from tests.api.requests import TASKS, UNKNOWN_ID, complete, do, submitted
from tests.contracts.store import a_report


async def explained(api: httpx2.AsyncClient, task: dict[str, Any]) -> dict[str, Any]:
    answer = await api.get(f"{TASKS}/{task['id']}/explain")
    assert answer.status_code == 200, answer.text
    return answer.json()


def codes(explanation: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in explanation["reasons"]]


async def test_a_task_without_a_worker_says_what_is_missing(
    api: httpx2.AsyncClient, store: RedisStore
):
    await store.announce(a_report("w1", task_types=("health_check",)))
    await submitted(api, priority="high")
    await submitted(api)
    task = await submitted(api)

    explanation = await explained(api, task)

    assert {name: explanation[name] for name in ("task_id", "status", "queue_position")} == {
        "task_id": task["id"],
        "status": "queued",
        "queue_position": 3,
    }
    nobody, behind = explanation["reasons"]
    assert (nobody["code"], nobody["task_type"]) == ("no_worker_for_type", "document_processing")
    assert (behind["code"], behind["tasks"]) == ("behind_others", 2)
    assert behind["queues"] == [
        {"priority": "high", "tasks": 1},
        {"priority": "normal", "tasks": 1},
    ]


async def test_a_task_that_waits_for_a_slot_says_so(api: httpx2.AsyncClient, store: RedisStore):
    await store.announce(a_report(concurrency=1, running=1, state=WorkerState.BUSY))

    explanation = await explained(api, await submitted(api))

    assert codes(explanation) == ["all_workers_busy"]


async def test_a_scheduled_task_says_until_when(api: httpx2.AsyncClient, store: RedisStore):
    await store.announce(a_report())
    task = await submitted(api, schedule_for="2100-01-01T00:00:00Z")

    [reason] = (await explained(api, task))["reasons"]

    assert (reason["code"], reason["until"]) == ("delayed_until", "2100-01-01T00:00:00.000Z")


async def test_a_running_task_says_where_and_until_when_its_lease_holds(
    api: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(api)
    started = await do(store, task["id"], StartTask(1, "w1", 60_000))

    [reason] = (await explained(api, task))["reasons"]

    assert (reason["code"], reason["worker_id"], reason["attempt"]) == ("running", "w1", 1)
    assert reason["lease_until"] > reason["since"]
    assert started.task.status == "processing"


async def test_a_task_whose_lease_ran_out_says_that_its_worker_is_lost(
    api: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(api)
    await do(store, task["id"], StartTask(1, "w1", 0))

    assert codes(await explained(api, task)) == ["worker_lost"]


async def test_a_finished_task_says_so(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)
    await complete(store, task["id"])

    assert codes(await explained(api, task)) == ["finished"]


async def test_what_is_no_task_is_not_explained(api: httpx2.AsyncClient):
    for task_id in (UNKNOWN_ID, "7"):
        answer = await api.get(f"{TASKS}/{task_id}/explain")
        assert (answer.status_code, answer.json()["code"]) == (404, "TASK_NOT_FOUND")
