"""Many tasks are submitted in one request."""

import json
from typing import Any

import httpx2
import pytest

from api.app import create_app
from ledger.redis_store import RedisStore, StoreOptions
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Settings
from ledger.store import Append, Outcome, Position
from tests.api.requests import BATCH, TASKS, body, post_raw, state_of, submitted

KEY = {"Idempotency-Key": "import 7"}


def bodies(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [body(payload={"n": n}, **fields) for n in range(count)]


async def test_a_batch_creates_its_tasks_in_order(api: httpx2.AsyncClient):
    answer = await api.post(BATCH, json=bodies(3))

    created = answer.json()
    assert answer.status_code == 201
    assert created["count"] == 3
    assert [task["payload"] for task in created["tasks"]] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert sorted(task["queue_position"] for task in created["tasks"]) == [1, 2, 3]


async def test_a_thousand_tasks_fit_in_a_batch(api: httpx2.AsyncClient, store: RedisStore):
    answer = await api.post(BATCH, json=bodies(1_000))

    ids = [task["id"] for task in answer.json()["tasks"]]
    assert len(set(ids)) == 1_000
    assert await store.load(ids[-1]) is not None


async def test_the_answer_carries_the_last_position(api: httpx2.AsyncClient, store: RedisStore):
    answer = await api.post(BATCH, json=bodies(300))

    assert answer.headers["ledger-position"] == str(await store.last_position(0))


async def test_the_same_key_and_batch_create_nothing_twice(
    api: httpx2.AsyncClient, store: RedisStore
):
    first = await api.post(BATCH, json=bodies(200), headers=KEY)
    before = await state_of(store)

    again = await api.post(BATCH, json=bodies(200), headers=KEY)

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert await state_of(store) == before


async def test_the_same_key_with_another_batch_creates_nothing(
    api: httpx2.AsyncClient, store: RedisStore
):
    await api.post(BATCH, json=bodies(2), headers=KEY)
    before = await state_of(store)

    other = await api.post(BATCH, json=bodies(300), headers=KEY)

    assert other.status_code == 409
    assert other.json()["code"] == "IDEMPOTENCY_CONFLICT"
    assert await state_of(store) == before


async def test_the_same_key_with_the_items_in_another_order_is_another_batch(
    api: httpx2.AsyncClient, store: RedisStore
):
    ours, theirs = body(kb_id="ours"), body(kb_id="theirs")
    await api.post(BATCH, json=[ours, theirs], headers=KEY)
    before = await state_of(store)

    other = await api.post(BATCH, json=[theirs, ours], headers=KEY)

    assert other.status_code == 409
    assert other.json()["code"] == "IDEMPOTENCY_CONFLICT"
    assert await state_of(store) == before


async def test_a_batch_of_one_and_a_single_task_keep_their_keys_apart(api: httpx2.AsyncClient):
    single = await api.post(TASKS, json=body(), headers=KEY)
    batch = await api.post(BATCH, json=[body()], headers=KEY)

    assert (single.status_code, batch.status_code) == (201, 201)


class FailingStore(RedisStore):
    """Out of reach from the append number `reach` on."""

    reach = 10**9

    async def append(self, step: Append) -> Outcome:
        self.reach -= 1
        if self.reach < 0:
            raise Rejection(RejectionCode.SERVICE_UNAVAILABLE, "out of reach")
        return await super().append(step)


async def test_a_batch_that_is_cut_off_says_what_exists_and_is_sent_again_safely(ledger_url: str):
    store = await FailingStore.open(ledger_url)
    app = create_app(store, Settings())
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        store.reach = 150
        cut_off = await api.post(BATCH, json=bodies(300), headers=KEY)
        store.reach = 10**9
        again = await api.post(BATCH, json=bodies(300), headers=KEY)
    await store.close()

    error = cut_off.json()
    assert cut_off.status_code == 503
    assert cut_off.headers["retry-after"]
    assert error["code"] == "SERVICE_UNAVAILABLE"
    assert (error["details"]["created"], error["details"]["submitted"]) == (150, 300)
    ids = [task["id"] for task in again.json()["tasks"]]
    assert again.status_code == 201
    assert len(set(ids)) == 300
    assert set(error["details"]["task_ids"]) <= set(ids)
    assert all(task["version"] == 1 for task in again.json()["tasks"])


async def test_a_batch_over_partitions_carries_a_position_of_each(ledger_url: str):
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=4))
    transport = httpx2.ASGITransport(app=create_app(store, Settings()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        answer = await api.post(BATCH, json=bodies(100))
    ends = {str(await store.last_position(p)) for p in range(4)}
    await store.close()

    positions = answer.headers["ledger-position"].split(",")
    assert set(positions) == ends
    assert {Position.parse(p).partition for p in positions} == {0, 1, 2, 3}


async def test_a_queue_that_fills_up_on_the_way_lists_what_exists(
    store: RedisStore,
):
    app = create_app(store, Settings(queue_tasks_max=5))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        answer = await api.post(BATCH, json=bodies(8))

    assert answer.status_code == 503
    assert answer.json()["code"] == "QUEUE_FULL"
    assert answer.json()["details"]["created"] == 5


async def test_payloads_keep_their_bytes(api: httpx2.AsyncClient):
    item = b'{"task_type":"health_check","kb_id":"k","payload": {"x" :1.0e0,"x":2} }'

    answer = await post_raw(api, BATCH, b"[" + item + b",\n" + item + b"]")

    assert answer.content.count(b'"payload":{"x" :1.0e0,"x":2},') == 2


async def test_items_may_differ(api: httpx2.AsyncClient):
    mixed = [body(priority="low"), body(task_type="health_check", kb_id="kb-2", metadata={"a": 1})]

    tasks = (await api.post(BATCH, content=json.dumps(mixed).encode())).json()["tasks"]

    assert [task["priority"] for task in tasks] == ["low", "normal"]
    assert [task["kb_id"] for task in tasks] == ["kb-1", "kb-2"]
    assert (await submitted(api))["queue_position"] == 1


@pytest.mark.parametrize("at", [0, 999])
async def test_one_bad_item_among_a_thousand_is_found(
    api: httpx2.AsyncClient, store: RedisStore, at: int
):
    before = await state_of(store)
    batch = bodies(1_000)
    batch[at]["timeout"] = 0

    answer = await api.post(BATCH, json=batch)

    assert answer.json()["details"]["index"] == at
    assert await state_of(store) == before
