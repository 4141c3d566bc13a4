"""Lines that break between the client and the service."""

import asyncio

import pytest

from api.client import (
    AsyncClient,
    Retries,
    Submission,
    UnexpectedAnswer,
    Unreachable,
    Update,
    VersionConflict,
)
from ledger.redis_store import RedisStore
from tests.api.client.conftest import client_of
from tests.api.requests import UNKNOWN_ID, complete, fail, start
from tests.checks import check_ledger
from tests.faults.proxy import Proxy

PATIENCE_S = 20


async def test_a_submission_whose_answer_is_lost_makes_one_task(
    far_client: AsyncClient, proxy: Proxy, store: RedisStore
) -> None:
    proxy.cut_reply(b"POST /api/v1/tasks")

    task = await far_client.submit("health_check", "kb-1")

    assert proxy.struck.is_set()
    assert list((await check_ledger(store)).tasks) == [task.id]


async def test_a_submission_that_is_lost_is_sent_again(
    far_client: AsyncClient, proxy: Proxy, store: RedisStore
) -> None:
    proxy.cut_request(b"POST /api/v1/tasks")

    task = await far_client.submit("health_check", "kb-1")

    assert proxy.struck.is_set()
    assert list((await check_ledger(store)).tasks) == [task.id]


async def test_a_batch_whose_answer_is_lost_makes_its_tasks_once(
    far_client: AsyncClient, proxy: Proxy, store: RedisStore
) -> None:
    proxy.cut_reply(b"POST /api/v1/tasks/batch")

    tasks = await far_client.submit_many([Submission("health_check", "kb-1")] * 3)

    assert proxy.struck.is_set()
    assert set((await check_ledger(store)).tasks) == {task.id for task in tasks}


async def test_a_retry_whose_answer_is_lost_happens_once(
    far_client: AsyncClient, proxy: Proxy, store: RedisStore
) -> None:
    task = await far_client.submit("health_check", "kb-1")
    await fail(store, task.id)
    proxy.cut_reply(b"/retry")

    again = await far_client.retry(task.id)

    assert proxy.struck.is_set()
    assert again.status == "queued"
    assert (await check_ledger(store)).events["TaskRetried"] == 1


async def test_a_change_at_a_version_whose_answer_is_lost_is_no_conflict(
    far_client: AsyncClient, proxy: Proxy, store: RedisStore
) -> None:
    task = await far_client.submit("health_check", "kb-1")
    await start(store, task.id)

    proxy.cut_reply(b"/progress")
    running = await far_client.progress(task.id, 40, "parsing", version=2)
    assert proxy.struck.is_set()
    proxy.cut_reply(b"DELETE")
    await far_client.cancel(task.id, version=3)
    assert proxy.struck.is_set()
    proxy.cut_reply(b"/retry")
    again = await far_client.retry(task.id, version=4)
    assert proxy.struck.is_set()

    assert (running.version, running.progress) == (3, 40)
    assert (again.version, again.status) == (5, "queued")


async def test_what_somebody_else_did_at_that_version_is_a_conflict(
    far_client: AsyncClient, proxy: Proxy, store: RedisStore
) -> None:
    task = await far_client.submit("health_check", "kb-1")

    async def meanwhile() -> None:
        await start(store, task.id)

    proxy.cut_request(b"DELETE", meanwhile)
    with pytest.raises(VersionConflict):
        await far_client.cancel(task.id, version=1)

    assert (await far_client.get(task.id)).status == "processing"


async def test_a_service_that_is_away_for_a_moment_is_waited_for(
    far_client: AsyncClient, proxy: Proxy
) -> None:
    await proxy.refuse()
    submitting = asyncio.create_task(far_client.submit("health_check", "kb-1"))
    async with asyncio.timeout(PATIENCE_S):
        await proxy.refused.wait()

    proxy.accept()

    assert (await submitting).status == "queued"


async def test_a_service_that_stays_away_is_told_of(form: str, proxy: Proxy) -> None:
    client = client_of(form, proxy.url, retries=Retries(calls_max=2, pause_first_s=0.01))
    await proxy.refuse()

    with pytest.raises(Unreachable) as raised:
        await client.submit("health_check", "kb-1")

    await client.close()
    assert (raised.value.code, raised.value.status, raised.value.calls) == ("UNREACHABLE", 0, 2)


async def test_a_service_that_says_nothing_is_given_up(form: str, proxy: Proxy) -> None:
    client = client_of(form, proxy.url, retries=Retries(calls_max=1), timeout_s=0.1)
    proxy.fall_silent()

    with pytest.raises(Unreachable) as raised:
        await client.submit("health_check", "kb-1")

    await client.close()
    assert raised.value.timeout_s == 0.1
    assert raised.value.may_be_done


async def test_a_watch_goes_on_over_a_cut_line(
    far_client: AsyncClient, proxy: Proxy, store: RedisStore
) -> None:
    task = await far_client.submit("health_check", "kb-1")
    seen: list[Update] = []

    async for update in far_client.watch(task.id):
        seen.append(update)
        if update.type == "TaskSubmitted":
            await proxy.cut()
            await complete(store, task.id)

    assert [update.version for update in seen] == [1, 2, 3]
    assert seen[-1].result == {"chunks": 12}


async def test_a_feed_goes_on_over_a_cut_line_without_gap_or_double(
    far_client: AsyncClient, proxy: Proxy
) -> None:
    ids = [(await far_client.submit("health_check", "kb-1")).id for _ in range(3)]
    seen: list[str] = []

    async for update in far_client.follow(after="beginning", kb_id="kb-1"):
        seen.append(update.task_id)
        if len(seen) == 2:
            await proxy.cut()
            ids += [(await far_client.submit("health_check", "kb-1")).id for _ in range(2)]
        if len(seen) == 5:
            break

    assert seen == ids


async def test_a_page_that_is_answered_to_everything_is_no_feed(form: str) -> None:
    async def show_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n"
        writer.write(head + b"<p>\n\nhello")
        writer.close()

    server = await asyncio.start_server(show_page, "127.0.0.1", 0)
    client = client_of(form, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with asyncio.timeout(PATIENCE_S), server:
        with pytest.raises(UnexpectedAnswer, match="is no feed, but text/html"):
            await anext(client.follow())
        with pytest.raises(UnexpectedAnswer, match="is no feed, but text/html"):
            await anext(client.watch(UNKNOWN_ID))
    await client.close()


async def test_a_client_whose_connections_are_all_taken_says_so(form: str) -> None:
    taken, enough = asyncio.Event(), asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.set()
        await enough.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    once = Retries(calls_max=1)
    client = client_of(form, url, connections_max=1, timeout_s=0.2, retries=once)
    waiting = asyncio.create_task(client.wait(UNKNOWN_ID))
    async with asyncio.timeout(PATIENCE_S), server:
        await taken.wait()
        with pytest.raises(Unreachable, match=r"all 1 connections .* connections_max") as error:
            await client.get(UNKNOWN_ID)
        enough.set()
        with pytest.raises(Unreachable):
            await waiting
    await client.close()

    assert not error.value.may_be_done
