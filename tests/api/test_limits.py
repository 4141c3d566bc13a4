"""Limits on what runs at once: set, changed, listed and removed."""

from urllib.parse import quote

import httpx2
import pytest

from api.app import create_app
from ledger.codec import Meta
from ledger.identity import SYSTEM
from ledger.redis_store import RedisStore, StoreOptions
from ledger.settings import Settings
from ledger.system import decide
from ledger.system.commands import SetLimit
from ledger.system.events import LimitRemoved, LimitScope, LimitSet
from ledger.system.transact import transact_system
from tests.api.requests import JSON, TASKS, start, submitted
from tests.contracts.store import a_report

TYPE = "document_processing"
LIMITS = "/api/v1/limits"
OF_TYPE, OF_KB = f"{LIMITS}/types/{TYPE}", f"{LIMITS}/kbs/kb-1"


async def test_a_type_is_limited_and_freed(api: httpx2.AsyncClient, store: RedisStore):
    was_set = await api.put(OF_TYPE, json={"limit": 4}, headers={"x-actor": "ann"})
    held = await store.limits_held(0)
    removed = await api.delete(OF_TYPE)

    assert was_set.json() == {"task_type": TYPE, "limit": 4, "admitted": 0}
    assert held == {(LimitScope.TYPE, TYPE): 4}
    assert removed.json() == {"task_type": TYPE, "limit": None, "admitted": 0}
    assert removed.headers["ledger-position"] == str(await store.last_position(0))
    assert await store.limits_held(0) == {}
    assert [e.system_event() for e in await store.history(SYSTEM)] == [
        LimitSet(LimitScope.TYPE, TYPE, 4),
        LimitRemoved(LimitScope.TYPE, TYPE),
    ]


@pytest.mark.parametrize("kb_id", ["kb-1", "a/b", "100 %", "ü:ñ", "?x=1#y", "kb:type:x"])
async def test_a_knowledge_base_of_any_name_is_limited(
    api: httpx2.AsyncClient, store: RedisStore, kb_id: str
):
    path = f"{LIMITS}/kbs/{quote(kb_id, safe='')}"

    was_set = await api.put(path, json={"limit": 2})
    held = await store.limits_held(0)
    await api.delete(path)

    assert was_set.json() == {"kb_id": kb_id, "limit": 2, "admitted": 0}
    assert held == {(LimitScope.KB, kb_id): 2}
    assert (await store.load_system()).state.kb_limits == {}


async def test_all_limits_are_listed_with_what_is_admitted(
    api: httpx2.AsyncClient, store: RedisStore
):
    await api.put(OF_TYPE, json={"limit": 4})
    await api.put(OF_KB, json={"limit": 3})
    await api.put(f"{LIMITS}/kbs/another", json={"limit": 1})
    running = await submitted(api, kb_id="kb-1")
    await start(store, running["id"])
    await submitted(api, kb_id="kb-1")

    listed = await api.get(LIMITS)

    assert listed.json() == {
        "types": [{"task_type": TYPE, "limit": 4, "admitted": 2}],
        "kbs": [
            {"kb_id": "another", "limit": 1, "admitted": 0},
            {"kb_id": "kb-1", "limit": 3, "admitted": 2},
        ],
    }


async def test_a_limit_that_is_so_already_writes_nothing(
    api: httpx2.AsyncClient, store: RedisStore
):
    first = await api.put(OF_KB, json={"limit": 3})
    again = await api.put(OF_KB, json={"limit": 3.0})
    await api.delete(OF_KB)
    gone = await api.delete(OF_KB)

    assert again.json() == first.json()
    assert ["ledger-position" in a.headers for a in (first, again, gone)] == [True, False, False]
    assert (gone.status_code, gone.json()["limit"]) == (200, None)
    assert await store.system_version() == 2


async def test_what_was_recorded_and_not_spread_is_spread_by_the_same_request(
    api: httpx2.AsyncClient, store: RedisStore
):
    await transact_system(store, SetLimit(LimitScope.TYPE, TYPE, 4), Meta("ann"))

    await api.put(OF_TYPE, json={"limit": 4})

    assert await store.limits_held(0) == {(LimitScope.TYPE, TYPE): 4}


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b'{"limit": 0}', "limit"),
        (b'{"limit": 100001}', "limit"),
        (b'{"limit": 1.5}', "limit"),
        (b'{"limit": null}', "limit"),
        (b"{}", "limit"),
        (b'{"limit": 1, "x": 1}', "x"),
        (b"", "body"),
    ],
)
@pytest.mark.parametrize("path", [OF_TYPE, OF_KB])
async def test_a_wrong_limit_is_refused_by_its_field(
    api: httpx2.AsyncClient, store: RedisStore, path: str, content: bytes, field: str
):
    answer = await api.put(path, content=content, headers=JSON)

    assert (answer.status_code, answer.json()["details"]["field"]) == (400, field)
    assert await store.system_version() == 0


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("types/nonsense", "task_type"),
        ("kbs/", "kb_id"),
        ("kbs/a%00b", "kb_id"),
        ("kbs/" + "x" * 256, "kb_id"),
    ],
)
async def test_a_name_that_cannot_be_is_refused(
    api: httpx2.AsyncClient, method: str, path: str, field: str
):
    content = b'{"limit": 1}' if method == "PUT" else b""
    answer = await api.request(method, f"{LIMITS}/{path}", content=content, headers=JSON)

    assert (answer.status_code, answer.json()["details"]["field"]) == (400, field)


async def test_there_is_a_bound_on_limited_knowledge_bases(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decide, "LIMITS_MAX", 1)
    await api.put(OF_KB, json={"limit": 1})

    answer = await api.put(f"{LIMITS}/kbs/another", json={"limit": 1})

    assert (answer.status_code, answer.json()["code"]) == (409, "TOO_MANY_LIMITS")
    assert answer.json()["details"] == {"kb_id": "another"}


async def test_a_limit_is_the_reason_for_waiting(api: httpx2.AsyncClient, store: RedisStore):
    await store.announce(a_report(concurrency=4))
    await api.put(OF_KB, json={"limit": 1})
    first, second = await submitted(api, kb_id="kb-1"), await submitted(api, kb_id="kb-1")
    free = await submitted(api, kb_id="kb-2")

    reasons = [
        (await api.get(f"{TASKS}/{task['id']}/explain")).json()["reasons"]
        for task in (first, second, free)
    ]

    codes = [[reason["code"] for reason in of_one] for of_one in reasons]
    assert "limited" not in codes[0] + codes[2]
    limited = reasons[1][0]
    assert (limited["code"], limited["scope"], limited["name"]) == ("limited", "kb", "kb-1")
    assert (limited["limit"], limited["admitted"]) == (1, 1)


async def test_the_first_limit_may_rest_on_there_being_none(api: httpx2.AsyncClient):
    seen = (await api.get(LIMITS)).headers["etag"]

    first = await api.put(OF_KB, json={"limit": 1}, headers={"if-match": seen})
    second = await api.put(OF_TYPE, json={"limit": 1}, headers={"if-match": seen})

    assert (seen, first.headers["etag"]) == ('"0"', '"1"')
    assert second.status_code == 409


async def test_the_share_of_a_partition_is_the_reason_for_waiting(
    ledger_url: str, settings: Settings
):
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=2))
    app = create_app(store, settings)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        await api.put(OF_KB, json={"limit": 4})
        ids = [(await submitted(api, kb_id="kb-1"))["id"] for _ in range(40)]
        here = [task_id for task_id in ids if store.partition_of(task_id) == 0][-1]
        for other in (i for i in ids if store.partition_of(i) == 1):
            await api.delete(f"{TASKS}/{other}")
        limited = (await api.get(f"{TASKS}/{here}/explain")).json()["reasons"]
        [total] = await store.admitted(LimitScope.KB, ["kb-1"])
    await app.close()
    await store.close()

    told = next(reason for reason in limited if reason["code"] == "limited")
    assert total == 2
    assert (told["limit"], told["share"], told["admitted"]) == (4, 2, 2)
    assert "(2 in the task's partition), and 2 run or are next there" in told["message"]


async def test_every_partition_holds_its_share(ledger_url: str, settings: Settings):
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=3))
    app = create_app(store, settings)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        await api.put(OF_TYPE, json={"limit": 7})
        await api.put(OF_KB, json={"limit": 1})

    for partition in range(3):
        assert await store.limits_held(partition) == {
            (LimitScope.TYPE, TYPE): 3,
            (LimitScope.KB, "kb-1"): 1,
        }
    await app.close()
    await store.close()
