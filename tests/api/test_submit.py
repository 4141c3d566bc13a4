"""A task is submitted."""

import asyncio
import re

import httpx2
import pytest

from api.intake import Intake
from ledger.codec import decode_meta
from ledger.redis_store import RedisStore
from ledger.settings import BUILT_IN_TASK_TYPES, Settings
from ledger.store import Position
from tests.api.requests import (
    BATCH,
    TASKS,
    body,
    complete,
    post_raw,
    raw_body,
    start,
    state_of,
    submitted,
)
from tests.given import OTHER_TRACE, TRACE

NOW = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
VERSION_7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def test_a_task_is_created_with_the_defaults(api: httpx2.AsyncClient):
    answer = await api.post(TASKS, json=body())

    task = answer.json()
    assert answer.status_code == 201
    assert VERSION_7.fullmatch(task.pop("id"))
    created_at, updated_at = task.pop("created_at"), task.pop("updated_at")
    assert NOW.fullmatch(created_at)
    assert updated_at == created_at
    assert task == {
        "task_type": "document_processing",
        "kb_id": "kb-1",
        "status": "queued",
        "priority": "normal",
        "payload": {"a": 1},
        "result": None,
        "progress": 0,
        "message": "",
        "retry_count": 0,
        "max_retries": 3,
        "timeout": 300,
        "error_message": "",
        "error_kind": None,
        "worker_id": None,
        "schedule_for": None,
        "retry_at": None,
        "started_at": None,
        "completed_at": None,
        "estimated_completion": None,
        "queue_position": 1,
        "version": 1,
        "callback_url": None,
        "metadata": None,
    }


async def test_every_field_is_taken_over(api: httpx2.AsyncClient):
    sent = body(
        priority="critical",
        max_retries=0,
        timeout=86_400,
        schedule_for="2100-01-31T09:30:00.5+02:00",
        callback_url="http://localhost:8082/api/v1/tasks/{task_id}/callback?a=b",
        metadata={"tenant": "x"},
    )

    task = await submitted(api, **sent)

    assert task | sent | {"schedule_for": "2100-01-31T07:30:00.500Z"} == task


@pytest.mark.parametrize("number", [b"30.0", b"3e1", b"300E-1"])
async def test_a_whole_number_may_be_written_in_any_way(api: httpx2.AsyncClient, number: bytes):
    one = await post_raw(api, TASKS, raw_body("max_retries", number))
    many = await post_raw(api, BATCH, b"[" + raw_body("timeout", number) + b"]")

    assert one.json()["max_retries"] == 30
    assert one.json()["payload"] == body()["payload"]
    assert many.json()["tasks"][0]["timeout"] == 30


@pytest.mark.parametrize("task_type", BUILT_IN_TASK_TYPES)
async def test_every_built_in_type_is_taken(api: httpx2.AsyncClient, task_type: str):
    assert (await submitted(api, task_type=task_type))["task_type"] == task_type


@pytest.mark.parametrize("field", ["schedule_for", "callback_url", "metadata"])
async def test_null_stands_for_none_where_the_contract_says_so(api: httpx2.AsyncClient, field: str):
    assert (await submitted(api, **{field: None}))[field] is None


@pytest.mark.parametrize("kb_id", ["k", "ü" * 255, "a b\u00a0c", "日本"])
async def test_a_kb_id_may_be_any_text(api: httpx2.AsyncClient, kb_id: str):
    assert (await submitted(api, kb_id=kb_id))["kb_id"] == kb_id


async def test_the_answer_says_where_the_task_is(api: httpx2.AsyncClient, store: RedisStore):
    answer = await api.post(TASKS, json=body())

    assert answer.headers["location"] == f"{TASKS}/{answer.json()['id']}"
    assert answer.headers["ledger-position"] == str(await store.last_position(0))
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["content-type"] == "application/json"


async def test_the_event_says_who_wrote_it(api: httpx2.AsyncClient, store: RedisStore):
    headers = {"X-Actor": "billing", "X-Request-ID": "r-1", "traceparent": TRACE}

    answer = await api.post(TASKS, json=body(), headers=headers)

    [event] = (await api.get(f"{answer.headers['location']}/events")).json()["events"]
    commit = event["meta"].pop("commit")
    assert commit
    assert event["meta"] == {"actor": "billing", "request": "r-1", "trace": TRACE}


@pytest.mark.parametrize(
    "malformed",
    [
        "00-xyz",
        TRACE.upper(),
        TRACE + "-",
        TRACE + "-later",
        "01" + TRACE[2:] + ".later",
        TRACE.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
async def test_a_malformed_traceparent_is_ignored(api: httpx2.AsyncClient, malformed: str):
    answer = await api.post(TASKS, json=body(), headers={"traceparent": malformed})

    [event] = (await api.get(f"{answer.headers['location']}/events")).json()["events"]
    assert event["meta"]["actor"] == "api"
    assert "trace" not in event["meta"]


@pytest.mark.parametrize("more", ["", "-", "-what-a-later-version-has"])
async def test_of_a_later_version_of_traceparent_what_is_known_is_read(
    api: httpx2.AsyncClient, more: str
):
    later = f"cc{TRACE[2:-2]}ff{more}"
    answer = await api.post(TASKS, json=body(), headers={"traceparent": later})

    [event] = (await api.get(f"{answer.headers['location']}/events")).json()["events"]
    assert event["meta"]["trace"] == f"{TRACE[:-2]}01"


async def test_one_trace_leads_from_a_request_to_all_that_follows(
    api: httpx2.AsyncClient, store: RedisStore
):
    await api.post(BATCH, json=[body(), body()], headers={"traceparent": TRACE})
    answer = await api.post(TASKS, json=body(), headers={"traceparent": TRACE})
    task = answer.json()
    await start(store, task["id"])
    await api.put(f"{TASKS}/{task['id']}/progress", json={"progress": 5})
    await api.delete(f"{TASKS}/{task['id']}")
    await api.post(f"{TASKS}/{task['id']}/retry", headers={"traceparent": OTHER_TRACE})
    await start(store, task["id"], attempt=2)

    events = await store.events_after(Position(0, "0-0"), 100, 1)
    traces = [(event.type, decode_meta(event.meta).trace) for event in events]
    assert traces == [
        ("TaskSubmitted", TRACE),
        ("TaskSubmitted", TRACE),
        ("TaskSubmitted", TRACE),
        ("TaskStarted", TRACE),
        ("TaskProgressed", TRACE),
        ("TaskCanceled", TRACE),
        ("TaskRetried", OTHER_TRACE),
        ("TaskStarted", OTHER_TRACE),
    ]


async def test_a_key_gives_the_same_task_in_whatever_trace(api: httpx2.AsyncClient):
    answers = [
        await api.post(TASKS, json=body(), headers={"Idempotency-Key": "k-1", **trace})
        for trace in ({"traceparent": TRACE}, {"traceparent": OTHER_TRACE}, {})
    ]

    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_positions_in_the_queue_count_up(api: httpx2.AsyncClient):
    positions = [(await submitted(api))["queue_position"] for _ in range(3)]
    urgent = await submitted(api, priority="high")
    scheduled = await submitted(api, schedule_for="2100-01-01T00:00:00Z")

    assert positions == [1, 2, 3]
    assert urgent["queue_position"] == 1
    assert scheduled["queue_position"] == 0


@pytest.mark.parametrize("kind", [None, "application/json", "Application/JSON; charset=UTF-8"])
async def test_a_body_may_say_that_it_is_json(api: httpx2.AsyncClient, kind: str | None):
    headers = {} if kind is None else {"content-type": kind}
    content = b'{"task_type":"health_check","kb_id":"k","payload":{}}'

    answer = await api.post(TASKS, content=content, headers=headers)

    assert answer.status_code == 201


# -- Idempotency-Key ------------------------------------------------------------------------------


async def test_the_same_key_and_body_give_the_same_task(api: httpx2.AsyncClient, store: RedisStore):
    key = {"Idempotency-Key": "order 1"}
    first = await api.post(TASKS, json=body(), headers=key)
    before = await state_of(store)

    again = await api.post(TASKS, json=body(), headers=key)

    assert first.status_code == 201
    assert "idempotent-replayed" not in first.headers
    assert again.status_code == 200
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert await state_of(store) == before


async def test_a_replay_gives_the_task_as_it_is_now(api: httpx2.AsyncClient, store: RedisStore):
    key = {"Idempotency-Key": "order 1"}
    first = (await api.post(TASKS, json=body(), headers=key)).json()
    await complete(store, first["id"])

    again = await api.post(TASKS, json=body(), headers=key)

    assert again.json()["status"] == "completed"
    assert again.headers["etag"] == '"3"'


async def test_the_same_key_with_another_body_is_a_conflict(
    api: httpx2.AsyncClient, store: RedisStore
):
    key = {"Idempotency-Key": "order 1"}
    first = await api.post(TASKS, json=body(), headers=key)
    before = await state_of(store)

    other = await api.post(TASKS, json=body(priority="high"), headers=key)

    assert other.status_code == 409
    assert other.json()["code"] == "IDEMPOTENCY_CONFLICT"
    assert other.json()["details"] == {"task_id": first.json()["id"]}
    assert await state_of(store) == before


async def test_a_key_holds_within_one_kb_id(api: httpx2.AsyncClient):
    key = {"Idempotency-Key": "order 1"}
    first = await api.post(TASKS, json=body(kb_id="a"), headers=key)
    other = await api.post(TASKS, json=body(kb_id="b"), headers=key)

    assert (first.status_code, other.status_code) == (201, 201)
    assert first.json()["id"] != other.json()["id"]


@pytest.mark.parametrize(
    "key", [b"", b"k" * 256, b"a\tb", b"\xff\xfe", "é".encode() * 256], ids=repr
)
async def test_a_key_that_is_no_key_is_refused(
    api: httpx2.AsyncClient, store: RedisStore, key: bytes
):
    before = await state_of(store)

    answer = await api.post(TASKS, json=body(), headers=[(b"idempotency-key", key)])

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == "Idempotency-Key"
    assert await state_of(store) == before


async def test_a_key_may_be_255_characters_of_any_script(api: httpx2.AsyncClient):
    key = ("é" * 255).encode()

    answer = await api.post(TASKS, json=body(), headers=[(b"idempotency-key", key)])

    assert answer.status_code == 201


async def test_concurrent_submissions_under_one_key_make_one_task(
    api: httpx2.AsyncClient, store: RedisStore
):
    content = b'{"task_type":"health_check","kb_id":"k","payload":{}}'
    answers = await asyncio.gather(
        *(post_raw(api, TASKS, content, **{"Idempotency-Key": "k"}) for _ in range(20))
    )

    assert sorted(a.status_code for a in answers) == [200] * 19 + [201]
    assert len({a.json()["id"] for a in answers}) == 1


def test_a_type_may_have_a_callback_url_of_its_own():
    settings = Settings(
        task_types=("summarize",),
        callback_urls=("summarize=http://localhost:8082/done/{task_id}",),
    )
    intake = Intake(settings)
    body = b'{"task_type": "summarize", "kb_id": "kb", "payload": {}'

    usual = intake.submission(body + b"}", "")
    own = intake.submission(body + b', "callback_url": "http://127.0.0.1/mine"}', "")
    other = intake.submission(body.replace(b"summarize", b"health_check") + b"}", "")

    assert usual.callback_url == "http://localhost:8082/done/{task_id}"
    assert own.callback_url == "http://127.0.0.1/mine"
    assert other.callback_url is None
