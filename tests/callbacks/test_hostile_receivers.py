"""What the other side may do, and what it costs: an error in the history, and nothing else."""

import asyncio
import contextlib
import socket
import ssl
import tracemalloc
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web

from consumers import posting
from ledger.events import CallbackFailed
from ledger.redis_store import RedisStore
from ledger.store import Recorded
from tests.callbacks.receiving import (
    canceled,
    notifying,
    receiving,
    settled,
)

MIB = 1 << 20


def failure(events: Sequence[Recorded]) -> CallbackFailed:
    event = events[0].event()
    assert isinstance(event, CallbackFailed)
    return event


async def test_one_that_hangs_holds_up_nobody_else(store: RedisStore):
    hangs = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await hangs.wait()
        return web.Response()

    async with receiving(hang) as slow, receiving() as quick:
        async with notifying(store, concurrency=4, host_concurrency=2):
            for _ in range(50):
                await canceled(store, slow.url)
            await slow.wait_for(2)
            for _ in range(10):
                await settled(store, await canceled(store, quick.url))
            stuck = len(slow.received)
            hangs.set()
            await slow.wait_for(50)

    assert stuck == 2
    assert len(quick.received) == 10


async def test_one_that_does_not_answer_in_time_is_asked_again(store: RedisStore):
    hangs = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await hangs.wait()
        return web.Response()

    async with receiving(hang, 200) as receiver, notifying(store, timeout_ms=100):
        events = await settled(store, await canceled(store, receiver.url))
        hangs.set()

    assert failure(events).error == "there was no answer in time"
    assert failure(events).status_code is None
    assert len(events) == 2


async def test_who_says_yes_and_never_ends_was_told(store: RedisStore):
    # given a receiver whose answer begins, and never comes to its end
    hangs = asyncio.Event()

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = MIB
        await response.prepare(request)
        await response.write(b"x")
        await hangs.wait()
        return response

    # when it is posted to, then that is delivered
    async with receiving(trickle) as receiver, notifying(store, timeout_ms=5_000):
        events = await settled(store, await canceled(store, receiver.url))
        hangs.set()
    assert [event.type for event in events] == ["CallbackDelivered"]


async def test_an_endless_answer_is_not_read(store: RedisStore):
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        response.content_length = 1 << 30
        await response.prepare(request)
        part = b"x" * MIB
        while sent < 1 << 30:
            await response.write(part)
            sent += len(part)
        return response

    async with receiving(endless) as receiver, notifying(store):
        tracemalloc.start()
        await settled(store, await canceled(store, receiver.url))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    # What the sockets hold, and a part in hand on the sending side.
    assert sent < 64 * MIB
    assert peak < 16 * MIB


async def test_a_redirect_is_not_followed(store: RedisStore):
    async with receiving() as inner:

        async def redirect(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": inner.url})

        async with receiving(redirect) as receiver, notifying(store, lasts_ms=0):
            events = await settled(store, await canceled(store, receiver.url))

        assert inner.received == []
    assert failure(events).error == "it answered 307; redirects are not followed"


async def test_a_name_that_leads_to_a_private_address_is_not_connected_to(store: RedisStore):
    async with receiving() as inner:
        port = inner.url.rpartition(":")[2]
        url = f"http://hooks.test:{port}/"

        async def lookup(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.1", "::ffff:127.0.0.1"]

        async with notifying(store, hosts=("hooks.test",), lookup=lookup, lasts_ms=0):
            events = await settled(store, await canceled(store, url))

        assert inner.received == []
    assert "hooks.test leads to 127.0.0.1" in failure(events).error
    assert "callback_hosts" in failure(events).error


async def test_of_several_addresses_only_an_allowed_one_is_connected_to(store: RedisStore):
    """The name is looked up once for a connection, so its second answer cannot be another."""
    looked_up: list[str] = []

    async def lookup(host: str, port: int) -> Sequence[str]:
        looked_up.append(host)
        return ["10.255.255.1", "127.0.0.7"]

    async with receiving(host="127.0.0.7") as receiver:
        url = f"http://hooks.test:{receiver.url.rpartition(':')[2]}/"
        hosts = ("hooks.test", "127.0.0.7")
        async with notifying(store, hosts=hosts, lookup=lookup):
            await settled(store, await canceled(store, url))

    assert looked_up == ["hooks.test"]
    assert receiver.received[0].headers["Host"].startswith("hooks.test:")


async def test_a_host_that_was_taken_off_the_list_is_not_called_any_more(store: RedisStore):
    async with receiving() as receiver, notifying(store, hosts=("hooks.test",), lasts_ms=0):
        events = await settled(store, await canceled(store, receiver.url))

    assert receiver.received == []
    assert "not on the list" in failure(events).error


async def test_a_look_up_that_hangs_holds_up_nobody_else(store: RedisStore):
    never = asyncio.Event()

    async def lookup(host: str, port: int) -> Sequence[str]:
        if host == "hangs.test":
            await never.wait()
        return ["127.0.0.1"]

    hosts = ("hangs.test", "hooks.test", "127.0.0.1")
    async with receiving() as receiver:
        port = receiver.url.rpartition(":")[2]
        async with notifying(store, hosts=hosts, lookup=lookup, timeout_ms=300, lasts_ms=0):
            stuck = await canceled(store, "http://hangs.test:8080/")
            await settled(store, await canceled(store, f"http://hooks.test:{port}/"))
            events = await settled(store, stuck)

    assert failure(events).error == "there was no answer in time"


async def test_nobody_there(store: RedisStore):
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    async with notifying(store, lasts_ms=0):
        events = await settled(store, await canceled(store, f"http://127.0.0.1:{port}/"))

    assert "Connect" in failure(events).error


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 99999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
    ],
    ids="closed nonsense cut status short length heads head chunks interim".split(),
)
async def test_an_answer_that_is_none_is_a_failure(store: RedisStore, answer: bytes):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with notifying(store, lasts_ms=0):
        events = await settled(store, await canceled(store, f"http://127.0.0.1:{port}/"))
    server.close()
    await server.wait_closed()

    failed = failure(events)
    assert failed.status_code is None
    assert 0 < len(failed.error) <= 300
    # aiohttp's own words have a status, which nobody answered.
    assert "400" not in failed.error


async def test_a_moment_that_is_none_is_not_waited_for(store: RedisStore):
    async def busy(request: web.Request) -> web.Response:
        never = {"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}
        return web.Response(status=503, headers=never)

    async with receiving(busy, 200) as receiver, notifying(store):
        events = await settled(store, await canceled(store, receiver.url))

    assert failure(events).status_code == 503
    assert len(events) == 2


async def test_interim_answers_have_an_end_though_they_do_not(store: RedisStore):
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"}")
        with contextlib.suppress(OSError):
            while sent < 256 * MIB:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000)
                await writer.drain()
                sent += 25_000
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with notifying(store, lasts_ms=0):
        events = await settled(store, await canceled(store, f"http://127.0.0.1:{port}/"))
    server.close()
    await server.wait_closed()

    assert "too long" in failure(events).error
    assert sent < 64 * MIB


async def test_a_fault_of_ours_in_one_post_is_a_failure_of_that_one(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    def broken(text: str | None, now: datetime) -> int:
        raise ArithmeticError("one that nobody thought of")

    monkeypatch.setattr(posting, "retry_after_ms", broken)
    async with receiving(503, 200) as receiver, notifying(store):
        events = await settled(store, await canceled(store, receiver.url))

    assert failure(events).error == "ArithmeticError: one that nobody thought of"
    assert len(events) == 2


async def test_a_certificate_is_verified(store: RedisStore, certificate: ssl.SSLContext):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("nothing may be said to a server that nobody vouches for")

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate)
    port = server.sockets[0].getsockname()[1]
    async with notifying(store, lasts_ms=0):
        events = await settled(store, await canceled(store, f"https://localhost:{port}/"))
    server.close()
    await server.wait_closed()

    assert "certificate" in failure(events).error.lower()


async def test_no_proxy_is_asked(store: RedisStore, monkeypatch: pytest.MonkeyPatch):
    async with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with notifying(store):
            await settled(store, await canceled(store, receiver.url))

    assert (len(receiver.received), proxy.received) == (1, [])


async def test_a_task_that_cannot_be_read_holds_up_no_other(store: RedisStore):
    async with receiving() as receiver:
        broken = await canceled(store, receiver.url)
        client: Any = store.client
        await client.hset(f"{{ledgerq:0}}:task:{broken.id}", "state", "{")
        async with notifying(store):
            await settled(store, await canceled(store, receiver.url))
        await client.delete(f"{{ledgerq:0}}:task:{broken.id}")

    assert len(receiver.received) == 1
