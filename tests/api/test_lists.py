"""GET /api/v1/tasks, /api/v1/stats/tasks and /api/v1/queues/info, as callers use them."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.api.reading import Projection
from tests.api.requests import TASKS, body, complete, fail, start, submitted

STATS = "/api/v1/stats/tasks"
QUEUES = "/api/v1/queues/info"
WAIT_MS = 500


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A read model of the test's own, and little patience with it."""
    return Settings(read_model_dir=str(tmp_path / "read-model"), read_wait_ms=WAIT_MS)


async def ids(api: httpx2.AsyncClient, **query: Any) -> list[str]:
    """The ids of a page."""
    answer = await api.get(TASKS, params=query)
    assert answer.status_code == 200, answer.text
    return [task["id"] for task in answer.json()["tasks"]]


# -- what is listed ---------------------------------------------------------------------------


async def test_a_listed_task_is_the_task_itself(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    raw = b'{"task_type":"health_check","kb_id":"k","payload":{ "n":1.50, "e":"\\u00e9" }}'
    created = await api.post(TASKS, content=raw, headers={"content-type": "application/json"})
    await complete(store, created.json()["id"], b'{"r": [1.0,2]}')
    await projection.catch_up()

    listed = await api.get(TASKS)
    alone = await api.get(f"{TASKS}/{created.json()['id']}")

    assert alone.content in listed.content
    assert listed.json()["pagination"] == {
        "page": 1,
        "page_size": 20,
        "total": 1,
        "total_pages": 1,
        "next_cursor": None,
    }


async def test_filters_are_all_to_be_satisfied(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    wanted = await submitted(api, kb_id="a", priority="high", task_type="batch_processing")
    other = await submitted(api, kb_id="b", priority="high")
    await submitted(api, kb_id="a")
    await submitted(api, kb_id="c", priority="low")
    await fail(store, wanted["id"], "Connection REFUSED by the vector store")
    await projection.catch_up()

    assert await ids(api, kb_id="a,b", priority="high,critical") == [other["id"], wanted["id"]]
    assert await ids(api, kb_id="a", status="failed,canceled") == [wanted["id"]]
    assert await ids(api, task_type="batch_processing", worker_id="worker-1") == [wanted["id"]]
    assert await ids(api, q="refused BY", created_after="1h") == [wanted["id"]]
    assert await ids(api, kb_id="a", priority="low") == []
    assert await ids(api, created_before="1h") == []


async def test_a_comma_of_a_value_stands_behind_a_backslash(
    api: httpx2.AsyncClient, projection: Projection
):
    one = await submitted(api, kb_id="x,y")
    await submitted(api, kb_id="x")
    await projection.catch_up()

    assert await ids(api, kb_id=r"x\,y") == [one["id"]]


async def test_a_backslash_of_a_value_may_stand_behind_another(
    api: httpx2.AsyncClient, projection: Projection
):
    one = await submitted(api, kb_id="x\\")
    two = await submitted(api, kb_id="y\\z")
    await projection.catch_up()

    assert await ids(api, kb_id=r"x\\,y\z") == [two["id"], one["id"]]
    assert await ids(api, kb_id=r"y\\z") == [two["id"]]


async def test_times_are_themselves_outside(api: httpx2.AsyncClient, projection: Projection):
    task = await submitted(api)
    await projection.catch_up()
    at = task["created_at"]
    within_the_ms = at.replace("Z", "5Z")

    assert await ids(api, created_after=at) == await ids(api, created_before=at) == []
    assert await ids(api, created_before=within_the_ms) == [task["id"]]
    assert await ids(api, created_after=within_the_ms) == []


async def test_waiting_tasks_tell_their_position(api: httpx2.AsyncClient, projection: Projection):
    for _ in range(3):
        await submitted(api)
    later = await submitted(api, schedule_for="2100-01-01T00:00:00Z")
    await projection.catch_up()

    answer = await api.get(TASKS, params={"sort_order": "asc"})

    assert [task["queue_position"] for task in answer.json()["tasks"]] == [1, 2, 3, 0]
    assert answer.json()["tasks"][3]["id"] == later["id"]


async def test_a_cursor_goes_on_where_it_was_whatever_came_meanwhile(
    api: httpx2.AsyncClient, projection: Projection
):
    tasks = [(await submitted(api))["id"] for _ in range(5)]
    await projection.catch_up()
    first = (await api.get(TASKS, params={"page_size": 2, "created_after": "1h"})).json()
    await submitted(api)
    await projection.catch_up()

    cursor = first["pagination"]["next_cursor"]
    after = {"page_size": 3, "created_after": "1h", "cursor": cursor}
    second = (await api.get(TASKS, params=after)).json()

    assert [task["id"] for task in first["tasks"]] == tasks[:2:-1]
    assert [task["id"] for task in second["tasks"]] == tasks[2::-1]
    assert second["pagination"]["page"] is None
    assert second["pagination"]["next_cursor"] is None


# -- what is refused --------------------------------------------------------------------------

REFUSED = {
    "page=0": "page",
    "page=-1": "page",
    "page=1.5": "page",
    "page_size=101": "page_size",
    "page_size=0": "page_size",
    "sort_by=size": "sort_by",
    "sort_order=up": "sort_order",
    "colour=red": "colour",
    "status=queued,lost": "status",
    "status=queued,": "status",
    "status=": "status",
    "task_type=odd": "task_type",
    "priority=urgent": "priority",
    "kb_id=a&kb_id=b": "kb_id",
    "kb_id=" + "x" * 256: "kb_id",
    "kb_id=" + ",".join(map(str, range(51))): "kb_id",
    "created_after=1x": "created_after",
    "created_after=2030-01-31": "created_after",
    "created_before=2030-01-31T09:30:00": "created_before",
    "created_after=1h&created_before=2h": "created_after",
    "created_after=2030-01-01T00:00:00Z&created_before=2030-01-01T00:00:00Z": "created_after",
    "q=": "q",
    "q=" + "x" * 201: "q",
    "cursor=": "cursor",
    "cursor=AAAA": "cursor",
    "cursor=%F0%9F%99%82": "cursor",
    "cursor=AAAA&page=1": "page",
}


@pytest.mark.parametrize(("query", "field"), REFUSED.items())
async def test_a_bad_list_is_refused_by_its_field(
    api: httpx2.AsyncClient, projection: Projection, query: str, field: str
):
    answer = await api.get(f"{TASKS}?{query}")

    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert answer.json()["details"]["field"] == field
    assert field in answer.json()["message"]


async def a_cursor(api: httpx2.AsyncClient, projection: Projection) -> str:
    """Of the list of knowledge base a, one task a page."""
    for _ in range(2):
        await submitted(api, kb_id="a")
    await projection.catch_up()
    answer = await api.get(TASKS, params={"kb_id": "a", "page_size": 1})
    return answer.json()["pagination"]["next_cursor"]


@pytest.mark.parametrize(
    "other", [{"kb_id": "b"}, {"sort_order": "asc"}, {"sort_by": "status"}, {"q": "x"}]
)
async def test_a_cursor_of_another_list_is_refused(
    api: httpx2.AsyncClient, projection: Projection, other: dict[str, str]
):
    cursor = await a_cursor(api, projection)

    answer = await api.get(TASKS, params={"kb_id": "a", "cursor": cursor, **other})

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == "cursor"
    assert "another order" in answer.json()["message"]


async def test_a_cursor_is_of_the_same_list_in_whatever_order_its_values_are(
    api: httpx2.AsyncClient, projection: Projection
):
    for kb_id in "ab":
        await submitted(api, kb_id=kb_id)
    await projection.catch_up()
    first = (await api.get(TASKS, params={"kb_id": "a,b", "page_size": 1})).json()
    cursor = first["pagination"]["next_cursor"]

    found = [await ids(api, kb_id=same, cursor=cursor) for same in ("a,b", "b,a", "b,a,b")]

    assert found[0] == found[1] == found[2] != []


async def test_too_many_values_are_told_how_many_may_be(
    api: httpx2.AsyncClient, projection: Projection
):
    answer = await api.get(TASKS, params={"kb_id": ",".join(map(str, range(51)))})

    assert answer.json()["details"]["expected"].endswith("separated by commas, at most 50")


async def test_a_forged_cursor_is_refused(api: httpx2.AsyncClient, projection: Projection):
    cursor = await a_cursor(api, projection)

    for place in range(len(cursor)):
        letter = "A" if cursor[place] != "A" else "B"
        forged = cursor[:place] + letter + cursor[place + 1 :]
        answer = await api.get(TASKS, params={"kb_id": "a", "cursor": forged})
        assert (answer.status_code, answer.json()["details"].get("field")) == (400, "cursor")


# -- what was written before ------------------------------------------------------------------


async def test_a_list_waits_for_what_was_written_before(
    api: httpx2.AsyncClient, projection: Projection
):
    await projection.catch_up()
    task = await submitted(api)

    listing = asyncio.create_task(api.get(TASKS))
    stats = asyncio.create_task(api.get(STATS))
    queues = asyncio.create_task(api.get(QUEUES))
    await asyncio.sleep(0)
    await projection.catch_up()

    assert [t["id"] for t in (await listing).json()["tasks"]] == [task["id"]]
    assert (await stats).json()["total_tasks"] == (await queues).json()["queue_size"] == 1
    assert "projection-lag" not in (await listing).headers


async def test_an_old_answer_says_that_it_is_old(api: httpx2.AsyncClient, projection: Projection):
    await projection.catch_up()
    await submitted(api)

    answer = await api.get(TASKS)

    assert answer.json()["total"] == 0
    assert int(answer.headers["projection-lag"]) > 0
    assert answer.headers["ledger-position"] == "0:0-0"


async def test_an_old_answer_is_no_answer_to_who_insists(
    api: httpx2.AsyncClient, projection: Projection
):
    await projection.catch_up()
    position = (await api.post(TASKS, json=body())).headers["ledger-position"]

    too_soon = await api.get(TASKS, headers={"ledger-position": position})
    await projection.catch_up()
    in_time = await api.get(TASKS, headers={"ledger-position": position})

    assert too_soon.status_code == 503
    assert too_soon.json()["code"] == "SERVICE_UNAVAILABLE"
    assert too_soon.headers["retry-after"] == "1"
    assert (in_time.status_code, in_time.json()["total"]) == (200, 1)


@pytest.mark.parametrize("position", ["nonsense", "7:1-0", "0:1-0,0:2-0", "0:1"])
async def test_a_malformed_position_is_refused(
    api: httpx2.AsyncClient, projection: Projection, position: str
):
    answer = await api.get(STATS, headers={"ledger-position": position})

    assert (answer.status_code, answer.json()["details"]["field"]) == (400, "Ledger-Position")


# -- a read model that cannot be asked --------------------------------------------------------


async def assert_only_lists_fail(api: httpx2.AsyncClient, task_id: str) -> None:
    """Lists, statistics and queues are 503, and a single task is there."""
    for path in (TASKS, STATS, QUEUES):
        answer = await api.get(path)
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "SERVICE_UNAVAILABLE"
        assert "read model" in answer.json()["message"]
        assert answer.headers["retry-after"] == "1"
    assert (await api.get(f"{TASKS}/{task_id}")).status_code == 200


async def test_without_a_read_model_only_lists_fail(
    api: httpx2.AsyncClient, projection: Projection
):
    task = await submitted(api)
    await assert_only_lists_fail(api, task["id"])

    await projection.catch_up()

    assert await ids(api) == [task["id"]]


async def test_with_a_damaged_read_model_only_lists_fail(
    api: httpx2.AsyncClient, projection: Projection
):
    task = await submitted(api)
    await projection.catch_up()
    projection.close()
    projection.path.write_bytes(b"no database at all" * 1_000)

    await assert_only_lists_fail(api, task["id"])


async def test_a_row_that_cannot_be_read_makes_the_list_unavailable(
    api: httpx2.AsyncClient, projection: Projection
):
    task = await submitted(api)
    await projection.catch_up()
    projection.close()
    with sqlite3.connect(projection.path) as db:
        db.execute("UPDATE tasks SET state = X'7B22'")
    db.close()

    listed = await api.get(TASKS)

    assert (listed.status_code, listed.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "ledgerq rebuild" in listed.json()["message"]
    assert (await api.get(f"{TASKS}/{task['id']}")).status_code == 200


async def test_with_a_locked_read_model_only_lists_fail(
    api: httpx2.AsyncClient, projection: Projection
):
    task = await submitted(api)
    await projection.catch_up()
    projection.close()
    holder = sqlite3.connect(projection.path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")

    await assert_only_lists_fail(api, task["id"])
    holder.close()

    assert await ids(api) == [task["id"]]


async def test_a_read_model_of_another_ledger_is_not_asked(
    api: httpx2.AsyncClient, projection: Projection
):
    task = await submitted(api)
    await projection.catch_up()
    projection.close()
    with sqlite3.connect(projection.path) as db:
        db.execute("UPDATE facts SET value = 'another' WHERE name = 'epoch'")
    db.close()

    await assert_only_lists_fail(api, task["id"])


async def test_readers_follow_the_file_that_is_current(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection, tmp_path: Path
):
    task = await submitted(api)
    await projection.catch_up()
    assert await ids(api) == [task["id"]]
    other = Projection(store, tmp_path / "other")
    await submitted(api)
    await other.catch_up()
    other.close()
    projection.close()

    other.path.rename(projection.folder / "read-model-7.sqlite3")
    (projection.folder / "current").write_text("read-model-7.sqlite3\n")

    assert len(await ids(api)) == 2


# -- statistics and queues --------------------------------------------------------------------


async def test_statistics_count_and_rate(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    tasks = [await submitted(api, kb_id="a", priority="high") for _ in range(3)]
    await submitted(api, kb_id="b")
    await complete(store, tasks[0]["id"])
    await complete(store, tasks[1]["id"])
    await fail(store, tasks[2]["id"])
    await projection.catch_up()

    of_a = (await api.get(STATS, params={"kb_id": "a"})).json()
    of_all = (await api.get(STATS)).json()
    of_none = (await api.get(STATS, params={"kb_id": "c"})).json()

    assert (of_a["total_tasks"], of_a["completed_tasks"], of_a["failed_tasks"]) == (3, 2, 1)
    assert of_a["success_rate"] == 66.7
    assert of_a["avg_process_time"] >= 0
    assert of_a["type_breakdown"] == {"document_processing": 3}
    assert of_a["priority_breakdown"] == {"critical": 0, "high": 3, "normal": 0, "low": 0}
    assert of_all["status_breakdown"]["queued"] == of_all["queued_tasks"] == 1
    assert (of_none["success_rate"], of_none["avg_process_time"]) == (0, None)


async def test_queues_tell_what_waits_and_runs(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    first = await submitted(api, priority="high")
    await submitted(api, priority="high")
    await submitted(api, priority="high", schedule_for="2100-01-01T00:00:00Z")
    await submitted(api, task_type="health_check")
    await start(store, first["id"])
    await projection.catch_up()

    high = (await api.get(QUEUES, params={"priority": "high"})).json()
    typed = (await api.get(QUEUES, params={"task_type": "health_check"})).json()
    every = (await api.get(QUEUES)).json()

    assert (high["queue_key"], high["queue_size"]) == ("task_queue:high", 1)
    assert (high["delayed"], high["processing"]) == (1, 1)
    assert typed["queue_key"] == "task_queue:health_check"
    assert "queues" not in typed
    assert (every["queue_key"], every["queue_size"]) == ("task_queue", 2)
    rows = {(row["task_type"], row["priority"]): row for row in every["queues"]}
    assert len(rows) == len(every["queues"]) == 24
    row = rows["document_processing", "high"]
    assert (row["size"], row["delayed"], row["processing"]) == (1, 1, 1)
    assert row["oldest_age_seconds"] >= 0
    assert rows["batch_processing", "low"]["oldest_age_seconds"] is None


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{STATS}?page=1", "page"),
        (f"{STATS}?created_after=soon", "created_after"),
        (f"{STATS}?task_type=odd", "task_type"),
        (f"{QUEUES}?priority=high,low", "priority"),
        (f"{QUEUES}?task_type=odd", "task_type"),
        (f"{QUEUES}?kb_id=a", "kb_id"),
    ],
)
async def test_a_bad_question_is_refused_by_its_field(
    api: httpx2.AsyncClient, projection: Projection, path: str, field: str
):
    answer = await api.get(path)

    assert (answer.status_code, answer.json()["details"]["field"]) == (400, field)
