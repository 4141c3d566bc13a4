"""How tasks stand, over a WebSocket."""

import asyncio
import base64
import contextlib
import json
import os
import socket
from pathlib import Path

import httpx2
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from api import outbox, task_feed, task_watch, websocket
from ledger.commands import CancelTask, CompleteTask, DeliverCallback, FailAttempt, ReportProgress
from ledger.events import ErrorKind
from ledger.keys import PartitionKeys
from ledger.redis_connection import send
from ledger.redis_store import RedisStore, StoreOptions
from ledger.transact import transact
from tests.api.conftest import Service
from tests.api.requests import UNKNOWN_ID, complete, do, start, submitted
from tests.api.test_event_stream import served
from tests.api.watching import PATIENCE_S, address, watching
from tests.checks import read_all

WATCH = "/ws/tasks"

# -- what is told -----------------------------------------------------------------------------


async def test_each_change_of_a_task_is_told(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    async with watching(service.port) as client:
        task = await submitted(web, kb_id="kb-7")
        await start(store, task["id"])
        await do(store, task["id"], ReportProgress(40, "parsing"))
        await do(store, task["id"], CompleteTask(1, msgspec.Raw(b'{"chunks": 12}')))
        told = await client.several(4)

    positions = [str(event.position) for event in await store.history(task["id"])]
    assert [one["position"] for one in told] == positions
    assert [(one["status"], one["progress"], one["message"]) for one in told] == [
        ("queued", 0, ""),
        ("processing", 0, ""),
        ("processing", 40, "parsing"),
        ("completed", 100, "parsing"),
    ]
    assert told[3] == {
        "type": "task_update",
        "task_id": task["id"],
        "status": "completed",
        "progress": 100,
        "message": "parsing",
        "kb_id": "kb-7",
        "task_type": "document_processing",
        "result": {"chunks": 12},
        "error_message": "",
        "position": positions[3],
        "at": told[3]["at"],
    }
    assert [*told[0]] == [name for name in told[3] if name != "result"]


async def test_what_changes_nothing_that_is_shown_is_not_told(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    async with watching(service.port) as client:
        task = await submitted(web)
        await start(store, task["id"])
        await do(store, task["id"], FailAttempt(1, "no answer", ErrorKind.RETRYABLE))
        await do(store, task["id"], CancelTask())
        told = await client.several(4)

    types = [event.type for event in await store.history(task["id"])]
    assert types[2:] == ["AttemptFailed", "RetryScheduled", "TaskCanceled"]
    assert [(one["status"], one["error_message"]) for one in told] == [
        ("queued", ""),
        ("processing", ""),
        ("retrying", "no answer"),
        ("canceled", "no answer"),
    ]
    assert told[3]["result"] is None


async def test_a_task_older_than_the_connection_is_told_as_it_stands(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(web)
    await start(store, task["id"])
    await do(store, task["id"], ReportProgress(40, "parsing"))

    async with watching(service.port) as client:
        await do(store, task["id"], CancelTask())
        told = await client.told()

    assert (told["status"], told["progress"], told["message"]) == ("canceled", 40, "parsing")


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"kb_id": "a"}, [0, 1]),
        ({"kb_id": "a,b"}, [0, 1, 2]),
        ({"task_type": "health_check"}, [1]),
        ({"status": "queued"}, [0, 1, 2]),
        ({"kb_id": "a", "task_type": "document_processing"}, [0]),
    ],
    ids=str,
)
async def test_only_what_is_wanted_is_told(
    service: Service, web: httpx2.AsyncClient, query: dict[str, str], wanted: list[int]
):
    tasks = [
        await submitted(web, kb_id="a"),
        await submitted(web, kb_id="a", task_type="health_check"),
        await submitted(web, kb_id="b"),
    ]
    async with watching(service.port, after="beginning", **query) as client:
        told = await client.several(len(wanted))

    assert [one["task_id"] for one in told] == [tasks[i]["id"] for i in wanted]


# -- from where -------------------------------------------------------------------------------


async def test_catching_up_meets_the_present_without_gap_or_duplicate(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    async def write(count: int) -> None:
        for _ in range(count):
            await submitted(web)

    async def follow(after: str) -> list[str]:
        async with watching(service.port, after=after) as client:
            found = [await client.told()]
            while found[-1]["kb_id"] != "the-end":
                found.append(await client.told())
            return [one["position"] for one in found]

    await write(100)
    past = [str(e.position) for e in await read_all(store, 0)]
    starts = ["0:0-0", *past[::10]]
    async with asyncio.TaskGroup() as group:
        following = [group.create_task(follow(after)) for after in starts]
        await asyncio.gather(*(write(40) for _ in range(4)))
        await submitted(web, kb_id="the-end")

    everything = ["0:0-0", *(str(e.position) for e in await read_all(store, 0))]
    for after, told in zip(starts, following, strict=True):
        assert told.result() == everything[everything.index(after) + 1 :]


async def test_who_comes_back_at_once_is_told_from_memory_what_he_missed(
    service: Service, web: httpx2.AsyncClient, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    async with watching(service.port):
        tasks = [await submitted(web) for _ in range(5)]
        first, *missed = [str(e.position) for e in await read_all(store, 0)]
        # Nobody can read the past any more.
        await send(store.client, ("XTRIM", PartitionKeys(0).events, "MAXLEN", 1))
        monkeypatch.setattr("api.audience.Audience._begin_at", _as_named)
        async with watching(service.port, after=first) as client:
            told = await client.until(missed[-1])

    assert [one["task_id"] for one in told] == [task["id"] for task in tasks[1:]]


async def _as_named(_self: object, _field: str, _partition: int, named: object) -> object:
    return named


async def test_several_partitions_are_resumed_each_from_its_own_position(
    ledger_url: str, tmp_path: Path
):
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=3))
    async with served(store, tmp_path) as web:
        port = web.base_url.port
        assert port is not None
        query = {"after": "beginning", "positions": "true"}
        async with watching(port, **query) as client:
            begun = await client.told()
            for _ in range(20):
                await submitted(web)
            first = await client.several(12)
        reached = {p.partition(":")[0]: p for p in begun["position"].split(",")}
        reached |= {one["position"].partition(":")[0]: one["position"] for one in first}
        async with watching(port, after=",".join(reached.values())) as client:
            others = await client.several(8)
    everything = {str(e.position) for p in range(3) for e in await read_all(store, p)}
    await store.close()

    assert begun == {"type": "position", "position": "0:0-0,1:0-0,2:0-0"}
    told = [one["position"] for one in (*first, *others)]
    assert (len(told), set(told)) == (20, everything)


async def test_a_client_that_is_told_nothing_may_still_move_on(
    service: Service,
    web: httpx2.AsyncClient,
    store: RedisStore,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(task_watch, "PING_S", 0.05)

    async with watching(service.port, kb_id="nobody's", positions="true") as client:
        await submitted(web)
        told = await client.until(str(await store.last_position(0)))

    assert {one["type"] for one in told} == {"position"}


# -- subscriptions ----------------------------------------------------------------------------


async def test_a_subscription_begins_with_how_the_task_stands(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(web)
    await start(store, task["id"])
    async with watching(service.port) as client:
        await client.say("subscribe", task["id"])
        first = await client.told()
        await submitted(web)
        await do(store, task["id"], ReportProgress(40, "parsing"))
        then = await client.told()

    assert (first["type"], first["status"]) == ("task_update", "processing")
    assert first["position"] == client.begun_at
    assert (then["task_id"], then["progress"]) == (task["id"], 40)


async def test_a_finished_task_is_told_with_its_result(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(web)
    await complete(store, task["id"])

    async with watching(service.port) as client:
        await client.say("subscribe", task["id"])
        told = await client.told()

    assert (told["status"], told["result"]) == ("completed", {"chunks": 12})


async def test_a_subscription_says_since_when_the_task_stands_so(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    """Not what happened last, but what was told last."""
    task = await submitted(web, callback_url="http://127.0.0.1/")
    ended = (await complete(store, task["id"])).task
    delivered = DeliverCallback(ended.version, "127.0.0.1", 204)
    await transact(store, task["id"], delivered, now_ms=store.now_ms() + 5_000)

    async with watching(service.port, task_id=task["id"], after="beginning") as client:
        [*_, told] = await client.several(3)
        await client.say("subscribe", task["id"])
        subscribed = await client.told()

    assert subscribed["position"] != told["position"]
    assert {**subscribed, "position": ""} == {**told, "position": ""}


async def test_who_subscribes_to_many_is_answered_as_fast_as_he_reads(
    service: Service, web: httpx2.AsyncClient, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox, "BUFFER_BYTES_MAX", 64 * 1024)
    ids = [(await submitted(web))["id"] for _ in range(30)]
    for task_id in ids:
        await complete(store, task_id, msgspec.json.encode("x" * 900_000))

    async with (
        connect(address(service.port), proxy=None, max_queue=1) as slow,
        watching(service.port) as other,
    ):
        for task_id in ids:
            await slow.send(json.dumps({"type": "subscribe", "task_id": task_id}))
        # Meanwhile nothing is read of what is more than fits.
        for task_id in ids:
            await other.say("subscribe", task_id)
            await other.told()
        async with asyncio.timeout(PATIENCE_S):
            told = [json.loads(await slow.recv())["task_id"] for _ in ids]

    assert told == ids


async def test_several_tasks_are_subscribed_to_and_one_is_left(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    one, other, third = [await submitted(web) for _ in range(3)]
    async with watching(service.port, task_id=one["id"]) as client:
        await client.say("subscribe", other["id"])
        await client.told()
        await client.say("unsubscribe", one["id"])
        await client.say("subscribe", third["id"])
        await client.told()
        for task in (one, other, third):
            await do(store, task["id"], CancelTask())
        told = await client.several(2)

    assert [update["task_id"] for update in told] == [other["id"], third["id"]]


async def test_nothing_is_missed_or_doubled_around_a_subscription(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(web)
    await start(store, task["id"])

    async def work() -> None:
        for percent in range(1, 100):
            await do(store, task["id"], ReportProgress(percent))
        await do(store, task["id"], CancelTask())

    async with watching(service.port, status="processing,canceled") as client:
        working = asyncio.create_task(work())
        await client.say("subscribe", task["id"])
        told = [await client.told()]
        while told[-1]["status"] != "canceled":
            told.append(await client.told())
        await working

    percents = [one["progress"] for one in told[:-1]]
    assert percents == [*range(percents[0], 100)]


async def test_a_task_that_is_not_there_cannot_be_subscribed_to(service: Service):
    async with watching(service.port) as client:
        await client.say("subscribe", UNKNOWN_ID)
        told = await client.told()

    assert (told["type"], told["code"]) == ("error", "TASK_NOT_FOUND")
    assert told["details"] == {"task_id": UNKNOWN_ID}


async def test_a_task_that_the_filter_leaves_out_cannot_be_subscribed_to(
    service: Service, web: httpx2.AsyncClient
):
    task = await submitted(web, kb_id="kb-1")
    async with watching(service.port, kb_id="kb-2") as client:
        await client.say("subscribe", task["id"])
        told = await client.told()
        await submitted(web, kb_id="kb-2")
        then = await client.told()

    assert told["code"] == "INVALID_REQUEST"
    assert "its kb_id is kb-1" in told["message"]
    assert told["details"]["task_id"] == task["id"]
    assert then["kb_id"] == "kb-2"


async def test_subscriptions_of_one_connection_are_bounded(
    service: Service, web: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(task_watch, "TASKS_MAX", 1)
    one, other = [await submitted(web) for _ in range(2)]
    async with watching(service.port, task_id=one["id"]) as client:
        await client.say("subscribe", other["id"])
        refused = await client.told()
        await client.say("unsubscribe", one["id"])
        await client.say("subscribe", other["id"])
        told = await client.told()

    assert "at most 1 tasks" in refused["message"]
    assert refused["details"]["task_id"] == other["id"]
    assert told["task_id"] == other["id"]


async def test_what_was_never_narrowed_cannot_be_unsubscribed_from(service: Service):
    async with watching(service.port) as client:
        await client.say("unsubscribe", UNKNOWN_ID)
        told = await client.told()

    assert "tells of all" in told["message"]


# -- garbage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        "hello",
        "[]",
        "{}",
        '{"type": "subscribe"}',
        '{"type": "subscribe", "task_id": 7}',
        '{"type": "subscribe", "task_id": "x", "more": 1}',
        '{"type": "publish", "task_id": "x"}',
        '{"type": "subscribe", "task_id": "no-id"}',
        "[" * 16_000,
        b"\x00\xff",
        "",
    ],
    ids=lambda sent: repr(sent[:50]),
)
async def test_a_message_that_is_none_is_answered_with_an_error(
    service: Service, web: httpx2.AsyncClient, sent: str | bytes
):
    async with watching(service.port) as client:
        await client.socket.send(sent)
        refused = await client.told()
        task = await submitted(web)
        told = await client.told()

    assert (refused["type"], refused["code"]) == ("error", "INVALID_REQUEST")
    assert refused["message"]
    assert told["task_id"] == task["id"]


async def test_who_goes_on_sending_nonsense_is_shut_out(service: Service):
    async with watching(service.port) as client:
        for _ in range(task_feed.ERRORS_MAX + 1):
            await client.socket.send("hello")
        code, reason = await client.closed()

    assert code == 1008
    assert "were refused" in reason


async def test_a_huge_message_ends_the_connection(service: Service):
    async with watching(service.port) as client:
        await client.socket.send("x" * (websocket.MESSAGE_BYTES_MAX + 1))
        code, _ = await client.closed()

    assert code == 1009


class Refused(Exception):
    """Another answer than 101."""


async def shaken(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection after its handshake, byte by byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {WATCH} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        "".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"):
        writer.close()
        raise Refused(head)
    return reader, writer


def _read_nothing(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (b"\xff" * 100, 1002),
        (b"\x81\x82\x00\x00\x00\x00\xff\xff", 1007),
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
    ],
    ids=["unmasked", "noise", "utf-8", "http"],
)
async def test_bytes_that_are_no_frames_end_the_connection(
    service: Service, sent: bytes, code: int
):
    reader, writer = await shaken(service.port)
    writer.write(sent)
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()

    assert answer[:1] == b"\x88"
    assert int.from_bytes(answer[2:4], "big") == code


@pytest.mark.parametrize(
    "frame",
    [b"\x89\x80\x00\x00\x00\x00", b"\x01\x80\x00\x00\x00\x00", b"\x81\x80\x00\x00\x00\x00"],
    ids=["pings", "fragments", "texts"],
)
async def test_a_client_that_only_sends_is_read_no_further(service: Service, frame: bytes):
    first = b"\x01\x80\x00\x00\x00\x00" if frame[0] == 1 else b""
    again = b"\x00" + frame[1:] if frame[0] == 1 else frame
    loop = asyncio.get_running_loop()
    reader, writer = await shaken(service.port)
    _read_nothing(writer)
    writer.write(first + again * 2_000_000)

    before = loop.time()
    async with watching(service.port) as other:
        await other.say("subscribe", UNKNOWN_ID)
        told = await other.told()
    writer.transport.abort()

    assert told["code"] == "TASK_NOT_FOUND"
    assert loop.time() > before
    del reader


# -- slow clients, and many --------------------------------------------------------------------


async def test_a_slow_client_is_dropped_alone(
    service: Service, web: httpx2.AsyncClient, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox, "BUFFER_BYTES_MAX", 64 * 1024)
    monkeypatch.setattr(websocket, "CLOSE_S", 0.1)
    result = msgspec.json.encode("x" * 500_000)

    reader, writer = await shaken(service.port)
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    _read_nothing(writer)
    async with watching(service.port, status="completed") as client:
        for _ in range(30):
            task = await submitted(web)
            await complete(store, task["id"], result)
            told = await client.told()
            assert told["task_id"] == task["id"]
        await until_metric(web, "websocket_dropped_total 1.0")
        await until_metric(web, "websocket_clients 1.0")
    writer.transport.abort()
    del reader


async def test_a_slow_client_that_reads_at_last_learns_why(
    service: Service, web: httpx2.AsyncClient, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox, "BUFFER_BYTES_MAX", 64 * 1024)
    result = msgspec.json.encode("x" * 900_000)
    async with connect(address(service.port), proxy=None, max_queue=1) as slow:
        while "websocket_dropped_total 1.0" not in (await web.get("/metrics")).text:
            task = await submitted(web)
            await complete(store, task["id"], result)
        with contextlib.suppress(Exception):
            while True:
                await slow.recv()

    assert slow.close_code == 1013


async def until_metric(web: httpx2.AsyncClient, line: str) -> None:
    """Return when the service says so."""
    async with asyncio.timeout(PATIENCE_S):
        while line not in (await web.get("/metrics")).text:
            pass


async def test_a_slow_reader_of_the_past_gets_all_of_it(
    service: Service, web: httpx2.AsyncClient, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox, "BUFFER_BYTES_MAX", 64 * 1024)
    result = msgspec.json.encode("x" * 300_000)
    for _ in range(20):
        task = await submitted(web)
        await complete(store, task["id"], result)

    async with watching(service.port, after="beginning", status="completed") as client:
        told = await client.several(20)

    assert len({one["task_id"] for one in told}) == 20


async def test_a_client_that_answers_no_ping_is_let_go(
    service: Service, web: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(websocket, "PING_S", 0.05)
    monkeypatch.setattr(websocket, "CLOSE_S", 0.1)

    reader, writer = await shaken(service.port)
    async with asyncio.timeout(PATIENCE_S):
        told = await reader.read()
    writer.close()

    assert told.startswith(b"\x89\x00\x88")
    assert b"no answer to a ping" in told
    await until_metric(web, "websocket_clients 0.0")


async def test_a_client_that_answers_pings_stays(service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(websocket, "PING_S", 0.3)

    reader, writer = await shaken(service.port)
    for _ in range(2):
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.readexactly(2) == b"\x89\x00"
        writer.write(b"\x8a\x80\x00\x00\x00\x00")
    writer.close()


async def test_a_client_whose_answers_to_pings_lie_behind_what_it_asked_for_stays(
    service: Service, web: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    """It is answered as fast as it reads, and nothing else is read of it meanwhile."""
    monkeypatch.setattr(websocket, "PING_S", 0.05)
    has_read = asyncio.Event()

    async def room(_: task_watch.TaskWatch) -> None:
        await has_read.wait()

    monkeypatch.setattr(task_watch.TaskWatch, "room", room)
    task = await submitted(web)
    asked = json.dumps({"type": "subscribe", "task_id": task["id"]}).encode()

    reader, writer = await shaken(service.port)
    writer.write(2 * (bytes((0x81, 0x80 | len(asked), 0, 0, 0, 0)) + asked))
    async with asyncio.timeout(PATIENCE_S):
        pings = await reader.readexactly(3 * 2)
        has_read.set()
        told = await reader.readuntil(b"}")
    writer.close()

    assert pings == 3 * b"\x89\x00"
    assert task["id"].encode() in told


async def test_more_clients_than_there_is_room_for_are_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(task_feed, "CLIENTS_MAX", 1)

    async with watching(service.port):
        with pytest.raises(InvalidStatus) as refused:
            async with watching(service.port):
                pass

    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["retry-after"]


async def test_a_thousand_connections_at_once_are_bounded_and_let_go(
    service: Service, web: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(task_feed, "CLIENTS_MAX", 900)

    async def opened() -> asyncio.StreamWriter | None:
        with contextlib.suppress(Refused):
            return (await shaken(service.port))[1]
        return None

    writers: list[asyncio.StreamWriter | None] = []
    for _ in range(10):
        writers += await asyncio.gather(*(opened() for _ in range(100)))
    accepted = [writer for writer in writers if writer is not None]
    during = await submitted(web)
    for writer in accepted:
        writer.transport.abort()
    await until_metric(web, "websocket_clients 0.0")

    assert len(accepted) == 900
    assert during["status"] == "queued"


async def test_a_stopping_server_sends_its_clients_elsewhere(service: Service):
    async with watching(service.port) as client:
        service.stop.set()
        code, _ = await client.closed()

    assert code == 1012


# -- the handshake ----------------------------------------------------------------------------


async def test_a_plain_get_is_asked_to_upgrade(web: httpx2.AsyncClient):
    answer = await web.get(WATCH, headers={"X-Request-ID": "r-1"})

    assert (answer.status_code, answer.json()["code"]) == (426, "UPGRADE_REQUIRED")
    assert answer.headers["upgrade"] == "websocket"
    assert answer.headers["x-request-id"] == "r-1"


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize(
    "changed",
    [
        {"Sec-WebSocket-Version": "7"},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Version": ""},
    ],
    ids=str,
)
async def test_a_malformed_handshake_is_refused_in_the_one_error_shape(
    web: httpx2.AsyncClient, changed: dict[str, str]
):
    answer = await web.get(WATCH, headers=HANDSHAKE | changed)

    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")
    assert changed.keys() <= set(answer.json()["message"].replace("'", " ").split())


async def test_other_methods_are_not_upgraded(web: httpx2.AsyncClient):
    answer = await web.post(WATCH, headers=HANDSHAKE)

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_other_paths_are_not_upgraded_and_the_connection_lives(web: httpx2.AsyncClient):
    answer = await web.get("/livez", headers=HANDSHAKE)

    assert answer.status_code == 200
    assert (await web.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"), [("status", "done"), ("task_id", "no-id"), ("priority", "high")]
)
async def test_a_filter_that_is_none_is_refused_by_name(
    api: httpx2.AsyncClient, name: str, value: str
):
    answer = await api.get(WATCH, params={name: value})

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == name


async def test_a_position_whose_followers_are_gone_is_refused(
    api: httpx2.AsyncClient, store: RedisStore
):
    for _ in range(3):
        await submitted(api)
    first, second, _ = await read_all(store, 0)
    trim = ("XTRIM", PartitionKeys(0).events, "MINID", second.position.entry)
    await send(store.client, trim)

    answer = await api.get(WATCH, params={"after": str(first.position)})

    assert (answer.status_code, answer.json()["code"]) == (410, "POSITION_GONE")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://[", ""]
)
async def test_pages_of_elsewhere_are_refused_and_told_why(web: httpx2.AsyncClient, origin: str):
    answer = await web.get(WATCH, headers=HANDSHAKE | {"Origin": origin})

    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert "websocket_origins" in answer.json()["message"]
    assert answer.headers["access-control-allow-origin"] == origin


async def test_a_request_without_a_host_is_from_no_page_of_this_one(service: Service):
    lines = [f"{name}: {value}" for name, value in (HANDSHAKE | {"Origin": "null"}).items()]
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write("\r\n".join([f"GET {WATCH} HTTP/1.1", *lines, "\r\n"]).encode())
    head = await reader.readuntil(b"\r\n")
    writer.close()

    assert b" 403 " in head


async def test_pages_of_the_service_itself_may_watch(service: Service):
    origin = f"http://127.0.0.1:{service.port}"
    async with connect(address(service.port), proxy=None, origin=origin):  # type: ignore[arg-type]
        pass
