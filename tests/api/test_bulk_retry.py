"""POST /api/v1/dead-letters/retry: failed tasks go round again, each once, and it says so."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api import bulk_retry
from api.overload import MemoryGuard
from ledger.codec import decode_meta
from ledger.commands import FailAttempt, RetryTask
from ledger.events import ErrorKind, TaskRetried
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Settings
from ledger.store import Append, Outcome
from tests.api.reading import Projection
from tests.api.requests import do, fail, post_raw, start, submitted
from tests.given import TRACE

DEAD_LETTERS = "/api/v1/dead-letters"
RETRY = f"{DEAD_LETTERS}/retry"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A read model of the test's own, and little patience with it."""
    return Settings(read_model_dir=str(tmp_path / "read-model"), read_wait_ms=500)


async def failed(api: httpx2.AsyncClient, store: RedisStore, n: int, **fields: Any) -> list[str]:
    """So many tasks that failed, in this order."""
    ids = [(await submitted(api, **fields))["id"] for _ in range(n)]
    for task_id in ids:
        await fail(store, task_id)
    return ids


async def retry(api: httpx2.AsyncClient, **asked: Any) -> dict[str, Any]:
    answer = await api.post(RETRY, json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def statuses(store: RedisStore, ids: list[str]) -> list[str]:
    tasks = [await store.load(task_id) for task_id in ids]
    return [task.status.value for task in tasks if task is not None]


async def test_those_that_match_are_queued_again(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    ids = await failed(api, store, 3, kb_id="a")
    others = await failed(api, store, 1, kb_id="b")
    await projection.catch_up()

    answer = await retry(api, kb_id="a", error_kind=["permanent", "timeout"])

    [(name, count)] = answer["fingerprints"].items()
    assert (answer["retried"], answer["skipped"], answer["remaining"]) == (3, {}, 0)
    assert (answer["dry_run"], count, len(name)) == (False, 3, 16)
    assert await statuses(store, ids + others) == ["queued"] * 3 + ["failed"]


async def test_a_dry_run_says_what_would_be_retried_and_changes_nothing(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    ids = await failed(api, store, 3)
    await projection.catch_up()
    end = await store.last_position(0)

    answer = await retry(api, dry_run=True, limit=2)

    assert (answer["retried"], answer["remaining"], answer["dry_run"]) == (2, 1, True)
    assert list(answer["fingerprints"].values()) == [2]
    assert await store.last_position(0) == end
    assert await statuses(store, ids) == ["failed"] * 3


async def test_an_age_beyond_all_time_matches_nothing(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    await failed(api, store, 1)
    await projection.catch_up()

    answer = await retry(api, failed_before="999999999d", dry_run=True)

    assert (answer["retried"], answer["as_of"]) == (0, "0001-01-01T00:00:00.000Z")


async def test_a_limit_takes_those_first_that_failed_first_and_the_next_request_goes_on(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    ids = await failed(api, store, 3)
    await projection.catch_up()

    first = await retry(api, limit=2)
    then = await statuses(store, ids)
    await projection.catch_up()
    second = await retry(api, limit=2)
    await projection.catch_up()
    third = await retry(api)

    assert [(a["retried"], a["remaining"]) for a in (first, second, third)] == [
        (2, 1),
        (1, 0),
        (0, 0),
    ]
    assert then == ["queued", "queued", "failed"]


async def test_what_moved_on_since_it_was_seen_to_fail_is_skipped(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    moved, again, left = await failed(api, store, 3)
    await projection.catch_up()
    await do(store, moved, RetryTask())
    await do(store, again, RetryTask())
    await start(store, again, 2)
    await do(store, again, FailAttempt(2, "another failure", ErrorKind.PERMANENT))

    answer = await retry(api)

    assert (answer["retried"], answer["skipped"], answer["remaining"]) == (1, {"moved_on": 2}, 0)
    assert await statuses(store, [moved, again, left]) == ["queued", "failed", "queued"]


async def test_what_fails_anew_is_left_out_of_a_request_that_goes_on(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    first, second = await failed(api, store, 2)
    await projection.catch_up()
    begun = await retry(api, limit=1)
    await asyncio.sleep(0.002)  # as_of is a time, to the ms
    await start(store, first, 2)
    await do(store, first, FailAttempt(2, "no such file", ErrorKind.PERMANENT))
    await projection.catch_up()

    answer = await retry(api, failed_before=begun["as_of"])

    assert (answer["retried"], answer["remaining"]) == (1, 0)
    assert answer["as_of"] == begun["as_of"]
    assert await statuses(store, [first, second]) == ["failed", "queued"]


async def test_the_answer_leads_to_a_read_that_sees_it(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    [task_id] = await failed(api, store, 1)
    await projection.catch_up()
    answer = await api.post(RETRY, json={}, headers={"x-actor": "ann", "traceparent": TRACE})
    position = {"ledger-position": answer.headers["ledger-position"]}

    early = await api.get(DEAD_LETTERS, headers=position)
    await projection.catch_up()
    late = await api.get(DEAD_LETTERS, headers=position)

    [*_, last] = await store.history(task_id)
    assert (early.status_code, late.json()["total_tasks"]) == (503, 0)
    assert (last.event(), decode_meta(last.meta).actor) == (TaskRetried(TRACE), "ann")
    assert str(last.position) == answer.headers["ledger-position"]


async def test_a_request_sees_what_its_caller_insists_on_or_does_nothing(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    await projection.catch_up()
    [task_id] = await failed(api, store, 1)
    seen = {"ledger-position": str(await store.last_position(0))}

    answer = await api.post(RETRY, json={}, headers=seen)

    assert answer.status_code == 503
    assert await statuses(store, [task_id]) == ["failed"]


async def test_a_request_ends_in_time_and_says_what_remains(
    api: httpx2.AsyncClient,
    store: RedisStore,
    projection: Projection,
    monkeypatch: pytest.MonkeyPatch,
):
    await failed(api, store, 5)
    await projection.catch_up()
    monkeypatch.setattr(bulk_retry, "SECONDS_MAX", 0)
    monkeypatch.setattr(bulk_retry, "WAVE", 2)

    answer = await retry(api)

    assert (answer["retried"], answer["remaining"]) == (2, 3)


async def test_a_request_that_is_cut_off_says_how_far_it_came_and_can_be_sent_again(
    api: httpx2.AsyncClient,
    store: RedisStore,
    projection: Projection,
    monkeypatch: pytest.MonkeyPatch,
):
    ids = await failed(api, store, 3)
    await projection.catch_up()
    append = store.append

    async def until_the_last(step: Append) -> Outcome:
        if step.after.id == ids[2]:
            raise Rejection(RejectionCode.SERVICE_UNAVAILABLE, "the ledger is out of reach")
        return await append(step)

    with monkeypatch.context() as patched:
        patched.setattr(store, "append", until_the_last)
        cut = await api.post(RETRY, json={})
    again = await retry(api)

    assert (cut.status_code, cut.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    details = cut.json()["details"]
    assert (details["retried"], details["remaining"]) == (2, 1)
    # The read model has not seen the first request yet.
    assert (again["retried"], again["skipped"], again["remaining"]) == (1, {"moved_on": 2}, 0)
    assert await statuses(store, ids) == ["queued"] * 3


class TestInAFullQueue:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(read_model_dir=str(tmp_path / "read-model"), queue_tasks_max=1)

    async def test_what_has_no_room_stays_failed(
        self, api: httpx2.AsyncClient, store: RedisStore, projection: Projection
    ):
        ids = [*await failed(api, store, 1), *await failed(api, store, 1)]
        await projection.catch_up()

        answer = await retry(api)

        assert (answer["retried"], answer["skipped"]) == (1, {"queue_full": 1})
        assert answer["remaining"] == 1
        assert sorted(await statuses(store, ids)) == ["failed", "queued"]

    async def test_it_does_not_hold_back_later_failures_of_other_queues(
        self,
        api: httpx2.AsyncClient,
        store: RedisStore,
        projection: Projection,
        monkeypatch: pytest.MonkeyPatch,
    ):
        full = [id for _ in range(3) for id in await failed(api, store, 1)]
        others = [
            *await failed(api, store, 1, priority="high"),
            *await failed(api, store, 1, task_type="embedding_generation"),
        ]
        await submitted(api)
        await projection.catch_up()
        monkeypatch.setattr(bulk_retry, "WAVE", 1)
        asked: list[str] = []
        append = store.append

        async def noted(step: Append) -> Outcome:
            asked.append(step.after.id)
            return await append(step)

        monkeypatch.setattr(store, "append", noted)

        answer = await retry(api, limit=3)

        assert (answer["retried"], answer["skipped"]) == (2, {"queue_full": 3})
        assert answer["remaining"] == 3
        assert asked == [full[0], *others]
        assert await statuses(store, full + others) == ["failed"] * 3 + ["queued"] * 2


async def test_only_so_many_run_at_once(
    api: httpx2.AsyncClient,
    store: RedisStore,
    projection: Projection,
    monkeypatch: pytest.MonkeyPatch,
):
    await failed(api, store, 1)
    await projection.catch_up()
    monkeypatch.setattr(bulk_retry, "RUNNING_MAX", 0)

    answer = await api.post(RETRY, json={})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_one_with_nothing_to_retry_asks_for_nothing(
    api: httpx2.AsyncClient, projection: Projection, monkeypatch: pytest.MonkeyPatch
):
    await projection.catch_up()
    monkeypatch.setattr(bulk_retry, "RUNNING_MAX", 0)
    monkeypatch.setattr(MemoryGuard, "check", refuse)

    answer = await retry(api)

    assert (answer["retried"], answer["remaining"]) == (0, 0)


async def test_no_more_are_retried_than_there_is_memory_for(
    api: httpx2.AsyncClient,
    store: RedisStore,
    projection: Projection,
    monkeypatch: pytest.MonkeyPatch,
):
    """Those too that were read later than the first."""
    ids = await failed(api, store, 4)
    await projection.catch_up()
    monkeypatch.setattr(bulk_retry, "WAVE", 2)
    check, asked = MemoryGuard.check, list[int]()

    async def full_after_two(guard: MemoryGuard, tasks: int, body_bytes: int) -> None:
        asked.append(tasks)
        if sum(asked) > 2:
            await refuse()
        await check(guard, tasks, body_bytes)

    monkeypatch.setattr(MemoryGuard, "check", full_after_two)

    answer = await api.post(RETRY, json={})

    assert (answer.status_code, answer.json()["code"]) == (503, "QUEUE_FULL")
    assert (answer.json()["details"]["retried"], asked) == (2, [2, 2])
    assert await statuses(store, ids) == ["queued"] * 2 + ["failed"] * 2


async def refuse(*_: Any) -> None:
    raise Rejection(RejectionCode.QUEUE_FULL, "no memory is left")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b'{"kb":"a"}', "kb"),
        (b'{"kb_id":[]}', "kb_id"),
        (b'{"kb_id":7}', "kb_id"),
        (b'{"fingerprint":"xyz"}', "fingerprint"),
        (b'{"fingerprint":["0123456789abcdef",""]}', "fingerprint"),
        (b'{"error_kind":"broken"}', "error_kind"),
        (b'{"task_type":"cooking"}', "task_type"),
        (b'{"failed_after":"then"}', "failed_after"),
        (b'{"failed_after":"1h","failed_before":"2h"}', "failed_after"),
        (b'{"dry_run":"no"}', "dry_run"),
        (b'{"limit":0}', "limit"),
        (b'{"limit":10001}', "limit"),
    ],
)
async def test_a_bad_body_is_refused_by_its_field(
    api: httpx2.AsyncClient, projection: Projection, body: bytes, field: str
):
    await projection.catch_up()

    answer = await post_raw(api, RETRY, body)

    assert answer.status_code == 400, answer.text
    assert answer.json()["details"]["field"] == field


async def test_whole_numbers_may_be_written_with_a_fraction(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    await failed(api, store, 2)
    await projection.catch_up()

    answer = await post_raw(api, RETRY, b'{"limit":1.0}')

    assert answer.json()["retried"] == 1
