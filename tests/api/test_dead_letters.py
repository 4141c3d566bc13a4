"""GET /api/v1/dead-letters: failed tasks by the way in which they failed."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from ledger.commands import RetryTask
from ledger.events import ErrorKind
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from projections.fingerprint import fingerprint
from tests.api.reading import Projection
from tests.api.requests import TASKS, do, fail, submitted

DEAD_LETTERS = "/api/v1/dead-letters"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A read model of the test's own, and little patience with it."""
    return Settings(read_model_dir=str(tmp_path / "read-model"), read_wait_ms=500)


async def failed(
    api: httpx2.AsyncClient, store: RedisStore, message: str, **fields: Any
) -> dict[str, Any]:
    """A task that failed for good."""
    task = await submitted(api, **fields)
    await fail(store, task["id"], message)
    answer = await api.get(f"{TASKS}/{task['id']}")
    return answer.json()


async def groups(api: httpx2.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await api.get(DEAD_LETTERS, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_failures_are_grouped_by_what_they_have_in_common(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    first = await failed(api, store, "no such file: /a/1.pdf", kb_id="a")
    second = await failed(api, store, "no such file: /b.pdf", kb_id="b")
    other = await failed(api, store, "the model is gone", kb_id="a")
    await submitted(api)
    await projection.catch_up()

    found = await groups(api)

    name = fingerprint("document_processing", ErrorKind.PERMANENT, "no such file: /x").hex()
    assert found["dead_letters"][0] == {
        "fingerprint": name,
        "task_type": "document_processing",
        "error_kind": "permanent",
        "count": 2,
        "kb_ids": 2,
        "first_failed_at": first["completed_at"],
        "last_failed_at": second["completed_at"],
        "example_message": "no such file: /b.pdf",
        "example_task_ids": [second["id"], first["id"]],
    }
    assert found["dead_letters"][1]["example_task_ids"] == [other["id"]]
    assert (found["total"], found["total_tasks"]) == (2, 3)
    assert found["pagination"] == {"page": 1, "page_size": 20, "total": 2, "total_pages": 1}


async def test_nothing_has_failed(api: httpx2.AsyncClient, projection: Projection):
    await submitted(api)
    await projection.catch_up()

    found = await groups(api)

    assert (found["dead_letters"], found["total"], found["total_tasks"]) == ([], 0, 0)
    assert found["pagination"]["total_pages"] == 0


async def test_filters_are_all_to_be_satisfied(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    one = await failed(api, store, "timeout after 3 s", kb_id="a")
    two = await failed(api, store, "timeout after 4 s", kb_id="b", task_type="batch_processing")
    await projection.catch_up()

    async def found(**query: Any) -> list[str]:
        letters = (await groups(api, **query))["dead_letters"]
        return sorted(task_id for group in letters for task_id in group["example_task_ids"])

    [name] = [g["fingerprint"] for g in (await groups(api, kb_id="a"))["dead_letters"]]
    assert await found() == sorted([one["id"], two["id"]])
    assert await found(kb_id="a,c") == await found(fingerprint=name) == [one["id"]]
    assert await found(task_type="batch_processing", error_kind="permanent") == [two["id"]]
    assert await found(error_kind="timeout,retryable") == []
    assert await found(failed_after=one["completed_at"]) == [two["id"]]
    assert await found(failed_before=two["completed_at"], created_after="1h") == [one["id"]]
    assert await found(fingerprint=name, kb_id="b") == []


async def test_pages_go_through_all_groups(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    for words in ("one", "one", "two", "three"):
        await failed(api, store, f"error {words}")
    await projection.catch_up()

    pages = [await groups(api, page=page, page_size=2) for page in (1, 2, 3)]

    assert [len(page["dead_letters"]) for page in pages] == [2, 1, 0]
    assert pages[0]["dead_letters"][0]["count"] == 2
    names = {g["fingerprint"] for page in pages for g in page["dead_letters"]}
    assert len(names) == pages[0]["pagination"]["total"] == 3


async def test_a_task_that_is_retried_leaves_its_group(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    task = await failed(api, store, "busy")
    await projection.catch_up()
    assert (await groups(api))["total_tasks"] == 1

    await do(store, task["id"], RetryTask())
    await projection.catch_up()

    assert (await groups(api))["dead_letters"] == []


async def test_the_tasks_of_a_group_are_listed(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    tasks = [await failed(api, store, f"timeout after {n} s") for n in range(3)]
    await failed(api, store, "another error")
    await projection.catch_up()
    name = (await groups(api))["dead_letters"][0]["fingerprint"]

    async def ids(**query: Any) -> list[str]:
        answer = await api.get(TASKS, params={"fingerprint": name, **query})
        assert answer.status_code == 200, answer.text
        return [task["id"] for task in answer.json()["tasks"]]

    expected = [task["id"] for task in tasks]
    assert await ids(sort_order="asc") == await ids(status="failed", sort_order="asc") == expected
    assert await ids(sort_by="completed_at", page_size=1, page=2) == [expected[1]]
    assert await ids(q="AFTER 1 s") == [expected[1]]
    assert await ids(status="completed") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"fingerprint": "abc"}, "fingerprint"),
        ({"fingerprint": "A" * 16}, "fingerprint"),
        ({"error_kind": "broken"}, "error_kind"),
        ({"failed_after": "yesterday"}, "failed_after"),
        ({"failed_after": "1h", "failed_before": "2h"}, "failed_after"),
        ({"created_after": "1h", "created_before": "2h"}, "created_after"),
        ({"task_type": "cooking"}, "task_type"),
        ({"page_size": "101"}, "page_size"),
        ({"status": "failed"}, "status"),
    ],
)
async def test_a_bad_filter_is_named(
    api: httpx2.AsyncClient, projection: Projection, query: dict[str, str], field: str
):
    await projection.catch_up()

    answer = await api.get(DEAD_LETTERS, params=query)

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == field
