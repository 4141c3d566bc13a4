"""The news of a task's end reaches who asked for it: signed, again until it is taken."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from consumers.posting import RETRY_AFTER_S_MAX, retry_after_ms
from ledger.codec import decode_meta
from ledger.commands import CancelTask, RetryTask
from ledger.events import CallbackDelivered, CallbackFailed
from ledger.redis_store import RedisStore
from ledger.transact import transact
from tests.callbacks.receiving import (
    KEY,
    canceled,
    completed,
    notifying,
    receiving,
    settled,
    tried,
)
from tests.given import TRACE
from tests.places import assert_quiescent

OTHER_KEY = "whsec_c3dvcmRmaXNoIHN3b3JkZmlzaCBzd29yZGZpc2g="


async def test_the_news_of_an_end_is_what_the_contract_says(store: RedisStore):
    async with receiving() as receiver, notifying(store):
        url = f"{receiver.url}/api/v1/tasks/{{task_id}}/callback"
        task = await completed(store, url, b'{"chunks" : 12}', kb_id="handbook")
        [event] = await settled(store, task)

    [received] = receiver.received
    assert received.path == f"/api/v1/tasks/{task.id}/callback"
    assert received.headers["Content-Type"] == "application/json"
    assert list(received.message.items()) == [
        ("task_id", task.id),
        ("status", "completed"),
        ("result", {"chunks": 12}),
        ("error_message", ""),
        ("completed_at", received.message["completed_at"]),
        ("kb_id", "handbook"),
        ("task_type", "document_processing"),
    ]
    assert received.message["completed_at"].endswith("Z")
    assert event.event() == CallbackDelivered(1, receiver.url.removeprefix("http://"), 200)
    await assert_quiescent(store)


async def test_a_canceled_task_has_no_result_to_tell(store: RedisStore):
    async with receiving(204) as receiver, notifying(store):
        await settled(store, await canceled(store, receiver.url))

    [received] = receiver.received
    assert (received.message["status"], received.message["result"]) == ("canceled", None)


async def test_what_waits_is_told_when_a_notifier_comes(store: RedisStore):
    async with receiving() as receiver:
        tasks = [await canceled(store, receiver.url) for _ in range(20)]
        async with notifying(store):
            for task in tasks:
                await settled(store, task)

    assert {r.message["task_id"] for r in receiver.received} == {task.id for task in tasks}
    assert len(receiver.received) == 20


async def test_a_receiver_verifies_what_it_gets(store: RedisStore):
    async with receiving() as receiver, notifying(store):
        await settled(store, await canceled(store, receiver.url))

    [received] = receiver.received
    received.verify(KEY)
    with pytest.raises(WebhookVerificationError):
        Webhook(KEY).verify(received.body + b" ", dict(received.headers))


async def test_while_keys_are_changed_both_verify(store: RedisStore):
    async with receiving() as receiver, notifying(store, keys=(OTHER_KEY, KEY)):
        await settled(store, await canceled(store, receiver.url))

    [received] = receiver.received
    assert len(received.headers["webhook-signature"].split()) == 2
    for key in (KEY, OTHER_KEY):
        received.verify(key)


async def test_what_is_not_taken_is_told_again_under_the_same_id(store: RedisStore):
    async with receiving(500, 302, 404, 200) as receiver, notifying(store):
        task = await canceled(store, receiver.url)
        events = [recorded.event() for recorded in await settled(store, task)]

    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    assert len({received.body for received in receiver.received}) == 1
    codes = [event.status_code for event in events if isinstance(event, CallbackFailed)]
    assert codes == [500, 302, 404]
    assert isinstance(events[-1], CallbackDelivered)
    assert [r.headers["webhook-id"] for r in receiver.received] == [f"{task.id}.{task.version}"] * 4


async def test_another_end_of_a_task_is_other_news(store: RedisStore):
    async with receiving() as receiver, notifying(store):
        task = await canceled(store, receiver.url)
        await settled(store, task)
        await transact(store, task.id, RetryTask())
        await settled(store, (await transact(store, task.id, CancelTask())).task)

    first, second = receiver.received
    assert first.headers["webhook-id"] != second.headers["webhook-id"]


async def test_a_receiver_that_is_gone_is_told_no_more(store: RedisStore):
    async with receiving(410) as receiver, notifying(store):
        [event] = await settled(store, await canceled(store, receiver.url))

    failed = event.event()
    assert isinstance(failed, CallbackFailed)
    assert (failed.status_code, failed.retry_at) == (410, None)
    assert len(receiver.received) == 1
    await assert_quiescent(store)


async def test_it_is_given_up_when_its_time_is_over(store: RedisStore):
    async with receiving(503) as receiver, notifying(store, lasts_ms=0):
        [event] = await settled(store, await canceled(store, receiver.url))

    failed = event.event()
    assert isinstance(failed, CallbackFailed)
    assert failed.retry_at is None
    await assert_quiescent(store)


async def test_a_receiver_may_say_when_it_wants_to_be_asked_again(store: RedisStore):
    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "3600"})

    async with receiving(busy) as receiver, notifying(store):
        [event] = await tried(store, await canceled(store, receiver.url))

    failed = event.event()
    assert isinstance(failed, CallbackFailed)
    assert failed.retry_at is not None
    assert failed.retry_at - event.at >= 3_600_000


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("7", 7_000),
        (" 7 ", 7_000),
        ("0", 0),
        (format_datetime(NOW + timedelta(minutes=2), usegmt=True), 120_000),
        (format_datetime(NOW - timedelta(minutes=2), usegmt=True), 0),
        ("9" * 400, RETRY_AFTER_S_MAX * 1_000),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_S_MAX * 1_000),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Sun, 99 Foo 2026 99:99:99 GMT", None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        (f"Mon, 01 Jan 2026 {'9' * 20}:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(text: str | None, expected: int | None):
    assert retry_after_ms(text, NOW) == expected


async def test_two_notifiers_share_the_work_and_double_nothing(store: RedisStore, ledger_url: str):
    other = await RedisStore.open(ledger_url)
    async with receiving() as receiver, notifying(store), notifying(other):
        tasks = [await canceled(store, receiver.url) for _ in range(60)]
        for task in tasks:
            await settled(store, task)

    told = [received.message["task_id"] for received in receiver.received]
    assert sorted(told) == sorted(task.id for task in tasks)
    await other.close()


async def test_a_notifier_that_stops_ends_the_posts_it_has_begun(store: RedisStore):
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async with receiving(slow) as receiver:
        async with notifying(store) as notifier:
            task = await canceled(store, receiver.url)
            await receiver.wait_for(1)
            notifier.stop()
            late = await canceled(store, receiver.url)
            release.set()
        found = await store.load(task.id)

    assert found is not None
    assert found.state.callback_over
    assert [received.message["task_id"] for received in receiver.received] == [task.id]
    left = await store.load(late.id)
    assert left is not None
    assert left.state.callback_attempts == 0


async def test_a_result_that_is_no_text_is_told_as_far_as_it_is(store: RedisStore):
    async with receiving() as receiver, notifying(store):
        await settled(store, await completed(store, receiver.url, b'"\xff"'))

    [received] = receiver.received
    received.verify(KEY)
    assert json.loads(received.body)["result"] == "�"


async def test_a_callback_goes_on_with_the_trace_of_the_task(store: RedisStore):
    async with receiving(500, 200) as receiver, notifying(store):
        events = await settled(store, await canceled(store, receiver.url, trace=TRACE))

    assert [received.headers["traceparent"] for received in receiver.received] == [TRACE] * 2
    assert [decode_meta(event.meta).trace for event in events] == [TRACE] * 2


async def test_a_callback_without_a_trace_names_none(store: RedisStore):
    async with receiving() as receiver, notifying(store):
        await settled(store, await canceled(store, receiver.url))

    [received] = receiver.received
    assert "traceparent" not in received.headers
