"""Callers do not notice that a task has left Redis; nor what a search for it costs others."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.app import App, create_app
from ledger.archive.reader import Archive, SealedLog
from ledger.objects import ObjectStoreError
from ledger.objects.local_folder import LocalFolder
from ledger.settings import Settings
from tests.api.conformance import conformance
from tests.api.reading import Projection
from tests.api.requests import complete, fail, start, submitted
from tests.places import server_keys
from tests.retention.letting_go import DAY_MS, LaterStore, LettingGo

UNKNOWN = "01996abc-2400-7000-8000-0000000000ff"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path))


@pytest.fixture
async def app(store: LaterStore, settings: Settings) -> AsyncIterator[App]:
    app = create_app(store, settings)
    yield app
    await app.close()


@pytest.fixture
async def api(app: App, settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    hooks = {"response": [conformance(app, settings).check]}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://api", event_hooks=hooks
    ) as client:
        yield client


@pytest.fixture(params=["with a read model", "without one"])
async def projection(
    request: pytest.FixtureRequest, store: LaterStore, settings: Settings
) -> AsyncIterator[Projection | None]:
    """Brought level before anything is evicted."""
    if request.param == "without one":
        yield None
        return
    projection = Projection(store, settings.read_model_folder)
    yield projection
    projection.close()


async def let_go(ledger: LettingGo, projection: Projection | None) -> None:
    """Of all that need not stay."""
    if projection is not None:
        await projection.catch_up()
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()


async def evict(ledger: LettingGo, projection: Projection | None) -> None:
    """All that is finished, and all is."""
    await let_go(ledger, projection)
    tasks = [key for key in await server_keys(ledger.store.client) if ":task:" in key]
    assert not tasks


async def test_a_task_and_its_history_are_read_as_before(
    api: httpx2.AsyncClient, ledger: LettingGo, projection: Projection | None, store: LaterStore
):
    task = await submitted(api, payload={"n": 1.0})
    await start(store, task["id"])
    await complete(store, task["id"])
    path = f"/api/v1/tasks/{task['id']}"
    asked = ["", "?version=1", "?as_of=0s", "?wait=1", "/events", "/explain"]
    before = {each: await api.get(path + each) for each in asked}

    await evict(ledger, projection)

    for each, answer in before.items():
        now = await api.get(path + each)
        assert now.status_code == answer.status_code == 200
        if each != "/explain":
            assert now.json() == answer.json(), each
    etag = before[""].headers["etag"]
    known = await api.get(path, headers={"If-None-Match": etag})
    assert known.status_code == 304


async def test_who_was_never_there_is_not_found(
    api: httpx2.AsyncClient, ledger: LettingGo, projection: Projection | None, store: LaterStore
):
    task = await submitted(api)
    await start(store, task["id"])
    await complete(store, task["id"])
    await evict(ledger, projection)

    for path in (UNKNOWN, f"{UNKNOWN}/events", f"{UNKNOWN}?version=1"):
        assert (await api.get(f"/api/v1/tasks/{path}")).status_code == 404


async def test_a_failed_task_is_sent_round_again(
    api: httpx2.AsyncClient, ledger: LettingGo, projection: Projection | None, store: LaterStore
):
    task = await submitted(api)
    await start(store, task["id"])
    await fail(store, task["id"])
    await evict(ledger, projection)
    path = f"/api/v1/tasks/{task['id']}"

    stale = await api.post(f"{path}/retry", headers={"If-Match": '"1"'})
    refused = await api.put(f"{path}/progress", json={"progress": 10})
    retried = await api.post(f"{path}/retry", headers={"If-Match": '"4"'})

    assert stale.status_code == 409
    assert refused.json()["code"] == "TASK_NOT_PROCESSING"
    assert retried.status_code == 200
    assert retried.json()["status"] == "queued"
    assert retried.json()["version"] == 5
    assert retried.json()["queue_position"] == 1
    events = (await api.get(f"{path}/events")).json()["events"]
    assert [event["version"] for event in events] == [1, 2, 3, 4, 5]


async def test_a_finished_task_cannot_be_canceled(
    api: httpx2.AsyncClient, ledger: LettingGo, projection: Projection | None, store: LaterStore
):
    task = await submitted(api)
    await start(store, task["id"])
    await complete(store, task["id"])
    await evict(ledger, projection)

    answer = await api.delete(f"/api/v1/tasks/{task['id']}")

    assert answer.status_code == 409
    assert answer.json()["code"] == "TASK_NOT_CANCELABLE"


async def test_a_key_gives_the_same_task_however_late(
    api: httpx2.AsyncClient, ledger: LettingGo, projection: Projection | None, store: LaterStore
):
    key = {"Idempotency-Key": "order-17"}
    sent: dict[str, Any] = {"task_type": "health_check", "kb_id": "kb", "payload": {}}
    first = await api.post("/api/v1/tasks", json=sent, headers=key)
    await start(store, first.json()["id"])
    await complete(store, first.json()["id"])
    await evict(ledger, projection)

    again = await api.post("/api/v1/tasks", json=sent, headers=key)
    other = await api.post("/api/v1/tasks", json={**sent, "priority": "high"}, headers=key)
    fresh = await api.post("/api/v1/tasks", json=sent, headers={"Idempotency-Key": "order-18"})

    assert again.status_code == 200
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["status"] == "completed"
    assert other.json()["code"] == "IDEMPOTENCY_CONFLICT"
    assert fresh.status_code == 201


async def test_a_key_of_a_batch_too(
    api: httpx2.AsyncClient, ledger: LettingGo, projection: Projection | None, store: LaterStore
):
    key = {"Idempotency-Key": "night-1"}
    sent = [{"task_type": "health_check", "kb_id": "kb", "payload": {"n": n}} for n in range(3)]
    first = (await api.post("/api/v1/tasks/batch", json=sent, headers=key)).json()["tasks"]
    for task in first:
        await start(store, task["id"])
        await complete(store, task["id"])
    await evict(ledger, projection)

    again = await api.post("/api/v1/tasks/batch", json=sent, headers=key)

    assert again.status_code == 200
    assert [task["id"] for task in again.json()["tasks"]] == [task["id"] for task in first]


async def test_many_failed_tasks_are_sent_round_again(
    api: httpx2.AsyncClient, ledger: LettingGo, store: LaterStore, settings: Settings
):
    projection = Projection(store, settings.read_model_folder)
    for _ in range(5):
        task = await submitted(api)
        await start(store, task["id"])
        await fail(store, task["id"])
    await evict(ledger, projection)
    projection.close()

    answer = await api.post("/api/v1/dead-letters/retry", json={})

    assert answer.json()["retried"] == 5


async def test_searches_for_nothing_wait_for_their_turn(
    api: httpx2.AsyncClient,
    ledger: LettingGo,
    store: LaterStore,
    monkeypatch: pytest.MonkeyPatch,
):
    task = await submitted(api)
    await start(store, task["id"])
    await complete(store, task["id"])
    await evict(ledger, None)
    monkeypatch.setattr("ledger.archive.evicted.LOOKS_WAITING_MAX", 5)
    at_once, most, full, gate = 0, 0, asyncio.Event(), asyncio.Event()
    history = SealedLog.history

    async def slow(self: SealedLog, task_id: str) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 4:
            full.set()
        await gate.wait()
        at_once -= 1
        return await history(self, task_id)

    monkeypatch.setattr(SealedLog, "history", slow)
    ids = [f"01996abc-2400-7000-8000-0000000001{n:02}" for n in range(12)]
    asking = [asyncio.create_task(api.get(f"/api/v1/tasks/{each}")) for each in ids]
    refused = asyncio.as_completed(asking)
    codes = [(await next(refused)).status_code for _ in range(3)]
    await full.wait()
    gate.set()
    answers = [await each for each in asking]

    assert codes == [503] * 3
    assert sorted(answer.status_code for answer in answers) == [404] * 9 + codes
    assert most == 4


async def test_what_is_known_not_to_be_there_is_not_read_again(
    api: httpx2.AsyncClient, ledger: LettingGo, store: LaterStore, monkeypatch: pytest.MonkeyPatch
):
    task = await submitted(api)
    await start(store, task["id"])
    await complete(store, task["id"])
    await evict(ledger, None)
    assert (await api.get(f"/api/v1/tasks/{UNKNOWN}")).status_code == 404

    async def away(self: Archive, partition: int) -> None:
        raise ObjectStoreError("away")

    monkeypatch.setattr(Archive, "log", away)

    assert (await api.get(f"/api/v1/tasks/{UNKNOWN}")).status_code == 404
    assert (await api.get(f"/api/v1/tasks/{UNKNOWN}/events")).status_code == 404


@pytest.mark.parametrize("path", ["", "/events"])
async def test_an_archive_that_is_away_is_no_404(
    api: httpx2.AsyncClient,
    ledger: LettingGo,
    store: LaterStore,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
):
    task = await submitted(api)
    await start(store, task["id"])
    await complete(store, task["id"])
    await evict(ledger, None)

    async def away(self: LocalFolder, key: str) -> bytes:
        raise ObjectStoreError("the bucket is away")

    monkeypatch.setattr(LocalFolder, "read", away)
    answer = await api.get(f"/api/v1/tasks/{task['id']}{path}")

    assert answer.status_code == 503
    assert "the bucket is away" in answer.json()["message"]


async def test_an_archive_whose_folder_is_gone_is_no_404(
    api: httpx2.AsyncClient,
    ledger: LettingGo,
    projection: Projection | None,
    store: LaterStore,
    settings: Settings,
):
    # given an evicted task, and one whose first events left the stream alone
    gone, left = [(await submitted(api))["id"] for _ in range(2)]
    for each in (gone, left):
        await start(store, each)
    await complete(store, gone)
    await let_go(ledger, projection)
    await complete(store, left)
    # when the archive's folder is empty, as where nothing is mounted
    folder = settings.data_dir + "/objects"
    await asyncio.to_thread(shutil.rmtree, folder)
    # then no history is taken for all there was
    for path in (f"{gone}/events", f"{gone}?version=1", f"{left}/events", f"{left}?version=1"):
        answer = await api.get(f"/api/v1/tasks/{path}")
        assert answer.status_code == 503, path
        assert "the archive cannot be read now" in answer.json()["message"]


async def test_a_read_model_knows_what_it_let_go_of(
    api: httpx2.AsyncClient,
    ledger: LettingGo,
    store: LaterStore,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
):
    """Of ids made of keys, whichever were there; of others, when they were made."""
    projection = Projection(store, settings.read_model_folder)
    key = {"Idempotency-Key": "order-17"}
    sent: dict[str, Any] = {"task_type": "health_check", "kb_id": "kb", "payload": {}}
    task = (await api.post("/api/v1/tasks", json=sent, headers=key)).json()
    await start(store, task["id"])
    await complete(store, task["id"])
    await evict(ledger, projection)
    projection.evict(store.now_ms())
    projection.close()
    again = await api.post("/api/v1/tasks", json=sent, headers=key)
    assert again.json()["id"] == task["id"]
    assert again.json()["status"] == "completed"

    async def away(self: Archive, partition: int) -> None:
        raise ObjectStoreError("away")

    monkeypatch.setattr(Archive, "log", away)
    other = await api.post("/api/v1/tasks", json=sent, headers={"Idempotency-Key": "order-18"})
    assert other.status_code == 201
    assert (await api.post("/api/v1/tasks", json=sent, headers=key)).status_code == 503
