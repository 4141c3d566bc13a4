"""The service as a process sees it: sockets, stopping, and bytes that are no HTTP."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import httpx2
import pytest
import uvloop
from uvicorn.server import ServerState

from api.server import HEAD_BYTES_MAX, JoinedWrites, Protocol, bind, serve, uvicorn_config
from consumers.programs import NoServer
from ledger.redis_store import LedgerMismatch, RedisStore
from ledger.settings import Settings
from tests.api.conftest import Service
from tests.api.requests import TASKS, body, complete, submitted
from tests.servers import Server, valkey_binary


async def spoken(port: int, sent: bytes) -> bytes:
    """What the service answers to bytes, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_task_goes_over_the_wire(web: httpx2.AsyncClient, store: RedisStore):
    created = await web.post(TASKS, json=body())
    await complete(store, created.json()["id"])

    read = await web.get(created.headers["location"], params={"wait": "20"})

    assert created.status_code == 201
    assert read.json()["status"] == "completed"
    assert "server" not in read.headers


async def test_head_is_get_without_a_body(web: httpx2.AsyncClient):
    task = await submitted(web)

    head = await web.head(f"{TASKS}/{task['id']}")

    full = await web.get(f"{TASKS}/{task['id']}")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == full.headers["content-length"]
    assert head.headers["etag"] == full.headers["etag"]


async def test_one_connection_serves_many_requests_in_order(service: Service):
    one = b"GET /livez HTTP/1.1\r\nhost: x\r\nx-request-id: %d\r\n"

    answer = await spoken(
        service.port,
        b"".join(one % n + b"\r\n" for n in range(9)) + one % 9 + b"connection: close\r\n\r\n",
    )

    ids = [line for line in answer.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert ids == [b"x-request-id: %d" % n for n in range(10)]
    assert answer.count(b'{"status":"healthy"}') == 10


async def test_a_large_body_in_pieces_is_taken(web: httpx2.AsyncClient):
    payload = b'{"a":"' + b"x" * 900_000 + b'"}'
    sent = b'{"task_type":"health_check","kb_id":"k","payload":%b}' % payload

    async def pieces():
        for start in range(0, len(sent), 10_000):
            yield sent[start : start + 10_000]

    created = await web.post(TASKS, content=pieces())

    assert created.status_code == 201
    assert payload in (await web.get(created.headers["location"])).content


async def test_a_body_above_the_bound_is_refused_and_the_connection_lives(
    web: httpx2.AsyncClient,
):
    refused = await web.post(TASKS, content=b" " * (3 << 20))

    assert refused.status_code == 413
    assert (await web.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n"],
    ids=["text", "tls", "version"],
)
async def test_what_is_no_http_gets_an_error_of_the_one_shape(service: Service, sent: bytes):
    head, _, content = (await spoken(service.port, sent)).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nx-request-id: " in head
    assert json.loads(content)["code"] == "INVALID_REQUEST"


async def test_endless_headers_are_cut_off(service: Service):
    sent = b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * (HEAD_BYTES_MAX * 8)

    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(sent)
    async with asyncio.timeout(20):
        first = await reader.readline()
    writer.transport.abort()

    assert first.startswith(b"HTTP/1.1 431 ")


async def test_a_whole_head_above_the_bound_is_refused(service: Service):
    lines = b"".join(b"x-%d: %b\r\n" % (n, b"y" * 1_000) for n in range(120))

    head, _, content = (
        await spoken(service.port, b"GET /livez HTTP/1.1\r\n" + lines + b"\r\n")
    ).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(content)["code"] == "HEADERS_TOO_LARGE"


async def test_a_body_that_comes_with_its_head_does_not_count_as_head(service: Service):
    payload = b'{"a":"%b"}' % (b"x" * 2 * HEAD_BYTES_MAX)
    sent = b'{"task_type":"health_check","kb_id":"k","payload":%b}' % payload
    head = b"POST /api/v1/tasks HTTP/1.1\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"

    answer = await spoken(service.port, head % len(sent) + sent)

    assert answer.startswith(b"HTTP/1.1 201 ")


class Clock:
    """An event loop's timers, which nobody fires; and a transport that only opens."""

    def __init__(self) -> None:
        self.running = 0
        self.started = 0

    def call_later(self, _seconds: float, _callback: Callable[[], None]) -> "Clock":
        self.running += 1
        self.started += 1
        return self

    def cancel(self) -> None:
        self.running -= 1

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, _name: str) -> None:
        return None


def open_protocol(clock: Clock) -> Protocol:
    async def app(_scope: object, _receive: object, _send: object) -> None:
        return

    config = uvicorn_config(app, Settings())
    protocol = Protocol(config, ServerState(), {}, cast("asyncio.AbstractEventLoop", clock))
    protocol.connection_made(cast("asyncio.Transport", clock))
    return protocol


@pytest.mark.parametrize(
    ("sent", "clocks"),
    [(b"", 1), (b"\r\n" * 9, 1), (b"GET / HTTP/1.1\r\nx: " + b"y" * 99, 2)],
    ids=["silence", "blank lines", "a head"],
)
def test_bytes_that_trickle_in_do_not_prolong_the_time_of_a_head(sent: bytes, clocks: int):
    clock = Clock()
    protocol = open_protocol(clock)

    for byte in sent:
        protocol.data_received(bytes([byte]))

    assert (clock.running, clock.started) == (1, clocks)


async def test_a_caller_in_the_middle_of_a_wait_is_answered_at_a_stop(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(web)
    request = asyncio.create_task(web.get(f"{TASKS}/{task['id']}", params={"wait": "60"}))
    async with asyncio.timeout(20):
        while not has_reader():  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0)
        service.stop.set()
        answer = await request

    assert answer.json()["status"] == "queued"


async def test_a_caller_that_a_stop_does_not_wait_for_is_told_to_come_again(
    store: RedisStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    service = Service()
    settings = Settings(port=0, grpc_port=0, data_dir=str(tmp_path), drain_timeout_ms=1)
    running = asyncio.create_task(
        serve(settings, store, stop=service.stop, on_started=service.on_started)
    )
    async with asyncio.timeout(20):
        await service.started.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n")
        writer.write(b"Content-Type: multipart/form-data; boundary=b\r\n")
        writer.write(b"Content-Length: 1000\r\n\r\n--b\r\n")
        begun = await reader.readuntil(b"\r\n\r\n")
        service.stop.set()
        answer = await reader.read()
        writer.close()
        await running

    assert begun.startswith(b"HTTP/1.1 100 ")
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in head
    assert json.loads(text)["code"] == "SERVICE_UNAVAILABLE"
    assert "Exception in ASGI application" not in caplog.text


def has_reader() -> bool:
    return any(task.get_name().startswith("feed-") for task in asyncio.all_tasks())


async def test_an_address_in_use_is_named():
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            bind("127.0.0.1", port)


async def test_without_a_ledger_to_open_nothing_is_served(tmp_path: Path):
    with pytest.raises(NoServer, match="no Redis is named"):
        await serve(Settings(port=0, data_dir=str(tmp_path)))


async def test_another_ledger_is_not_served(ledger_url: str, store: RedisStore):
    with pytest.raises(LedgerMismatch):
        await serve(Settings(port=0, redis_url=ledger_url, partitions=store.partitions + 1))


@pytest.mark.timeout(90)
async def first_answer(web: httpx2.AsyncClient) -> httpx2.Response:
    """Of /livez, once somebody listens."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(httpx2.ConnectError):
                return await web.get("/livez")
            await asyncio.sleep(0.02)


async def test_a_server_that_comes_late_is_waited_for_with_answers():
    started, stop = asyncio.Event(), asyncio.Event()
    with tempfile.TemporaryDirectory(prefix="lq-") as folder, bind("127.0.0.1", 0) as listener:
        server = Server(valkey_binary(), folder)
        port = listener.getsockname()[1]
        running = asyncio.create_task(
            serve(
                Settings(redis_url=server.url, redis_timeout_ms=100, grpc_port=0),
                listener=listener,
                stop=stop,
                on_started=lambda _host, _port: started.set(),
            )
        )
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as web:
            live = await first_answer(web)
            early = await web.post(TASKS, json=body())
            health = await web.get("/health")
            server.start()
            async with asyncio.timeout(20):
                await started.wait()
            created = await web.post(TASKS, json=body())
        stop.set()
        async with asyncio.timeout(20):
            await running
        server.stop()

    assert (live.status_code, live.json()) == (200, {"status": "healthy"})
    assert (early.status_code, health.status_code) == (503, 503)
    assert early.json()["code"] == "SERVICE_UNAVAILABLE"
    assert early.headers["retry-after"]
    assert early.headers["x-request-id"]
    assert created.status_code == 201


async def test_an_api_that_waits_for_its_server_can_be_stopped(tmp_path: Path):
    stop = asyncio.Event()
    with bind("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        absent = f"unix://{tmp_path}/absent"
        settings = Settings(redis_url=absent, redis_timeout_ms=100, grpc_port=0)
        running = asyncio.create_task(serve(settings, listener=listener, stop=stop))
        async with httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as web:
            await web.get("/livez")
        stop.set()
        async with asyncio.timeout(20):
            await running


PROCESS = """
import sys
from api.server import run
from ledger.settings import Settings

run(Settings(redis_url=sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]), grpc_port=0))
print("closed")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_in_order(ledger_url: str, number: signal.Signals):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROCESS, ledger_url, str(port)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    try:
        async with asyncio.timeout(30):
            await answering(port)
            process.send_signal(number)
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert printed.endswith(b"closed\n")
    assert process.returncode == 0


async def answering(port: int) -> None:
    """Return when the port answers."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        while True:
            try:
                await client.get("/livez")
                return
            except httpx2.TransportError:
                await asyncio.sleep(0.05)


def test_the_head_of_an_answer_to_a_caller_who_hung_up_is_dropped():
    unhandled: list[object] = []

    async def answer_too_late() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        ours, theirs = socket.socketpair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        transport.abort()
        await asyncio.sleep(0)
        JoinedWrites(transport, loop).write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.sleep(0)
        theirs.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(answer_too_late())

    assert unhandled == []
