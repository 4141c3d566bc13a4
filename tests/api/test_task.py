"""A task is read: as it is, as it was, and its history."""

import httpx2
import pytest

from api.wire import moment_text
from ledger.commands import CancelTask, FailAttempt, ReportProgress, RetryTask, StartTask
from ledger.events import ErrorKind
from ledger.redis_store import RedisStore
from ledger.transact import transact
from tests.api.requests import TASKS, UNKNOWN_ID, complete, do, fail, start, submitted


async def version(api: httpx2.AsyncClient, task_id: str, number: int) -> httpx2.Response:
    return await api.get(f"{TASKS}/{task_id}", params={"version": number})


async def test_a_task_is_read_as_it_was_submitted(api: httpx2.AsyncClient):
    task = await submitted(api)

    answer = await api.get(f"{TASKS}/{task['id']}")

    assert answer.status_code == 200
    assert answer.json() == task
    assert answer.headers["etag"] == '"1"'


async def test_a_completed_task_shows_its_result(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)
    await complete(store, task["id"], b'{"chunks" : 12}')

    answer = await api.get(f"{TASKS}/{task['id']}")

    done = answer.json()
    assert b'"result":{"chunks" : 12},' in answer.content
    assert (done["status"], done["progress"], done["version"]) == ("completed", 100, 3)
    assert (done["worker_id"], done["queue_position"]) == ("worker-1", 0)
    assert done["completed_at"] >= done["started_at"] >= done["created_at"]


async def test_a_failed_task_shows_its_error(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)
    await fail(store, task["id"], "no such file")

    failed = (await api.get(f"{TASKS}/{task['id']}")).json()

    assert (failed["status"], failed["error_message"]) == ("failed", "no such file")
    assert failed["error_kind"] == "permanent"


async def test_a_retrying_task_shows_when_it_is_tried_again(
    api: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(api)
    await start(store, task["id"])
    await do(store, task["id"], FailAttempt(1, "busy", ErrorKind.RETRYABLE))

    retrying = (await api.get(f"{TASKS}/{task['id']}")).json()

    assert (retrying["status"], retrying["retry_count"]) == ("retrying", 1)
    assert retrying["retry_at"] > retrying["updated_at"]
    assert retrying["queue_position"] == 0


@pytest.mark.parametrize(
    "task_id",
    [UNKNOWN_ID, UNKNOWN_ID.upper(), "1", "x" * 500, "%00", UNKNOWN_ID + "0", "ü", "{id}"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("GET", "/events"), ("POST", "/retry"), ("PUT", "/progress")],
)
async def test_an_id_that_no_task_has_is_not_found(
    api: httpx2.AsyncClient, method: str, path: str, task_id: str
):
    content = b'{"progress":1}' if method == "PUT" else b""

    answer = await api.request(method, f"{TASKS}/{task_id}{path}", content=content)

    assert answer.status_code == 404
    assert answer.json()["error"] == "Task not found"
    assert answer.json()["code"] == "TASK_NOT_FOUND"


# -- as it was ------------------------------------------------------------------------------------


async def test_every_version_can_be_read(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)
    await start(store, task["id"])
    await do(store, task["id"], ReportProgress(40, "parsing"))
    await do(store, task["id"], CancelTask())
    await do(store, task["id"], RetryTask())

    told = [(await version(api, task["id"], number)).json() for number in range(1, 6)]

    assert [t["status"] for t in told] == [
        "queued",
        "processing",
        "processing",
        "canceled",
        "queued",
    ]
    assert [t["progress"] for t in told] == [0, 0, 40, 40, 0]
    assert [t["version"] for t in told] == [1, 2, 3, 4, 5]
    assert (await version(api, task["id"], 2)).headers["etag"] == '"2"'


async def test_the_last_version_is_the_task_of_now(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api, payload={"deep": [{"x": 1.50}]})
    await complete(store, task["id"])

    last = await version(api, task["id"], 3)

    assert last.content == (await api.get(f"{TASKS}/{task['id']}")).content


async def test_a_version_that_is_not_yet_is_not_found(api: httpx2.AsyncClient):
    task = await submitted(api)

    answer = await version(api, task["id"], 2)

    assert answer.status_code == 404
    assert answer.json()["code"] == "NOT_FOUND"
    assert answer.json()["details"] == {"task_id": task["id"], "version": 1}


async def test_a_task_is_read_as_of_a_time(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)
    created = store.now_ms() // 1_000 * 1_000
    await transact(store, task["id"], StartTask(1, "w", 60_000), now_ms=created + 60_000)
    await transact(store, task["id"], CancelTask(), now_ms=created + 120_000)
    times = [moment_text(created + ms) for ms in (59_999, 60_000, 119_999, 120_000, 10**9)]
    told = [
        (await api.get(f"{TASKS}/{task['id']}", params={"as_of": at})).json()["status"]
        for at in times
    ]

    assert told == ["queued", "processing", "processing", "canceled", "canceled"]


@pytest.mark.parametrize("age", ["0s", "0m", "0h", "0d"])
async def test_an_age_tells_a_time_too(api: httpx2.AsyncClient, age: str):
    task = await submitted(api)

    answer = await api.get(f"{TASKS}/{task['id']}", params={"as_of": age})

    assert answer.json()["status"] == "queued"


@pytest.mark.parametrize("before", ["90s", "15m", "1h", "7d", "2000-01-01T00:00:00Z"])
async def test_before_it_was_created_a_task_is_not_found(api: httpx2.AsyncClient, before: str):
    task = await submitted(api)

    answer = await api.get(f"{TASKS}/{task['id']}", params={"as_of": before})

    assert answer.status_code == 404
    assert answer.json()["code"] == "NOT_FOUND"
    assert answer.json()["details"]["created_at"] == task["created_at"]


async def test_a_plus_in_a_time_need_not_be_encoded(api: httpx2.AsyncClient):
    task = await submitted(api)

    answer = await api.get(f"{TASKS}/{task['id']}?as_of=2100-01-01T00:00:00+02:00")

    assert answer.status_code == 200


WRONG_PARAMETERS = {
    "version=0": "version",
    "version=-1": "version",
    "version=1.0": "version",
    "version=": "version",
    "version=x": "version",
    "version=99999999999999999999": "version",
    "version=%D9%A1": "version",
    "as_of=": "as_of",
    "as_of=yesterday": "as_of",
    "as_of=2030-01-01T00:00:00": "as_of",
    "as_of=2030-01-01": "as_of",
    "as_of=15": "as_of",
    "as_of=15w": "as_of",
    "as_of=-15m": "as_of",
    "as_of=1.5h": "as_of",
    "as_of=9999999999d": "as_of",
    "as_of=12345-01-01T00:00:00Z": "as_of",
    "wait=": "wait",
    "wait=-1": "wait",
    "wait=61": "wait",
    "wait=60.000001": "wait",
    "wait=nan": "wait",
    "wait=inf": "wait",
    "wait=1s": "wait",
    "version=1&version=1": "version",
    "version=1&wait=1": "version and wait",
    "version=1&as_of=1h": "version and as_of",
    "as_of=1h&wait=1": "as_of and wait",
    "Version=1": "Version",
    "page=1": "page",
    "version": "query",
    "version=%ff": "query",
    "x=" + "y" * 9_000: "query",
}


@pytest.mark.parametrize(("query", "field"), WRONG_PARAMETERS.items(), ids=lambda v: str(v)[:40])
async def test_a_wrong_parameter_is_named(api: httpx2.AsyncClient, query: str, field: str):
    task = await submitted(api)

    answer = await api.get(f"{TASKS}/{task['id']}?{query}")

    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert answer.json()["details"]["field"] == field
    assert answer.json()["details"]["expected"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", ""), ("GET", "/events"), ("POST", "/retry"), ("PUT", "/progress")],
)
async def test_where_no_parameters_are_known_each_is_refused(
    api: httpx2.AsyncClient, method: str, path: str
):
    answer = await api.request(method, f"{TASKS}/{UNKNOWN_ID}{path}?force=1")

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == "force"


# -- its history ----------------------------------------------------------------------------------


async def test_the_events_are_told_in_order(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api)
    await complete(store, task["id"])

    answer = await api.get(f"{TASKS}/{task['id']}/events")

    history = answer.json()
    assert history["task_id"] == task["id"]
    types = [event["type"] for event in history["events"]]
    assert types == ["TaskSubmitted", "TaskStarted", "TaskCompleted"]
    assert [event["version"] for event in history["events"]] == [1, 2, 3]
    assert history["events"][-1]["position"] == str(await store.last_position(0))
    assert history["events"][0]["at"] == task["created_at"]
    assert history["events"][2]["data"] == {"attempt": 1, "result": {"chunks": 12}}


async def test_an_event_has_the_fields_of_the_contract(api: httpx2.AsyncClient):
    task = await submitted(api)

    [event] = (await api.get(f"{TASKS}/{task['id']}/events")).json()["events"]

    assert list(event) == ["position", "type", "version", "at", "data", "meta"]


async def test_data_and_meta_are_the_stored_bytes(api: httpx2.AsyncClient, store: RedisStore):
    task = await submitted(api, payload={"x": 1.50})

    answer = await api.get(f"{TASKS}/{task['id']}/events")

    [recorded] = await store.history(task["id"])
    assert b'"data":' + recorded.data + b',"meta":' + recorded.meta in answer.content
