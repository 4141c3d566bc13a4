"""Pausing a queue and resuming it, and what is told of it meanwhile."""

from typing import Any

import httpx2
import pytest

from api.app import App, create_app
from ledger.codec import Meta, decode_meta
from ledger.identity import SYSTEM
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from ledger.system.commands import PauseQueue
from ledger.system.events import QueuePaused
from ledger.system.transact import transact_system
from tests.api.requests import JSON, TASKS, submitted
from tests.api.test_metrics import scraped
from tests.contracts.store import a_report
from tests.read_models import read_model

TYPE = "document_processing"
EVENTS = "/api/v1/system/events"
PAUSE, RESUME = f"/api/v1/queues/{TYPE}/pause", f"/api/v1/queues/{TYPE}/resume"


async def explained(api: httpx2.AsyncClient, task: dict[str, Any]) -> list[dict[str, Any]]:
    return (await api.get(f"{TASKS}/{task['id']}/explain")).json()["reasons"]


async def test_a_queue_is_paused_for_a_reason(api: httpx2.AsyncClient, store: RedisStore):
    answer = await api.post(PAUSE, json={"reason": "the disk is full"}, headers={"x-actor": "ann"})

    assert answer.status_code == 200
    assert answer.headers["ledger-position"] == str(await store.last_position(0))
    told = answer.json()
    assert (told["task_type"], told["paused"]["reason"]) == (TYPE, "the disk is full")
    assert told["paused"]["by"] == "ann"
    [event] = await store.history(SYSTEM)
    assert event.system_event() == QueuePaused(TYPE, "the disk is full")
    assert decode_meta(event.meta).request == answer.headers["x-request-id"]


async def test_a_reason_may_be_left_out(api: httpx2.AsyncClient):
    without = await api.post(PAUSE)
    await api.post(RESUME)
    empty = await api.post(PAUSE, content=b"{}", headers=JSON)

    for answer in (without, empty):
        assert (answer.status_code, answer.json()["paused"]["reason"]) == (200, "")


async def test_a_queue_that_is_paused_stays_as_it_was_paused(
    api: httpx2.AsyncClient, store: RedisStore
):
    first = await api.post(PAUSE, json={"reason": "one"})
    again = await api.post(PAUSE, json={"reason": "another"})

    assert again.json() == first.json()
    assert "ledger-position" not in again.headers
    assert await store.system_version() == 1


async def test_a_queue_is_resumed_once(api: httpx2.AsyncClient, store: RedisStore):
    await api.post(PAUSE)

    answers = [await api.post(RESUME) for _ in range(2)]

    assert [a.json() for a in answers] == [{"task_type": TYPE, "paused": None}] * 2
    assert ["ledger-position" in a.headers for a in answers] == [True, False]
    assert await store.system_version() == 2


@pytest.mark.parametrize("path", ["pause", "resume"])
async def test_a_type_that_nobody_knows_is_refused(api: httpx2.AsyncClient, path: str):
    answer = await api.post(f"/api/v1/queues/nonsense/{path}")

    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")
    assert answer.json()["details"]["field"] == "task_type"


@pytest.mark.parametrize(
    ("content", "field"),
    [(b'{"reason": 1}', "reason"), (b'{"why": "x"}', "why"), (b"[", "body"), (b'"x"', "body")],
)
async def test_a_wrong_body_is_refused_by_its_field(
    api: httpx2.AsyncClient, store: RedisStore, content: bytes, field: str
):
    answer = await api.post(PAUSE, content=content, headers=JSON)

    assert (answer.status_code, answer.json()["details"]["field"]) == (400, field)
    assert await store.system_version() == 0


async def test_a_type_that_left_the_settings_can_still_be_resumed(
    api: httpx2.AsyncClient, store: RedisStore
):
    await transact_system(store, PauseQueue("old"), Meta("ann"))

    answer = await api.post("/api/v1/queues/old/resume")

    assert (answer.status_code, answer.json()["paused"]) == (200, None)
    assert (await api.post("/api/v1/queues/old/resume")).status_code == 400


async def test_what_was_done_is_listed(api: httpx2.AsyncClient):
    nothing = await api.get(EVENTS)
    await api.post(PAUSE)
    await api.post(RESUME)

    listed = await api.get(EVENTS)

    assert nothing.json() == {"events": [], "next_after": None}
    assert [(e["version"], e["type"]) for e in listed.json()["events"]] == [
        (1, "QueuePaused"),
        (2, "QueueResumed"),
    ]


async def test_what_was_done_is_listed_a_part_at_a_time(api: httpx2.AsyncClient):
    for path in (PAUSE, RESUME, PAUSE):
        await api.post(path)

    parts = [
        (await api.get(EVENTS, params=params)).json()
        for params in ({"limit": 2}, {"after": 2, "limit": 1}, {"after": 3}, {"after": 99})
    ]

    assert [([e["version"] for e in part["events"]], part["next_after"]) for part in parts] == [
        ([1, 2], 2),
        ([3], None),
        ([], None),
        ([], None),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("after", "-1"), ("after", "x"), ("limit", "0"), ("limit", "1001"), ("before", "1")],
)
async def test_a_part_that_cannot_be_is_refused(api: httpx2.AsyncClient, name: str, value: str):
    answer = await api.get(EVENTS, params={name: value})

    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")
    assert answer.json()["details"]["field"] == name


async def test_a_paused_queue_is_the_reason_for_waiting(api: httpx2.AsyncClient, store: RedisStore):
    await store.announce(a_report(concurrency=4))
    ready, later = await submitted(api), await submitted(api, schedule_for="2030-01-01T00:00:00Z")
    other = await submitted(api, task_type="health_check")
    await api.post(PAUSE, json={"reason": "the disk is full"}, headers={"x-actor": "ann"})

    [paused] = await explained(api, ready)
    delayed, paused_too = await explained(api, later)
    codes = [reason["code"] for reason in await explained(api, other)]
    await api.post(RESUME)
    [starts] = await explained(api, ready)

    assert (paused["code"], paused["by"], paused["reason"]) == ("paused", "ann", "the disk is full")
    assert "the disk is full" in paused["message"]
    assert (delayed["code"], paused_too["code"]) == ("delayed_until", "paused")
    assert "paused" not in codes
    assert starts["code"] == "about_to_start"


async def test_rows_of_queues_say_what_is_paused(store: RedisStore, tmp_path: Any):
    settings = Settings(data_dir=str(tmp_path))
    model = await read_model(store, settings.read_model_folder)
    app: App = create_app(store, settings)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        await api.post(PAUSE, json={"reason": "full"}, headers={"x-actor": "ann"})
        rows = (await api.get("/api/v1/queues/info")).json()["queues"]
    model.db.close()
    await app.close()

    paused = [row for row in rows if row["paused"]]
    assert {(row["task_type"], row["paused"]["by"]) for row in paused} == {(TYPE, "ann")}
    assert len(paused) == 4
    assert len(rows) > 4


async def test_metrics_tell_pauses_and_limits(api: httpx2.AsyncClient):
    await api.post(PAUSE)
    await api.put(f"/api/v1/limits/types/{TYPE}", json={"limit": 3})

    told = await scraped(api)

    assert told[f"queue_paused{{type={TYPE}}}"] == 1
    assert told["queue_paused{type=health_check}"] == 0
    assert told[f"type_limit{{type={TYPE}}}"] == 3
    assert "type_limit{type=health_check}" not in told
