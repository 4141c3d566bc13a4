"""What only shows on a server: what scripts cost with many kb_ids, and keys of another kind."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ledger.commands import CancelTask
from ledger.events import Priority
from ledger.keys import PartitionKeys
from ledger.redis_store import RedisStore, StoreOptions
from ledger.task import Task
from tests.contracts.store import NORMAL, QUEUES, claim, send, start, submit
from tests.servers import empty

KEYS = PartitionKeys(0)
STAGED_MAX = 2


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[RedisStore]:
    await empty(valkey_url)
    store = await RedisStore.open(valkey_url, StoreOptions(staged_max=STAGED_MAX))
    yield store
    await store.close()


def raw(store: RedisStore) -> Any:
    return store.client


async def calls_of(store: RedisStore, *commands: str) -> int:
    """How often the server was given these commands, by scripts too."""
    stats = await raw(store).info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in commands)


async def limit(store: RedisStore, kb_id: str, most: int | None) -> None:
    await raw(store).hset(KEYS.limits, "version", 1)
    if most is None:
        await raw(store).hdel(KEYS.limits, f"kb:{kb_id}")
    else:
        await raw(store).hset(KEYS.limits, f"kb:{kb_id}", most)


async def admitted(store: RedisStore) -> dict[bytes, bytes]:
    return await raw(store).hgetall(KEYS.admitted)


async def run_and_wait(store: RedisStore, kb_id: str) -> Task:
    """One task of a kb_id that runs, and one that waits."""
    await submit(store, kb_id=kb_id)
    [running] = await claim(store, 1)
    await start(store, running)
    return await submit(store, kb_id=kb_id)


async def test_positions_are_told_from_one_look_at_the_kb_ids(store: RedisStore):
    tasks = [await submit(store, kb_id=f"kb-{n:03}") for n in range(60)]
    before = await calls_of(store, "zlexcount", "zrangebylex")

    positions = [*await store._send_positions(KEYS, tasks)]  # pyright: ignore[reportPrivateUsage]

    assert positions == list(range(1, 61))
    looks = await calls_of(store, "zlexcount", "zrangebylex") - before
    assert looks <= 3 * len(tasks) + 2, (
        "some for each kb_id and one for each task, not their product"
    )


async def test_a_claim_passes_over_all_kb_ids_that_are_at_their_limits(store: RedisStore):
    for n in range(220):
        await limit(store, f"kb-{n:03}", 1)
        await run_and_wait(store, f"kb-{n:03}")
    await limit(store, "last", 1)
    free = await run_and_wait(store, "last")

    assert await claim(store, 1) == []
    await limit(store, "last", None)
    await raw(store).hset(KEYS.counters, "turn:document_processing:normal", "0004last")

    assert await claim(store, 1) == [free], "whose turn has just been: all others come first"


async def test_a_foreign_ready_key_takes_nothing_out_of_a_backlog(store: RedisStore):
    await claim(store, 1)
    tasks = [await submit(store) for _ in range(5)]
    other = await submit(store, priority=Priority.HIGH)
    ready = KEYS.ready(NORMAL)
    entries = await raw(store).dump(ready)
    await raw(store).set(ready, "mine")

    assert await claim(store, 10) == [other]
    assert await claim(store, 10) == []
    await send(store, other, CancelTask())
    await raw(store).restore(ready, 0, entries, replace=True)

    assert [task.id for task in await claim(store, 10)] == [task.id for task in tasks]


async def test_what_was_set_aside_is_not_counted_again_when_it_moves_on(store: RedisStore):
    for _ in range(2):
        await submit(store)
    [claimed, _] = await store.claim(0, QUEUES, 2)
    await store.set_aside(claimed.delivery, "garbage")
    assert claimed.task is not None

    await send(store, claimed.task, CancelTask())

    assert set((await admitted(store)).values()) == {b"1"}


async def test_a_claim_that_was_handed_back_and_started_hides_no_position(store: RedisStore):
    first, second = [await submit(store) for _ in range(2)]
    [claimed] = await store.claim(0, QUEUES, 1)
    await store.release(0, [claimed.delivery])

    await start(store, first)

    assert await store.queue_position(second) == 1


async def test_a_limited_type_gives_its_places_to_its_most_urgent_tasks(store: RedisStore):
    await raw(store).hset(KEYS.limits, mapping={"version": 1, "type:document_processing": 2})
    waiting = [await submit(store, priority=Priority.LOW) for _ in range(3)]
    urgent = await submit(store, priority=Priority.CRITICAL)

    claimed = await claim(store, 2)

    assert claimed == [urgent, waiting[0]]


async def test_a_ledger_from_before_limits_is_counted(store: RedisStore):
    running = await start(store, await submit(store, kb_id="a"))
    in_line = await submit(store, kb_id="b")
    await submit(store, kb_id="b")
    await submit(store, kb_id="b")
    [(entry, _)] = await raw(store).xrange(KEYS.ready(NORMAL), count=1)
    await raw(store).xdel(KEYS.ready(NORMAL), entry)
    older = await raw(store).xadd(KEYS.ready(NORMAL), {"task": in_line.id})
    await raw(store).hset(KEYS.task(in_line.id), "place", f"ready:{older.decode()}:1")
    await raw(store).delete(KEYS.admitted)

    changed = await store.recount(0)

    assert changed == 3
    assert await admitted(store) == {
        b"type:document_processing": b"3",
        b"kb:a": b"1",
        b"kb:b": b"2",
    }
    assert await store.recount(0) == 0
    for task in (running, in_line):
        await send(store, task, CancelTask())
    assert set((await admitted(store)).values()) == {b"2"}


async def test_of_two_who_count_at_once_one_puts_it_right(store: RedisStore):
    await start(store, await submit(store, kb_id="a"))
    await raw(store).hset(KEYS.admitted, "kb:a", 5)

    changed = await asyncio.gather(*(store.recount(0) for _ in range(4)))

    assert sorted(changed) == [0, 0, 0, 1]
    assert (await admitted(store))[b"kb:a"] == b"1"


async def test_what_moves_during_a_recount_is_counted(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    running = await start(store, await submit(store, kb_id="a"))
    look = store._owners  # pyright: ignore[reportPrivateUsage]

    async def look_slowly(*arguments: Any) -> Any:
        found = await look(*arguments)
        await submit(store, kb_id="a")
        await send(store, running, CancelTask())
        await submit(store, kb_id="b")
        return found

    monkeypatch.setattr(store, "_owners", look_slowly)
    await raw(store).hset(KEYS.admitted, "kb:a", 9)

    await store.recount(0)

    assert await admitted(store) == {
        b"type:document_processing": b"2",
        b"kb:a": b"1",
        b"kb:b": b"1",
    }


async def test_a_count_that_is_no_number_begins_anew(store: RedisStore):
    await raw(store).hset(KEYS.admitted, "type:document_processing", "garbage")

    await submit(store)

    assert (await admitted(store))[b"type:document_processing"] == b"1"


async def test_a_running_task_that_cannot_be_read_counts_for_nothing(store: RedisStore):
    spoiled = await start(store, await submit(store, kb_id="a"))
    await start(store, await submit(store, kb_id="b"))
    await raw(store).hset(KEYS.task(spoiled.id), "submission", "garbage")
    await raw(store).delete(KEYS.admitted)

    await store.recount(0)

    assert await admitted(store) == {b"type:document_processing": b"1", b"kb:b": b"1"}
    assert await store.recount(0) == 0
