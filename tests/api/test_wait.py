"""A caller waits for a task to finish."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import httpx2
import msgspec
import pytest

from api.app import App, create_app
from ledger.commands import CancelTask, CompleteTask, RetryTask
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Settings
from ledger.store import Position, Recorded
from ledger.task import Task
from tests.api.requests import TASKS, Step, complete, do, fail, start, submitted


async def waiting(app: App, count: int = 1) -> None:
    """Return when `count` callers wait."""
    async with asyncio.timeout(10):
        while app.live.waiting < count:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def asking(
    api: httpx2.AsyncClient, task_id: str, wait: str = "30"
) -> AsyncGenerator["asyncio.Task[httpx2.Response]"]:
    """A request that waits, in the background."""
    request = asyncio.create_task(api.get(f"{TASKS}/{task_id}", params={"wait": wait}, timeout=40))
    try:
        yield request
    finally:
        request.cancel()
        await asyncio.wait([request])


@pytest.mark.parametrize("end", [complete, fail])
async def test_the_end_of_a_task_is_told_at_once(
    app: App, api: httpx2.AsyncClient, store: RedisStore, end: Step
):
    task = await submitted(api)

    async with asking(api, task["id"]) as request:
        await waiting(app)
        await end(store, task["id"])
        answer = await request

    assert answer.json()["status"] in ("completed", "failed")
    assert answer.json()["version"] >= 3


async def test_a_cancel_ends_the_wait_too(app: App, api: httpx2.AsyncClient):
    task = await submitted(api)

    async with asking(api, task["id"]) as request:
        await waiting(app)
        await api.delete(f"{TASKS}/{task['id']}")
        answer = await request

    assert answer.json()["status"] == "canceled"


async def test_a_finished_task_is_not_waited_for(
    app: App, api: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(api)
    await complete(store, task["id"])

    answer = await api.get(f"{TASKS}/{task['id']}", params={"wait": "60"})

    assert answer.json()["status"] == "completed"


@pytest.mark.parametrize("wait", ["0", "0.0", "0.01"])
async def test_when_time_is_up_the_present_state_is_told(
    api: httpx2.AsyncClient, store: RedisStore, wait: str
):
    task = await submitted(api)
    await start(store, task["id"])

    answer = await api.get(f"{TASKS}/{task['id']}", params={"wait": wait})

    assert answer.status_code == 200
    assert answer.json()["status"] == "processing"


async def test_an_unknown_task_is_not_waited_for(api: httpx2.AsyncClient):
    answer = await api.get(f"{TASKS}/01996abc-2400-7000-8000-0000000000a7", params={"wait": "60"})

    assert answer.status_code == 404


async def test_many_callers_share_one_reader(app: App, api: httpx2.AsyncClient, store: RedisStore):
    tasks = [await submitted(api) for _ in range(20)]

    async with contextlib.AsyncExitStack() as stack:
        requests = [await stack.enter_async_context(asking(api, t["id"])) for t in tasks * 2]
        await waiting(app, 40)
        readers = [t for t in asyncio.all_tasks() if t.get_name().startswith("feed-")]
        for task in tasks:
            await complete(store, task["id"])
        answers = await asyncio.gather(*requests)

    assert len(readers) == 1
    assert {a.json()["status"] for a in answers} == {"completed"}


async def test_a_task_that_ends_between_load_and_watch_is_noticed(ledger_url: str):
    class EndsBehindTheBack(RedisStore):
        async def last_position(self, partition: int) -> Position:
            # The reader is just about to begin: the caller has loaded the task as queued.
            await complete(self, task["id"])
            return await super().last_position(partition)

    store = await EndsBehindTheBack.open(ledger_url)
    app = create_app(store, Settings())
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        task = await submitted(api)
        async with asking(api, task["id"]) as request, asyncio.timeout(10):
            answer = await request
    await app.stop_waiting()
    await store.close()

    assert answer.json()["status"] == "completed"


async def test_a_task_that_ends_just_after_the_load_is_noticed(ledger_url: str):
    class EndsAfterTheLoad(RedisStore):
        loads = 0

        async def load(self, task_id: str) -> Task | None:
            task = await super().load(task_id)
            self.loads += 1
            if self.loads == 2:
                # The watch stands, its load has seen the task running; then the task ends.
                await do(self, task_id, CompleteTask(1, msgspec.Raw(b"1")))
            return task

    store = await EndsAfterTheLoad.open(ledger_url)
    app = create_app(store, Settings())
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        task = await submitted(api)
        await start(store, task["id"])
        store.loads = 0
        async with asking(api, task["id"]) as request, asyncio.timeout(10):
            answer = await request
    await app.stop_waiting()
    await store.close()

    assert answer.json()["status"] == "completed"


async def test_an_old_end_does_not_end_the_wait(ledger_url: str):
    class LagsBehind(RedisStore):
        reads = 0

        async def events_after(
            self, position: Position, count: int, wait_ms: int
        ) -> list[Recorded]:
            self.reads += 1
            if self.reads == 1:
                # The end before the retry, read only now.
                return [e for e in await self.history(task["id"]) if e.type == "TaskCanceled"]
            if self.reads == 2:
                await complete(self, task["id"])
            return await super().events_after(position, count, wait_ms)

    store = await LagsBehind.open(ledger_url)
    app = create_app(store, Settings())
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        task = await submitted(api)
        await do(store, task["id"], CancelTask())
        await do(store, task["id"], RetryTask())
        async with asking(api, task["id"]) as request, asyncio.timeout(10):
            answer = await request
    await app.stop_waiting()
    await store.close()

    assert answer.json()["status"] == "completed"


async def test_a_caller_who_hangs_up_no_longer_waits(app: App, api: httpx2.AsyncClient):
    task = await submitted(api)
    sent: list[object] = []
    hang_up = asyncio.Event()

    async def receive() -> dict[str, object]:
        await hang_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        sent.append(message)

    scope: dict[str, object] = {
        "type": "http",
        "method": "GET",
        "path": f"{TASKS}/{task['id']}",
        "query_string": b"wait=60",
        "headers": [],
    }
    request = asyncio.ensure_future(app(scope, receive, send))
    await waiting(app)
    hang_up.set()

    async with asyncio.timeout(10):
        await request
    assert sent == []
    assert app.live.waiting == 0


async def test_a_stopping_service_answers_whoever_waits(app: App, api: httpx2.AsyncClient):
    task = await submitted(api)

    async with asking(api, task["id"]) as request:
        await waiting(app)
        await app.stop_waiting()
        answer = await request
        late = await api.get(f"{TASKS}/{task['id']}", params={"wait": "60"})

    assert answer.json()["status"] == "queued"
    assert late.json()["status"] == "queued"


async def test_the_reader_ends_when_nobody_waits(app: App, api: httpx2.AsyncClient):
    task = await submitted(api)
    await api.get(f"{TASKS}/{task['id']}", params={"wait": "0.01"})

    async with asyncio.timeout(10):
        while any(t.get_name().startswith("feed-") for t in asyncio.all_tasks()):
            # Something happens, so that the reader looks up from its read.
            await submitted(api)

    assert app.live.waiting == 0


async def test_a_reader_that_fails_tells_whoever_waits_and_is_begun_anew(ledger_url: str):
    class BreaksOnce(RedisStore):
        broken = asyncio.Event()

        async def events_after(
            self, position: Position, count: int, wait_ms: int
        ) -> list[Recorded]:
            if not self.broken.is_set():
                self.broken.set()
                raise Rejection(RejectionCode.SERVICE_UNAVAILABLE, "out of reach")
            return await super().events_after(position, count, wait_ms)

    store = await BreaksOnce.open(ledger_url)
    app = create_app(store, Settings())
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        task = await submitted(api)
        first = await api.get(f"{TASKS}/{task['id']}", params={"wait": "30"})
        async with asking(api, task["id"]) as request:
            await waiting(app)
            await complete(store, task["id"])
            second = await request
    await app.stop_waiting()
    await store.close()

    assert first.status_code == 503
    assert second.json()["status"] == "completed"
