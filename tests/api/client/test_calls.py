"""Every method of the clients, against a running service."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.client import (
    AsyncClient,
    InvalidRequest,
    NotFound,
    NotSealed,
    Retries,
    Submission,
    TaskNotCancelable,
    TaskNotFinished,
    TaskNotFound,
    TaskNotProcessing,
    TaskNotRetryable,
    VersionConflict,
)
from ledger.archive.keys import KeyFile
from ledger.archive.proof import read_proof
from ledger.objects.local_folder import LocalFolder
from ledger.redis_store import RedisStore
from tests.api.client.conftest import client_of
from tests.api.conftest import Service
from tests.api.reading import Projection
from tests.api.requests import UNKNOWN_ID, complete, fail, start
from tests.given import OTHER_TRACE, TRACE
from tests.ledger.archive.proving import seal_all


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[LocalFolder]:
    """Where the service keeps its archive."""
    objects = LocalFolder(tmp_path / "objects")
    yield objects
    await objects.close()


async def test_a_submitted_task_comes_back_with_everything(client: AsyncClient) -> None:
    later = datetime(2100, 1, 1, tzinfo=UTC)

    task = await client.submit(
        "document_processing",
        "kb-1",
        {"file_path": "a.pdf", "ü": [1, None]},
        priority="high",
        max_retries=7,
        timeout=60,
        schedule_for=later,
        metadata={"by": "test"},
    )

    assert await client.get(task.id) == task
    assert (task.status, task.priority, task.max_retries, task.timeout) == ("queued", "high", 7, 60)
    assert task.payload == {"file_path": "a.pdf", "ü": [1, None]}
    assert task.metadata == {"by": "test"}
    assert task.schedule_for == later
    assert task.created_at is not None
    assert not task.finished


async def test_the_same_key_gives_the_same_task(client: AsyncClient) -> None:
    one = await client.submit("health_check", "kb-1", idempotency_key="once")
    other = await client.submit("health_check", "kb-1", idempotency_key="once")

    assert other.id == one.id


async def test_two_calls_without_a_key_make_two_tasks(client: AsyncClient) -> None:
    one = await client.submit("health_check", "kb-1")
    other = await client.submit("health_check", "kb-1")

    assert other.id != one.id


async def test_many_tasks_come_back_in_order(client: AsyncClient) -> None:
    given = [Submission("health_check", "kb-1", {"n": n}) for n in range(3)]

    tasks = await client.submit_many(given)

    assert [task.payload["n"] for task in tasks] == [0, 1, 2]


async def test_more_than_a_thousand_are_several_requests(client: AsyncClient) -> None:
    given = [Submission("health_check", "kb-1", {"n": n}) for n in range(1_001)]

    tasks = await client.submit_many(given, idempotency_key="many")
    again = await client.submit_many(given, idempotency_key="many")

    assert [task.payload["n"] for task in tasks] == list(range(1_001))
    assert [task.id for task in again] == [task.id for task in tasks]


async def test_nothing_to_submit_is_no_request(client: AsyncClient) -> None:
    assert await client.submit_many([]) == []


async def test_a_task_as_it_was(client: AsyncClient, store: RedisStore) -> None:
    task = await client.submit("health_check", "kb-1")
    await complete(store, task.id)

    assert (await client.get(task.id, version=1)).status == "queued"
    assert (await client.get(task.id, as_of=datetime.now(UTC))).status == "completed"
    with pytest.raises(NotFound, match="did not exist then"):
        await client.get(task.id, as_of=datetime(2020, 1, 1, tzinfo=UTC))


async def test_waiting_ends_with_the_task(client: AsyncClient, store: RedisStore) -> None:
    task = await client.submit("health_check", "kb-1")
    waiting = asyncio.create_task(client.wait(task.id, timeout_s=20))

    await complete(store, task.id, b'{"chunks": 12}')

    done = await waiting
    assert (done.status, done.result) == ("completed", {"chunks": 12})


async def test_waiting_ends_with_the_time(client: AsyncClient) -> None:
    task = await client.submit("health_check", "kb-1")

    with pytest.raises(TaskNotFinished) as raised:
        await client.wait(task.id, timeout_s=0.01)

    assert isinstance(raised.value, TimeoutError)
    assert (raised.value.task.id, raised.value.task.status) == (task.id, "queued")


async def test_the_history_of_a_task(client: AsyncClient, store: RedisStore) -> None:
    task = await client.submit("health_check", "kb-1")
    await complete(store, task.id)

    history = await client.history(task.id)

    assert [e.type for e in history.events] == ["TaskSubmitted", "TaskStarted", "TaskCompleted"]
    assert [e.version for e in history.events] == [1, 2, 3]


async def test_the_proof_of_a_task(
    client: AsyncClient, store: RedisStore, objects: LocalFolder, tmp_path: Path
) -> None:
    task = await client.submit("health_check", "kb-1")
    await seal_all(store, objects, KeyFile(tmp_path / "archive.key"))

    proof = read_proof(await client.proof(task.id))

    assert (proof.task, len(proof.events)) == (task.id, 1)
    with pytest.raises(TaskNotFound):
        await client.proof(UNKNOWN_ID)


async def test_a_task_that_is_not_sealed_has_no_proof_yet(form: str, service: Service) -> None:
    client = client_of(form, f"http://127.0.0.1:{service.port}", retries=Retries(calls_max=1))
    task = await client.submit("health_check", "kb-1")

    with pytest.raises(NotSealed) as raised:
        await client.proof(task.id)

    assert raised.value.details["version"] == 1
    await client.close()


async def test_a_list_by_pages_and_by_cursor(client: AsyncClient, projection: Projection) -> None:
    given = [Submission("health_check", f"kb,{n % 2}") for n in range(5)]
    ids = [task.id for task in await client.submit_many(given)]
    await projection.catch_up()

    page = await client.list(kb_id="kb,0", page_size=2)
    behind = await client.list(kb_id="kb,0", page_size=2, cursor=page.pagination.next_cursor)
    every = [task.id async for task in client.iterate(kb_id=["kb,0", "kb,1"], page_size=2)]

    assert (len(page), page.total, page.pagination.total_pages) == (2, 3, 2)
    assert {task.id for task in (*page, *behind)} == {ids[0], ids[2], ids[4]}
    assert sorted(every) == sorted(ids)


async def test_a_list_waits_for_what_its_client_wrote(
    client: AsyncClient, projection: Projection
) -> None:
    task = await client.submit("health_check", "kb-1")

    async def until_listed() -> list[str]:
        return [found.id for found in await client.list(kb_id="kb-1")]

    listing = asyncio.create_task(until_listed())
    await projection.catch_up()

    assert await listing == [task.id]


async def test_counts_and_queues(client: AsyncClient, projection: Projection) -> None:
    await client.submit("health_check", "kb-1", priority="high")
    await projection.catch_up()

    stats = await client.stats(kb_id="kb-1")
    queues = await client.queues()
    system = await client.system_stats()

    assert (stats.total_tasks, stats.queued_tasks) == (1, 1)
    assert stats.type_breakdown == {"health_check": 1}
    assert queues.queue_size == 1
    assert [(q.task_type, q.priority) for q in queues.queues if q.size] == [
        ("health_check", "high")
    ]
    assert (system.queue_size, system.task_stats.total_tasks) == (1, 1)


async def test_counts_and_queues_as_they_were(client: AsyncClient) -> None:
    before = datetime.now(UTC) - timedelta(days=1)
    await client.submit("health_check", "kb-1")

    assert (await client.stats(as_of=before)).total_tasks == 0
    assert (await client.queues(as_of=before, task_type="health_check")).queue_size == 0


async def test_cancel_and_retry(client: AsyncClient) -> None:
    task = await client.submit("health_check", "kb-1")

    canceled = await client.cancel(task.id, version=1)
    again = await client.retry(task.id, version=2)

    assert canceled.task_id == task.id
    assert (again.status, again.version) == ("queued", 3)


async def test_progress(client: AsyncClient, store: RedisStore) -> None:
    task = await client.submit("health_check", "kb-1")
    await start(store, task.id)

    reported = await client.progress(task.id, 40, "parsing")

    assert (reported.progress, reported.message) == (40, "parsing")


async def test_what_is_not_there(client: AsyncClient) -> None:
    with pytest.raises(TaskNotFound) as raised:
        await client.get(UNKNOWN_ID)

    error = raised.value
    assert (error.code, error.status) == ("TASK_NOT_FOUND", 404)
    assert error.details == {"task_id": UNKNOWN_ID}
    assert error.request_id


@pytest.mark.parametrize("task_id", ["", "..", "../stats/tasks", "not a task"])
async def test_what_cannot_be_an_id_is_not_asked_for(client: AsyncClient, task_id: str) -> None:
    with pytest.raises(TaskNotFound):
        await client.get(task_id)


async def test_ids_and_keys_may_be_uuids(client: AsyncClient) -> None:
    key = uuid4()
    task = await client.submit("health_check", "kb-1", idempotency_key=key)
    task_id = UUID(task.id)

    await client.cancel(task_id)

    assert (await client.get(task_id)).status == "canceled"
    assert [update.type async for update in client.watch(task_id)][-1] == "TaskCanceled"
    assert (await client.submit("health_check", "kb-1", idempotency_key=str(key))).id == task.id


async def test_what_is_no_id_is_told_by_what_it_is(client: AsyncClient) -> None:
    task: Any = await client.submit("health_check", "kb-1")
    key: Any = 7

    with pytest.raises(TypeError, match="expected a task's id, got Task"):
        await client.get(task)
    with pytest.raises(TypeError, match="idempotency_key: expected a text, got int"):
        await client.submit("health_check", "kb-1", idempotency_key=key)


async def test_what_does_not_go(client: AsyncClient, store: RedisStore) -> None:
    task = await client.submit("health_check", "kb-1")
    with pytest.raises(TaskNotRetryable):
        await client.retry(task.id)
    with pytest.raises(TaskNotProcessing):
        await client.progress(task.id, 1)
    with pytest.raises(VersionConflict):
        await client.cancel(task.id, version=9)
    await fail(store, task.id)
    with pytest.raises(TaskNotCancelable):
        await client.cancel(task.id)


async def test_a_bad_submission_says_which_field(client: AsyncClient) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await client.submit("no_such_type", "kb-1")

    assert raised.value.details["field"] == "task_type"


async def test_a_bad_one_among_many_says_which(client: AsyncClient) -> None:
    good, bad = Submission("health_check", "kb-1"), Submission("health_check", "")

    with pytest.raises(InvalidRequest) as raised:
        await client.submit_many([good, bad])

    assert raised.value.details["index"] == 1


async def test_headers_may_be_asked_for_at_each_request(form: str, service: Service) -> None:
    trace: ContextVar[str] = ContextVar("trace")
    client = client_of(
        form, f"http://127.0.0.1:{service.port}", headers=lambda: {"traceparent": trace.get()}
    )

    tasks: list[str] = []
    for now in (TRACE, OTHER_TRACE):
        trace.set(now)
        tasks.append((await client.submit("document_processing", "kb-1")).id)
    histories = [await client.history(task) for task in tasks]
    await client.close()

    metas = [history.events[0].meta for history in histories]
    assert [meta["trace"] for meta in metas if meta is not None] == [TRACE, OTHER_TRACE]


async def test_keys_and_headers_may_be_in_any_language(form: str, service: Service) -> None:
    url = f"http://127.0.0.1:{service.port}"
    client = client_of(form, url, headers={"X-Actor": "Jörg"})

    task = await client.submit("health_check", "kb-1", idempotency_key="clé-日本")
    again = await client.submit("health_check", "kb-1", idempotency_key="clé-日本")
    history = await client.history(task.id)
    await client.close()

    assert again.id == task.id
    assert (history.events[0].meta or {})["actor"] == "Jörg"


async def test_a_header_that_is_no_text_is_told_by_its_name(form: str, service: Service) -> None:
    number: Any = 7
    client = client_of(form, f"http://127.0.0.1:{service.port}", headers={"X-Actor": number})

    with pytest.raises(TypeError, match=r"^the header X-Actor: expected a text, got int$"):
        await client.get(UNKNOWN_ID)
    await client.close()


async def test_a_header_that_cannot_be_sent_is_not_tried_again(form: str, service: Service) -> None:
    client = client_of(form, f"http://127.0.0.1:{service.port}", headers={"X-Actor": "a\r\nb: c"})

    with pytest.raises(InvalidRequest, match="X-Actor") as refused:
        await client.submit("health_check", "kb-1")
    await client.close()

    assert refused.value.details["field"] == "X-Actor"
