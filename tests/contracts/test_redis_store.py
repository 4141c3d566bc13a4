"""The store contract on servers: Valkey 9, Redis 7.0 where it is installed, and fakeredis."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakeredis.aioredis import FakeRedis
from redis.exceptions import ResponseError

from ledger.codec import Meta, Undecodable, encode
from ledger.commands import CancelTask, ReportProgress, StartTask
from ledger.events import Priority
from ledger.keys import HEARTBEATS, LEDGER, WORKERS, PartitionKeys
from ledger.moments import LAST_MS
from ledger.placement import STAGED_MAX, Queue
from ledger.redis_connection import Caller, Script, ServerRefused
from ledger.redis_store import (
    ANNOUNCE,
    APPEND,
    LAST_EVENT_CHUNK,
    RENEW,
    ForeignKey,
    LedgerMismatch,
    RedisStore,
    StoreOptions,
)
from ledger.rejections import Rejection, RejectionCode
from ledger.script_format import PRIORITIES
from ledger.store import Extent, Position
from ledger.task import Task
from ledger.transact import transact_known
from tests.contracts.callbacks import CallbacksContract
from tests.contracts.store import (
    LONG_MS,
    NORMAL,
    QUEUES,
    OpenStore,
    StoreContract,
    a_report,
    claim,
    new_id,
    send,
    start,
    submit,
)
from tests.places import assert_quiescent, server_keys, unknown_keys
from tests.servers import empty, run_server, valkey_binary

KEYS = PartitionKeys(0)


class Backend:
    """A server, empty, and the stores opened on it."""

    def __init__(self, name: str, url: str | None) -> None:
        self.name = name
        self._url = url
        self._fake = FakeRedis(protocol=2, version=(7, 0)) if url is None else None
        self._stores: list[RedisStore] = []

    async def open(self, partitions: int) -> RedisStore:
        options = StoreOptions(partitions=partitions, timeout_ms=5_000)
        if self._url is not None:
            store = await RedisStore.open(self._url, options)
        else:
            assert self._fake is not None
            store = RedisStore(self._fake, options)
            await store.prepare()
        self._stores.append(store)
        return store

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


@pytest.fixture(params=["valkey", "redis", "fakeredis"])
async def backend(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Backend]:
    """Each server in turn, without any key or script."""
    urls = {"valkey": "valkey_url", "redis": "redis_url", "fakeredis": None}
    fixture = urls[request.param]
    url = None if fixture is None else request.getfixturevalue(fixture)
    if url is not None:
        await empty(url)
    else:
        monkeypatch.setattr("ledger.redis_store.RENEW", _without_flags(RENEW))
        monkeypatch.setattr("ledger.redis_store.ANNOUNCE", _without_flags(ANNOUNCE))
    backend = Backend(request.param, url)
    yield backend
    await backend.close()


def _without_flags(script: Script) -> Script:
    """As fakeredis needs it, which takes the first line for Lua."""
    plain = Script(script.name)
    _, plain.text = script.text.split(b"\n", 1)
    plain.sha = hashlib.sha1(plain.text, usedforsecurity=False).hexdigest()
    return plain


@pytest.fixture
async def store(backend: Backend) -> RedisStore:
    return await backend.open(1)


def raw(store: RedisStore) -> Any:
    """The client, whose replies redis-py does not type."""
    return store.client


class TestRedisStore(StoreContract, CallbacksContract):
    @pytest.fixture
    def open_store(self, backend: Backend) -> OpenStore:
        return backend.open

    async def lose(self, store: RedisStore, task: Task) -> None:
        await raw(store).delete(KEYS.task(task.id))

    async def damage(self, store: RedisStore, task: Task) -> None:
        await raw(store).hset(KEYS.task(task.id), "state", b'{"status":"lo\xff')


# -- what stands on the server ----------------------------------------------------------------


async def test_only_known_keys_are_made(store: RedisStore):
    tasks = [await submit(store, priority=priority) for priority in Priority]
    await submit(store, schedule_for=store.now_ms() + LONG_MS)
    [claimed, *_] = await store.claim(0, QUEUES, 2, [])
    await start(store, tasks[0])
    await store.set_aside(claimed.delivery, "garbage")
    await store.announce(a_report())

    assert await unknown_keys(store.client) == []
    own = {KEYS.events, KEYS.due, KEYS.leases, KEYS.counters, KEYS.set_aside}
    assert own | {LEDGER, WORKERS, HEARTBEATS} <= set(await server_keys(store.client))


async def test_heartbeats_clear_away_what_was_silent_for_too_long(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    for number in range(5):
        await store.announce(a_report(f"w{number}"))
    monkeypatch.setattr("ledger.redis_store.LOST_KEPT_MS", 0)
    monkeypatch.setattr("ledger.redis_store.FORGOTTEN_AT_ONCE_MAX", 4)

    await store.announce(a_report("w9"))

    assert await raw(store).zcard(HEARTBEATS) == await raw(store).hlen(WORKERS) == 2


async def test_what_no_worker_said_hides_no_worker(store: RedisStore):
    await store.announce(a_report())
    await raw(store).zadd(HEARTBEATS, {"garbage": store.now_ms(), "silent": store.now_ms()})
    await raw(store).hset(WORKERS, "garbage", b'{"id":"\xff')
    await raw(store).zadd(HEARTBEATS, {"of no time": float("inf")})
    await raw(store).hset(WORKERS, "of no time", encode(a_report("of no time")))

    assert [w.report.id for w in await store.workers()] == ["w1"]


async def test_a_foreign_key_in_the_place_of_the_workers_is_named(store: RedisStore):
    await raw(store).set(WORKERS, "mine")

    with pytest.raises(ForeignKey, match=WORKERS):
        await store.announce(a_report())
    with pytest.raises(ForeignKey, match=WORKERS):
        await store.retire("w1")


async def test_what_is_set_aside_is_kept_with_its_reason(store: RedisStore):
    task = await submit(store)
    [claimed] = await store.claim(0, QUEUES, 1, [])

    await store.set_aside(claimed.delivery, "garbage")

    [(_, kept)] = await raw(store).xrange(KEYS.set_aside)
    assert kept == {
        b"queue": b"document_processing:normal",
        b"entry": claimed.delivery.entry.encode(),
        b"task": task.id.encode(),
        b"reason": b"garbage",
    }


@pytest.mark.parametrize(
    "snapshot",
    [{"version": "many"}, {"version": ""}, {"submission": "null"}, {"state": "[]"}],
    ids=str,
)
async def test_no_garbage_in_a_snapshot_stops_a_claim(store: RedisStore, snapshot: dict[str, str]):
    broken, kept = await submit(store), await submit(store)
    await raw(store).hset(KEYS.task(broken.id), mapping=snapshot)

    claimed = await store.claim(0, QUEUES, 10, [])

    assert [c.task for c in claimed] == [None, kept]


@pytest.mark.parametrize("missing", ["submission", "state"])
async def test_half_a_snapshot_does_not_stop_a_claim(store: RedisStore, missing: str):
    broken, kept = await submit(store), await submit(store)
    await raw(store).hdel(KEYS.task(broken.id), missing)

    claimed = await store.claim(0, QUEUES, 10, [])

    assert [c.task for c in claimed] == [None, kept]


async def test_a_key_of_another_kind_does_not_stop_a_claim(store: RedisStore):
    broken, kept = await submit(store), await submit(store)
    await raw(store).delete(KEYS.task(broken.id))
    await raw(store).set(KEYS.task(broken.id), "a string")

    claimed = await store.claim(0, QUEUES, 10, [])

    assert [c.task for c in claimed] == [None, kept]
    assert "WRONGTYPE" in claimed[0].fault
    with pytest.raises(Undecodable, match=f"{broken.id} has no version, but b'WRONGTYPE"):
        await store.load(broken.id)


@pytest.mark.parametrize(
    "fields",
    [{"x": "y"}, {"task": "no such id", "n": "many"}, {"task": b"\xff\xfe", "n": "1"}],
    ids=str,
)
async def test_a_ready_entry_of_no_known_form_is_reported_and_can_be_set_aside(
    store: RedisStore, fields: dict[Any, Any]
):
    before = await submit(store)
    await raw(store).xadd(KEYS.ready(NORMAL), fields)

    claimed = await store.claim(0, QUEUES, 10, [])

    assert [c.task for c in claimed] == [before, None]
    after = await submit(store)
    assert await store.queue_position(after) == 1
    assert await claim(store, 10) == [after]
    await store.set_aside(claimed[1].delivery, claimed[1].fault)
    for task in (before, after):
        await start(store, task)
        await send(store, task, CancelTask())
    await assert_quiescent(store)


async def test_a_ready_entry_of_no_known_form_does_not_stop_a_waiter(store: RedisStore):
    await store.claim(0, QUEUES, 1, [])
    await raw(store).xadd(KEYS.ready(NORMAL), {"task": "no such id", "n": "many"})

    delivered = await store.wait_ready(0, QUEUES, 1)
    [claimed] = await store.claim(0, QUEUES, 1, delivered)

    assert claimed.task is None
    assert claimed.fault == "there is no such task"


AN_EVENT: dict[Any, Any] = {
    **{"type": "TaskRetried", "task": "0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11"},
    **{"version": "1", "at": "1", "data": "{}", "meta": "{}", "prev": ""},
}
FOREIGN: list[dict[Any, Any]] = [
    {"x": "y"},
    {"type": "TaskStarted", "task": "no such id", "version": "1", "at": "1", "data": "{}"},
    {"type": b"\xff", "task": b"\xfe", "version": "many"},
    *({**AN_EVENT, "at": at} for at in ("-1", str(LAST_MS + 1), "9" * 30)),
    *({**AN_EVENT, "version": version} for version in ("0", "9" * 30)),
]


async def test_readers_step_over_what_is_no_event_and_count_it_once(store: RedisStore):
    for fields in FOREIGN:
        await raw(store).xadd(KEYS.events, fields)
    first = await submit(store)
    for fields in FOREIGN:
        await raw(store).xadd(KEYS.events, fields)

    [event] = await store.events_after(Position(0, "0-0"), 2, 1)
    nothing = [await store.events_after(event.position, 2, 1) for _ in range(2)]
    second = await submit(store)
    [following] = await store.events_after(event.position, 1, 1)

    assert (event.task_id, nothing, following.task_id) == (first.id, [[], []], second.id)
    assert store.foreign.count == 2 * len(FOREIGN)


async def test_what_is_no_event_is_not_the_end_of_a_ledger(store: RedisStore):
    await submit(store)
    end = await store.last_position(0)

    for _ in range(LAST_EVENT_CHUNK + 2):
        await raw(store).xadd(KEYS.events, {"x": "y"})

    assert await store.last_position(0) == end


async def test_a_reader_waits_behind_what_is_no_event(store: RedisStore):
    await raw(store).xadd(KEYS.events, {"x": "y"})
    reading = asyncio.create_task(store.events_after(Position(0, "0-0"), 10, 2_000))
    await asyncio.sleep(0)

    task = await submit(store)

    assert [e.task_id for e in await reading] == [task.id]


async def test_the_extent_of_a_trimmed_ledger_begins_at_what_is_left(store: RedisStore):
    for _ in range(3):
        await submit(store)
    _, second, third = await store.events_after(Position(0, "0-0"), 10, 1)

    await raw(store).xtrim(KEYS.events, minid=second.position.entry, approximate=False)
    trimmed = await store.extent(0)
    await raw(store).xtrim(KEYS.events, maxlen=0, approximate=False)
    emptied = await store.extent(0)

    assert trimmed == Extent(second.position, third.position, 3)
    assert emptied == Extent(third.position, third.position, 3)
    assert await store.last_position(0) == Position(0, "0-0")


async def test_a_waiter_before_the_first_claim_does_not_fail(store: RedisStore, backend: Backend):
    if backend.name == "fakeredis":
        pytest.skip("fakeredis has an error of its own where servers say NOGROUP")

    assert await store.wait_ready(0, QUEUES, 1) == []


async def test_a_history_is_what_trimming_left(store: RedisStore):
    task = await start(store, await submit(store))
    await send(store, task, ReportProgress(50, "half", 1))
    recorded = await store.history(task.id)

    await raw(store).xtrim(KEYS.events, minid=recorded[1].position.entry, approximate=False)

    assert await store.history(task.id) == recorded[1:]


async def test_a_long_history_is_read_piece_by_piece(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ledger.redis_store.HISTORY_CHUNK", 3)
    task = await start(store, await submit(store))
    for percent in range(1, 9):
        task = await send(store, task, ReportProgress(percent, "", 1))

    assert [r.version for r in await store.history(task.id)] == list(range(1, 11))


# -- the append script, as its header says -----------------------------------------------------

SUBMISSION = '{"task_type":"document_processing","kb_id":"kb","payload":{}}'
STATE = '{"status":"queued","created_at":5,"updated_at":5}'


def append_arguments(
    task_id: str, expected: int, commit: str, *, queue_max: int = 0
) -> tuple[list[str], list[str | int]]:
    """Keys and arguments of an append that submits a task into the normal queue."""
    fields = (task_id, expected, commit, 5, f'{{"commit":"{commit}"}}')
    wait = ("document_processing:normal", "kb", "=", STATE, "ready", queue_max, "")
    return [KEYS.task(task_id)], [*fields, *wait, 1, "TaskSubmitted", SUBMISSION]


async def run_append(store: RedisStore, *items: tuple[list[str], list[str | int]]) -> list[Any]:
    script_keys = [*KEYS.queues, KEYS.events, KEYS.due, KEYS.leases]
    arguments: list[str | int] = [STAGED_MAX, PRIORITIES]
    for item_keys, item_arguments in items:
        script_keys += item_keys
        arguments += item_arguments
    replies, _ = await Caller(store.client, 5_000).script(APPEND, script_keys, arguments)
    return replies


async def test_an_append_repeated_under_its_commit_is_answered_and_not_applied_again(
    store: RedisStore,
):
    task_id = new_id()
    item = append_arguments(task_id, 0, "c-1")

    first, again = await run_append(store, item), await run_append(store, item)

    assert first == again
    assert [r.position.entry for r in await store.history(task_id)] == [first[0].decode()]
    assert len(await claim(store, 10)) == 1


async def test_an_append_repeated_within_one_batch_is_applied_once(store: RedisStore):
    task_id = new_id()
    item = append_arguments(task_id, 0, "c-1")

    replies = await run_append(store, item, item)

    assert replies[0] == replies[1]
    assert len(await store.history(task_id)) == 1


async def test_a_batch_answers_each_item_for_itself(store: RedisStore):
    taken, free, last = new_id(), new_id(), new_id()
    await run_append(store, append_arguments(taken, 0, "c-1"))

    replies = await run_append(
        store,
        append_arguments(taken, 0, "c-2"),
        append_arguments(free, 0, "c-3", queue_max=2),
        append_arguments(last, 0, "c-4", queue_max=2),
    )

    assert replies[0] == 1
    assert isinstance(replies[1], bytes)
    assert replies[2] == -1
    assert await store.load(last) is None


async def test_an_append_under_another_commit_is_a_conflict(store: RedisStore):
    task_id = new_id()
    await run_append(store, append_arguments(task_id, 0, "c-1"))

    assert await run_append(store, append_arguments(task_id, 0, "c-2")) == [1]


# -- opening ----------------------------------------------------------------------------------


async def test_a_ledger_of_another_partition_count_is_refused(backend: Backend):
    await backend.open(2)

    with pytest.raises(LedgerMismatch, match="has partitions 2, the settings ask for 3"):
        await backend.open(3)


async def test_a_ledger_of_another_format_is_refused(backend: Backend):
    store = await backend.open(1)
    await raw(store).hset(LEDGER, "format", "9")

    with pytest.raises(LedgerMismatch, match="has format 9, the settings ask for 1"):
        await backend.open(1)


async def test_a_ledger_keeps_its_epoch(backend: Backend):
    store = await backend.open(1)
    epoch = await raw(store).hget(LEDGER, "epoch")

    await backend.open(1)

    assert len(epoch) == 32
    assert await raw(store).hget(LEDGER, "epoch") == epoch


async def test_a_url_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="expected redis://, rediss:// or unix://, got 'http:"):
        await RedisStore.open("http://localhost:6379")


async def test_the_stores_clock_is_the_servers(store: RedisStore):
    before = await raw(store).time()
    now_ms = store.now_ms()
    after = await raw(store).time()

    slack_ms = 1_000
    assert before[0] * 1_000 - slack_ms <= now_ms <= after[0] * 1_000 + 1_000 + slack_ms


async def test_a_ready_key_of_another_kind_refuses_the_task_and_spoils_no_others(store: RedisStore):
    await raw(store).set(KEYS.ready(Queue("document_processing", Priority.LOW)), "not ours")

    refused, well = await asyncio.gather(
        submit(store, priority=Priority.LOW), submit(store), return_exceptions=True
    )

    assert isinstance(refused, ForeignKey)
    assert isinstance(well, Task)
    assert await raw(store).xlen(KEYS.events) == 1
    await raw(store).delete(KEYS.ready(Queue("document_processing", Priority.LOW)))


async def test_a_version_that_is_no_number_refuses_the_task_and_spoils_no_others(store: RedisStore):
    spoiled = await submit(store)
    await raw(store).hset(KEYS.task(spoiled.id), "version", "many")

    refused, well = await asyncio.gather(
        submit(store, task_id=spoiled.id), submit(store), return_exceptions=True
    )

    assert isinstance(refused, ForeignKey)
    assert isinstance(well, Task)


async def test_of_steps_appended_together_a_spoiled_one_spoils_no_others(store: RedisStore):
    spoiled, well = [await submit(store) for _ in range(2)]
    await raw(store).hset(KEYS.task(spoiled.id), "version", "many")
    wishes = [(spoiled, StartTask(1, "w1", LONG_MS)), (well, StartTask(1, "w1", LONG_MS))]

    [refused, started] = await transact_known(store, wishes, Meta())

    assert refused is None
    assert started == await store.load(well.id)


async def test_a_counters_key_of_another_kind_changes_nothing(store: RedisStore):
    await raw(store).set(KEYS.counters, "not ours")

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await submit(store)

    assert await raw(store).exists(KEYS.events) == 0
    await raw(store).delete(KEYS.counters)


async def test_a_server_that_lets_nobody_in_is_not_asked_again():
    with run_server(valkey_binary(), "--requirepass", "secret") as url:
        with pytest.raises(ServerRefused, match="does not let us in"):
            await RedisStore.open(url + "?password=wrong")


async def test_a_server_of_another_kind_is_named():
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ServerRefused, match="no Redis and no Valkey"):
            await RedisStore.open(f"redis://127.0.0.1:{port}/0")


# -- a server that refuses ---------------------------------------------------------------------


@pytest.fixture
async def refusing(store: RedisStore, backend: Backend) -> AsyncIterator[RedisStore]:
    if backend.name == "fakeredis":
        pytest.skip("fakeredis has neither maxmemory nor min-replicas-to-write")
    yield store
    await raw(store).config_set("maxmemory", "0")
    await raw(store).config_set("min-replicas-to-write", "0")


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [("maxmemory", "1", "memory limit"), ("min-replicas-to-write", "1", "takes no writes")],
)
async def test_a_server_that_takes_no_writes_makes_the_ledger_unavailable(
    refusing: RedisStore, setting: str, value: str, told: str
):
    kept, refused = await submit(refusing), new_id()
    await raw(refusing).config_set(setting, value)

    with pytest.raises(Rejection, match=told) as raised:
        await submit(refusing, task_id=refused)

    assert raised.value.code is RejectionCode.SERVICE_UNAVAILABLE
    assert await refusing.load(refused) is None
    assert await refusing.load(kept.id) == kept


async def test_leases_are_kept_at_the_memory_limit(refusing: RedisStore):
    held, ended = [await start(refusing, await submit(refusing), lease_ms=0) for _ in range(2)]
    await raw(refusing).zrem(KEYS.leases, f"{ended.id}:1")
    await raw(refusing).config_set("maxmemory", "1")

    assert await refusing.renew(0, [(held.id, 1), (ended.id, 1)], LONG_MS) == [(ended.id, 1)]
    assert (await refusing.overdue(0, 10)).expired == ()


async def test_workers_are_seen_at_the_memory_limit(refusing: RedisStore):
    await refusing.announce(a_report(running=1))
    await raw(refusing).config_set("maxmemory", "1")

    await refusing.announce(a_report(running=2))

    assert [worker.report.running for worker in await refusing.workers()] == [2]


async def test_a_server_that_takes_writes_again_serves_at_once(refusing: RedisStore):
    await raw(refusing).config_set("maxmemory", "1")
    with pytest.raises(Rejection):
        await submit(refusing)

    await raw(refusing).config_set("maxmemory", "0")

    task = await submit(refusing)
    assert await claim(refusing, 10, [Queue("document_processing", Priority.NORMAL)]) == [task]
