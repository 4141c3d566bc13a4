"""The ledger as Server-Sent Events."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api import audience, event_stream, outbox
from api.app import App
from api.broadcast import Follower
from api.server import serve
from ledger.codec import Meta
from ledger.commands import CancelTask
from ledger.keys import PartitionKeys
from ledger.redis_connection import send
from ledger.redis_store import RedisStore, StoreOptions
from ledger.settings import Settings
from ledger.system.commands import PauseQueue
from ledger.system.transact import transact_system
from tests.api.conftest import Service
from tests.api.listening import EVENTS, PATIENCE_S, listening
from tests.api.requests import BATCH, TASKS, UNKNOWN_ID, body, complete, do, fail, start, submitted
from tests.checks import read_all
from tests.servers import PERSISTENT, make_server, valkey_binary

BEGINNING = "0:0-0"


@contextlib.asynccontextmanager
async def served(store: RedisStore, data_dir: Path) -> AsyncGenerator[httpx2.AsyncClient]:
    """The API over `store`, behind a port."""
    service, settings = Service(), Settings(port=0, data_dir=str(data_dir))
    running = asyncio.create_task(
        serve(settings, store, stop=service.stop, on_started=service.on_started)
    )
    async with asyncio.timeout(PATIENCE_S):
        await service.started.wait()
    url = f"http://127.0.0.1:{service.port}"
    async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as web:
        yield web
    service.stop.set()
    async with asyncio.timeout(PATIENCE_S):
        await running


# -- what is told -----------------------------------------------------------------------------


async def test_what_happens_from_now_on_is_told(web: httpx2.AsyncClient, store: RedisStore):
    await submitted(web)

    async with listening(web) as stream:
        task = await submitted(web, kb_id="kb-7", payload={"a": 1.50})
        await complete(store, task["id"])
        told = await stream.events(3)

    assert stream.response.headers["content-type"] == "text/event-stream"
    assert [one.event for one in told] == ["TaskSubmitted", "TaskStarted", "TaskCompleted"]
    assert [one.id for one in told] == [one.data["position"] for one in told]
    [*_, recorded] = await store.history(task["id"])
    meta = told[2].data.pop("meta")
    assert meta["commit"]
    assert told[2].data == {
        "position": str(recorded.position),
        "type": "TaskCompleted",
        "task_id": task["id"],
        "version": 3,
        "at": told[2].data["at"],
        "data": {"attempt": 1, "result": {"chunks": 12}},
        "kb_id": "kb-7",
        "task_type": "document_processing",
        "status": "completed",
    }
    assert told[2].data["at"].endswith("Z")


async def test_line_breaks_in_a_payload_do_not_break_an_event(web: httpx2.AsyncClient):
    sent = json.dumps(body(payload={"text": "a\r\nb", "n": [1, 2]}), indent=1).replace("\n", "\r\n")

    async with listening(web) as stream:
        await web.post(TASKS, content=sent, headers={"content-type": "application/json"})
        told = await stream.event()

    assert told.data["data"]["payload"] == {"text": "a\r\nb", "n": [1, 2]}


async def test_what_is_no_event_is_stepped_over(web: httpx2.AsyncClient, store: RedisStore):
    async with listening(web) as stream:
        await send(store.client, ("XADD", PartitionKeys(0).events, "*", "x", "y"))
        task = await submitted(web)
        told = await stream.event()

    assert told.data["task_id"] == task["id"]


async def test_an_event_that_nobody_here_understands_is_told_as_it_is(
    web: httpx2.AsyncClient, store: RedisStore
):
    fields = ("type", "TaskPaused", "task", UNKNOWN_ID, "version", 9, "at", 1)

    async with listening(web) as stream:
        entry = (*fields, "data", "{oops", "meta", '{"actor": "newer"}', "prev", "")
        await send(store.client, ("XADD", PartitionKeys(0).events, "*", *entry))
        told = await stream.event()

    assert (told.event, told.data["meta"]) == ("TaskPaused", {"actor": "newer"})
    unknown = ("data", "kb_id", "task_type", "status")
    assert [told.data[name] for name in unknown] == [None] * 4


# -- from where -------------------------------------------------------------------------------


async def test_a_client_resumes_after_the_last_event_that_it_was_told(
    web: httpx2.AsyncClient, store: RedisStore
):
    tasks = [await submitted(web) for _ in range(3)]
    first, *others = [str(e.position) for e in await read_all(store, 0)]

    async with listening(web, after=first) as stream:
        resumed = await stream.positions_until(others[-1])
    # As a browser comes back: to the address that it was given, with what it has seen since.
    async with listening(web, last_id=others[0], after=BEGINNING) as stream:
        told = await stream.event()

    assert resumed == others
    assert told.data["task_id"] == tasks[2]["id"]


async def test_catching_up_meets_the_present_without_gap_or_duplicate(
    web: httpx2.AsyncClient, store: RedisStore
):
    async def write(count: int) -> None:
        for _ in range(count):
            await submitted(web)

    async def follow(after: str) -> list[str]:
        found: list[str] = []
        async with listening(web, after=after) as stream:
            while True:
                told = await stream.event()
                found.append(told.data["position"])
                if told.data["kb_id"] == "the-end":
                    return found

    await write(100)
    past = [str(e.position) for e in await read_all(store, 0)]
    starts = [BEGINNING, *past[::10]]
    async with asyncio.TaskGroup() as group:
        following = [group.create_task(follow(after)) for after in starts]
        await asyncio.gather(*(write(40) for _ in range(4)))
        await submitted(web, kb_id="the-end")

    everything = [BEGINNING, *(str(e.position) for e in await read_all(store, 0))]
    for after, told in zip(starts, following, strict=True):
        assert told.result() == everything[everything.index(after) + 1 :]


async def test_several_partitions_are_resumed_each_from_its_own_position(
    ledger_url: str, tmp_path: Path
):
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=3))
    async with served(store, tmp_path) as web:
        async with listening(web, after="beginning") as stream:
            for _ in range(20):
                await submitted(web)
            first = await stream.events(12)
        async with listening(web, last_id=stream.last_id) as stream:
            await submitted(web)
            others = await stream.events(9)
            last_id = stream.last_id
        ends = [str(await store.last_position(partition)) for partition in range(3)]
    everything = {str(e.position) for p in range(3) for e in await read_all(store, p)}
    await store.close()

    told = [one.data["position"] for one in (*first, *others)]
    assert (len(told), set(told)) == (21, everything)
    assert last_id == ",".join(ends)


@pytest.mark.parametrize(
    "after",
    [
        "",
        "7",
        "0:1",
        "1:0-0",
        "0:1-0,0:1-0",
        "0:1-0,",
        "a:b-c",
        "0:٣-0",
        "0:99999999999999999999-0",
    ],
)
async def test_a_malformed_position_is_refused(api: httpx2.AsyncClient, after: str):
    answer = await api.get(EVENTS, params={"after": after or "x"})

    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert answer.json()["details"]["field"] == "after"


async def test_a_position_that_is_none_yet_is_refused(api: httpx2.AsyncClient):
    await submitted(api)

    answer = await api.get(EVENTS, headers={"Last-Event-ID": "0:9999999999999-0"})

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == "Last-Event-ID"


async def test_a_position_whose_followers_are_gone_is_refused(
    api: httpx2.AsyncClient, store: RedisStore
):
    for _ in range(3):
        await submitted(api)
    first, second, _ = await read_all(store, 0)
    trim = ("XTRIM", PartitionKeys(0).events, "MINID", second.position.entry)
    await send(store.client, trim)

    answer = await api.get(EVENTS, params={"after": str(first.position)})

    assert (answer.status_code, answer.json()["code"]) == (410, "POSITION_GONE")
    assert answer.json()["details"] == {"field": "after", "first": str(second.position)}


# -- filters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"kb_id": "a"}, [0, 1]),
        ({"kb_id": "a,b"}, [0, 1, 2]),
        ({"task_type": "health_check"}, [1]),
        ({"priority": "high,critical"}, [2, 3]),
        ({"status": "queued"}, [0, 1, 2, 3]),
        ({"status": "canceled,failed"}, []),
        ({"kb_id": "a", "task_type": "document_processing"}, [0]),
        ({"kb_id": "nobody's"}, []),
        ({"worker_id": "worker-1"}, []),
    ],
    ids=str,
)
async def test_only_what_is_wanted_is_told(
    web: httpx2.AsyncClient, query: dict[str, str], wanted: list[int]
):
    tasks = [
        await submitted(web, kb_id="a"),
        await submitted(web, kb_id="a", task_type="health_check"),
        await submitted(web, kb_id="b", priority="high"),
        await submitted(web, kb_id="c", priority="critical"),
    ]
    async with listening(web, after=BEGINNING, **query) as stream:
        told = await stream.events(len(wanted))

    assert [one.data["task_id"] for one in told] == [tasks[i]["id"] for i in wanted]


async def test_events_of_tasks_older_than_the_stream_are_filtered_too(
    web: httpx2.AsyncClient, store: RedisStore
):
    others = [await submitted(web, kb_id="other") for _ in range(5)]
    task = await submitted(web, kb_id="mine", priority="low")

    async with listening(web, kb_id="mine", priority="low") as stream:
        for one in (*others, task):
            await start(store, one["id"])
        told = await stream.event()

    assert (told.data["task_id"], told.data["type"]) == (task["id"], "TaskStarted")


async def test_a_workers_events_are_those_that_it_wrote(web: httpx2.AsyncClient):
    async with listening(web, worker_id="worker-9") as stream:
        await submitted(web)
        ours = await web.post(TASKS, json=body(), headers={"X-Actor": "worker-9"})
        told = await stream.event()

    assert told.data["task_id"] == ours.json()["id"]


async def test_the_status_is_the_one_that_an_event_leads_to(
    web: httpx2.AsyncClient, store: RedisStore
):
    failing, canceled = await submitted(web), await submitted(web)
    ids = f"{failing['id']},{canceled['id']}"

    async with listening(web, task_id=ids, after=BEGINNING, status="failed,canceled") as stream:
        await fail(store, failing["id"])
        await do(store, canceled["id"], CancelTask())
        told = await stream.events(2)

    assert [(one.data["type"], one.data["status"]) for one in told] == [
        ("TaskFailed", "failed"),
        ("TaskCanceled", "canceled"),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "done"),
        ("priority", "urgent"),
        ("task_id", "no-id"),
        ("kb_id", "a,,b"),
        ("kb_id", "x" * 256),
        ("page", "1"),
    ],
)
async def test_a_filter_that_is_none_is_refused_by_name(
    api: httpx2.AsyncClient, name: str, value: str
):
    answer = await api.get(EVENTS, params={name: value})

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == name


# -- staying connected ------------------------------------------------------------------------


async def hang_up_early(url: httpx2.URL) -> None:
    """Ask for everything, as `head` does: take a little, and be gone."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET {EVENTS}?after=beginning HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.read(100)
    writer.transport.abort()


async def until_nobody_listens(web: httpx2.AsyncClient) -> None:
    """Return when the service says so."""
    async with asyncio.timeout(PATIENCE_S):
        while "event_stream_clients 0.0" not in (await web.get("/metrics")).text:
            pass


async def test_clients_that_hang_up_amid_the_past_are_let_go(web: httpx2.AsyncClient):
    for _ in range(40):
        await web.post(BATCH, json=[body() for _ in range(50)])

    for _ in range(10):
        await asyncio.gather(*(hang_up_early(web.base_url) for _ in range(20)))

    await until_nobody_listens(web)


async def test_a_client_is_let_go_though_something_swallows_cancellations(
    web: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    async def deaf(self: Follower) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    monkeypatch.setattr(Follower, "run", deaf)
    monkeypatch.setattr(audience, "CANCEL_TIMEOUT_S", 0.05)

    await hang_up_early(web.base_url)

    await until_nobody_listens(web)


async def test_a_client_that_is_told_nothing_still_moves_on(
    web: httpx2.AsyncClient, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.05)

    async with listening(web, kb_id="nobody's") as stream:
        await submitted(web)
        end = str(await store.last_position(0))
        told = await stream.block()
        while told.id != end:
            told = await stream.block()

    assert (told.comment, told.data) == ("heartbeat", None)


async def test_a_slow_client_is_dropped_alone(
    web: httpx2.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox, "BUFFER_BYTES_MAX", 64 * 1024)
    large = {"text": "x" * 500_000}
    loop = asyncio.get_running_loop()

    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.setblocking(False)
        await loop.sock_connect(slow, ("127.0.0.1", service.port))
        await loop.sock_sendall(slow, f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        beginning = await loop.sock_recv(slow, 1_000)
        async with listening(web) as stream:
            for _ in range(30):
                task = await submitted(web, payload=large)
                told = await stream.event()
                assert told.data["task_id"] == task["id"]
        received = len(beginning)
        async with asyncio.timeout(PATIENCE_S):
            while part := await loop.sock_recv(slow, 1 << 20):
                received += len(part)

    assert beginning.startswith(b"HTTP/1.1 200")
    assert received < 30 * 500_000


async def test_a_client_that_takes_nothing_is_dropped(
    web: httpx2.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox, "SEND_TIMEOUT_S", 0.1)
    dropped = asyncio.Event()

    class Log:
        def info(self, event: str, **_: str) -> None:
            assert event == "slow_client_dropped"
            dropped.set()

    monkeypatch.setattr(audience, "log", Log())
    for _ in range(20):
        await submitted(web, payload={"text": "x" * 500_000})
    loop = asyncio.get_running_loop()
    request = f"GET {EVENTS}?after={BEGINNING} HTTP/1.1\r\nHost: x\r\n\r\n"

    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.setblocking(False)
        await loop.sock_connect(slow, ("127.0.0.1", service.port))
        await loop.sock_sendall(slow, request.encode())
        async with asyncio.timeout(PATIENCE_S):
            await dropped.wait()

    assert (await web.get("/livez")).status_code == 200


async def test_a_slow_reader_of_the_past_gets_all_of_it(
    web: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox, "BUFFER_BYTES_MAX", 64 * 1024)
    for _ in range(20):
        await submitted(web, payload={"text": "x" * 300_000})

    async with listening(web, after=BEGINNING) as stream:
        told = await stream.events(20)

    assert len({one.data["task_id"] for one in told}) == 20


async def test_a_stopping_server_ends_streams_in_order(service: Service, web: httpx2.AsyncClient):
    async with listening(web) as stream:
        service.stop.set()
        with pytest.raises(StopAsyncIteration):
            await stream.block()


async def test_who_hangs_up_is_told_nothing_more(app: App, store: RedisStore):
    hang_up = asyncio.Event()
    begun = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await hang_up.wait()
        return {"type": "http.disconnect"}

    async def take(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            begun.set()

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": EVENTS}
    scope |= {"query_string": b"", "headers": []}
    request = asyncio.ensure_future(app(scope, receive, take))  # type: ignore[arg-type]
    async with asyncio.timeout(PATIENCE_S):
        await begun.wait()
        assert app.streams.clients == 1
        hang_up.set()
        await request

    assert app.streams.clients == 0


async def test_all_clients_share_one_reader(web: httpx2.AsyncClient):
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(listening(web)) for _ in range(10)]
        task = await submitted(web)
        told = [await stream.event() for stream in streams]
        readers = [t for t in asyncio.all_tasks() if t.get_name().startswith("feed-")]

    assert {one.data["task_id"] for one in told} == {task["id"]}
    assert len(readers) == 1


async def test_more_clients_than_there_is_room_for_are_refused(
    web: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(event_stream, "CLIENTS_MAX", 1)

    async with listening(web):
        refused = await web.get(EVENTS)

    assert refused.status_code == 503
    assert refused.headers["retry-after"]


async def test_the_head_of_a_stream_alone_is_an_answer(web: httpx2.AsyncClient):
    answer = await web.head(EVENTS)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"


@pytest.mark.timeout(90)
async def test_a_stream_outlives_an_outage_of_the_ledger(tmp_path: Path):
    with make_server(valkey_binary(), *PERSISTENT) as server:
        store = await RedisStore.open(server.url, StoreOptions(timeout_ms=1_500))
        async with served(store, tmp_path) as web, listening(web) as stream:
            first = await submitted(web)
            told = await stream.event()
            server.kill()
            refused = await web.get(f"{TASKS}/{first['id']}")
            server.start()
            await do(store, first["id"], CancelTask())
            after = await stream.event()
        await store.close()

    assert (told.data["type"], refused.status_code) == ("TaskSubmitted", 503)
    assert (after.data["type"], after.data["version"]) == ("TaskCanceled", 2)


# -- what belongs to no task ------------------------------------------------------------------


async def test_events_of_the_service_are_told_unless_tasks_are_asked_for(
    web: httpx2.AsyncClient, store: RedisStore
):
    async with listening(web) as all_of_it, listening(web, kb_id="kb-7") as of_a_kb:
        await transact_system(store, PauseQueue("mail", "full"), Meta("ann"))
        task = await submitted(web, kb_id="kb-7")
        paused, submission = await all_of_it.events(2)
        only = await of_a_kb.event()

    assert (paused.event, paused.data["task_id"]) == ("QueuePaused", "system")
    assert paused.data["data"] == {"task_type": "mail", "reason": "full"}
    assert paused.data["meta"]["actor"] == "ann"
    assert [paused.data[name] for name in ("kb_id", "task_type", "status")] == [None] * 3
    assert submission.data["task_id"] == only.data["task_id"] == task["id"]
