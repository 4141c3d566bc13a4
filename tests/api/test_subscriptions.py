"""GET /api/v1/subscriptions, and what /metrics say of subscriptions."""

import httpx2

from ledger.keys import PartitionKeys
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.subscriptions import Checkpoint, Filters, Group
from tests.api.requests import TASKS, body

SUBSCRIPTIONS = "/api/v1/subscriptions"


async def a_group(store: RedisStore) -> RedisSubscriptions:
    subscriptions = RedisSubscriptions(store.client, 1, 5_000)
    group = Group("g1", "epoch", 1_763_811_000_123, Filters(types=("TaskFailed",)), (Checkpoint(),))
    await subscriptions.register("billing", group)
    return subscriptions


async def test_nobody_follows(api: httpx2.AsyncClient):
    answer = await api.get(SUBSCRIPTIONS)

    assert answer.json()["subscriptions"] == []
    assert answer.json()["trimming"] == [{"partition": 0, "up_to": "0:0-0", "held_by": []}]


async def test_a_subscription_is_listed(api: httpx2.AsyncClient, store: RedisStore):
    await a_group(store)
    await api.post(TASKS, json=body())

    listed = (await api.get(SUBSCRIPTIONS)).json()

    assert listed["subscriptions"] == [
        {
            "group": "billing",
            "foreign": False,
            "created_at": "2025-11-22T11:30:00.123Z",
            "filters": {"types": ["TaskFailed"], "kb_ids": [], "task_types": [], "task_ids": []},
            "members": [],
            "lag_events": 1,
            "overdue": False,
            "halted": None,
            "partitions": [{"partition": 0, "position": "0:0-0", "lag_events": 1, "member": None}],
        }
    ]
    assert listed["trimming"][0]["held_by"] == ["billing"]


async def test_a_group_of_another_client_is_listed(api: httpx2.AsyncClient, store: RedisStore):
    await api.post(TASKS, json=body())
    await send(store.client, ("XGROUP", "CREATE", PartitionKeys(0).events, "theirs", "0"))

    [listed] = (await api.get(SUBSCRIPTIONS)).json()["subscriptions"]

    assert (listed["group"], listed["foreign"], listed["filters"]) == ("XGROUP theirs", True, None)
    assert listed["lag_events"] == 1


async def test_metrics_tell_lag_and_alarms(api: httpx2.AsyncClient, store: RedisStore):
    subscriptions = await a_group(store)
    await api.post(TASKS, json=body())

    samples = (await api.get("/metrics")).text

    assert 'subscription_lag_events{group="billing"} 1.0' in samples
    assert 'subscription_members{group="billing"} 0.0' in samples
    assert 'subscription_halted{group="billing"} 0.0' in samples
    assert 'subscription_overdue{group="billing"} 0.0' in samples
    await subscriptions.claim(0, "billing/g1", "m1", 1_000, Checkpoint())
    await subscriptions.halt(0, "billing/g1", 1, "it went back")
    assert 'subscription_halted{group="billing"} 1.0' in (await api.get("/metrics")).text
