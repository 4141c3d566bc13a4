"""A task is canceled, retried, and told how far it is."""

import httpx2
import pytest

from ledger.redis_store import RedisStore
from tests.api.requests import TASKS, Step, complete, fail, start, state_of, submitted


async def test_a_task_is_canceled(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)

    answer = await api.delete(f"{TASKS}/{task['id']}")

    assert answer.status_code == 200
    assert answer.json() == {"message": "Task canceled successfully", "task_id": task["id"]}
    assert answer.headers["ledger-position"] == str(await store.last_position(0))
    assert (await api.get(f"{TASKS}/{task['id']}")).json()["status"] == "canceled"


async def test_a_canceled_task_is_canceled_already(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)
    await api.delete(f"{TASKS}/{task['id']}")
    before = await state_of(store)

    answer = await api.delete(f"{TASKS}/{task['id']}")

    assert answer.status_code == 200
    assert "ledger-position" not in answer.headers
    assert await state_of(store) == before


@pytest.mark.parametrize("end", [complete, fail])
async def test_a_finished_task_cannot_be_canceled(
    api: httpx2.AsyncClient, store: RedisStore, end: Step
):
    task = await submitted(api)
    await end(store, task["id"])
    before = await state_of(store)

    answer = await api.delete(f"{TASKS}/{task['id']}")

    assert answer.status_code == 409
    assert answer.json()["code"] == "TASK_NOT_CANCELABLE"
    assert answer.json()["details"] == {"task_id": task["id"]}
    assert await state_of(store) == before


async def test_a_failed_task_is_queued_again(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)
    await fail(store, task["id"])

    answer = await api.post(f"{TASKS}/{task['id']}/retry")

    again = answer.json()
    assert answer.status_code == 200
    assert answer.headers["ledger-position"] == str(await store.last_position(0))
    assert answer.headers["etag"] == f'"{again["version"]}"'
    assert (again["status"], again["retry_count"], again["error_message"]) == ("queued", 0, "")
    assert again["queue_position"] >= 1


@pytest.mark.parametrize("step", [None, start, complete])
async def test_only_a_failed_or_canceled_task_is_retried(
    api: httpx2.AsyncClient, store: RedisStore, step: Step | None
):
    task = await submitted(api)
    if step is not None:
        await step(store, task["id"])

    answer = await api.post(f"{TASKS}/{task['id']}/retry", json={})

    assert answer.status_code == 409
    assert answer.json()["code"] == "TASK_NOT_RETRYABLE"


async def test_progress_is_reported(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)
    await start(store, task["id"])

    answer = await api.put(
        f"{TASKS}/{task['id']}/progress", json={"progress": 40, "message": "parsing"}
    )

    assert answer.status_code == 200
    assert (answer.json()["progress"], answer.json()["message"]) == (40, "parsing")
    assert answer.headers["ledger-position"] == str(await store.last_position(0))


async def test_the_same_progress_twice_is_written_once(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)
    await start(store, task["id"])
    report = {"progress": 40, "message": ""}
    await api.put(f"{TASKS}/{task['id']}/progress", json=report)
    before = await state_of(store)

    answer = await api.put(f"{TASKS}/{task['id']}/progress", json=report)

    assert answer.status_code == 200
    assert "ledger-position" not in answer.headers
    assert await state_of(store) == before


async def test_progress_without_a_message_keeps_the_last_one(
    api: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(api)
    await start(store, task["id"])
    await api.put(f"{TASKS}/{task['id']}/progress", json={"progress": 40, "message": "parsing"})

    kept = await api.put(f"{TASKS}/{task['id']}/progress", json={"progress": 50})
    emptied = await api.put(f"{TASKS}/{task['id']}/progress", json={"progress": 50, "message": ""})

    assert (kept.json()["progress"], kept.json()["message"]) == (50, "parsing")
    assert emptied.json()["message"] == ""


@pytest.mark.parametrize("step", [None, complete, fail])
async def test_only_a_running_task_has_progress(
    api: httpx2.AsyncClient, store: RedisStore, step: Step | None
):
    task = await submitted(api)
    if step is not None:
        await step(store, task["id"])

    answer = await api.put(f"{TASKS}/{task['id']}/progress", json={"progress": 40})

    assert answer.status_code == 409
    assert answer.json()["code"] == "TASK_NOT_PROCESSING"


WRONG_REPORTS = {
    b"{}": "progress",
    b'{"progress":null}': "progress",
    b'{"progress":"4"}': "progress",
    b'{"progress":4.5}': "progress",
    b'{"progress":true}': "progress",
    b'{"progress":-1}': "progress",
    b'{"progress":101}': "progress",
    b'{"progress":1,"message":null}': "message",
    b'{"progress":1,"message":1}': "message",
    b'{"progress":1,"message":"\xff"}': "message",
    b'{"progress":1,"message":"' + b"x" * 4_097 + b'"}': "message",
    b'{"progress":1,"message":' + b"[" * 10_000 + b"]" * 10_000 + b"}": "message",
    b'{"progress":1,"percent":1}': "percent",
    b"[]": "body",
    b"": "body",
    b"nope": "body",
}


@pytest.mark.parametrize(
    ("sent", "field"), WRONG_REPORTS.items(), ids=[s[:40].hex() for s in WRONG_REPORTS]
)
async def test_a_wrong_report_is_named(
    api: httpx2.AsyncClient, store: RedisStore, sent: bytes, field: str
):
    task = await submitted(api)
    await start(store, task["id"])
    before = await state_of(store)

    answer = await api.put(f"{TASKS}/{task['id']}/progress", content=sent)

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == field
    assert await state_of(store) == before


async def test_a_large_report_is_too_large(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)
    await start(store, task["id"])

    answer = await api.put(f"{TASKS}/{task['id']}/progress", content=b" " * (2 << 20))

    assert answer.status_code == 413


@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/retry")])
async def test_a_large_body_is_too_large_even_where_none_is_needed(
    api: httpx2.AsyncClient, method: str, path: str
):
    task = await submitted(api)

    answer = await api.request(method, f"{TASKS}/{task['id']}{path}", content=b" " * 2_048)

    assert answer.status_code == 413


@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/retry")])
async def test_what_needs_no_body_takes_none(api: httpx2.AsyncClient, method: str, path: str):
    task = await submitted(api)

    answer = await api.request(method, f"{TASKS}/{task['id']}{path}", content=b'{"force":true}')

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == "body"
