"""What both stores do for the service's own subject."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from ledger.codec import Meta, decode_meta
from ledger.commands import CancelTask
from ledger.identity import derived_id
from ledger.keys import PartitionKeys
from ledger.memory_store import MemoryStore
from ledger.placement import STAGED_MAX
from ledger.redis_connection import send as send_raw
from ledger.redis_store import RedisStore, StoreOptions
from ledger.redis_system import LIMITS
from ledger.rejections import Rejection, RejectionCode
from ledger.script_format import PRIORITIES
from ledger.store import Conflict, Position, Store, SystemAppend, Written
from ledger.system.commands import PauseQueue, RemoveLimit, ResumeQueue, SetLimit
from ledger.system.events import LimitScope, QueuePaused, QueueResumed
from ledger.system.evolve import evolve
from ledger.system.state import INITIAL, System
from ledger.system.transact import transact_system
from ledger.transact import CONFLICTS_MAX
from tests.checks import check_ledger
from tests.contracts.store import send, submit
from tests.contracts.test_memory_store import no_wait, wall_clock_ms
from tests.servers import empty

TYPE, KB = LimitScope.TYPE, LimitScope.KB
META = Meta("ann", "req-1")
PARTITIONS = 2


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty ledger of two partitions."""
    if request.param == "memory":
        yield MemoryStore(wall_clock_ms, no_wait, PARTITIONS)
        return
    url = request.getfixturevalue("valkey_url")
    await empty(url)
    store = await RedisStore.open(url, StoreOptions(partitions=PARTITIONS))
    yield store
    await store.close()


async def test_before_anything_happened_there_is_an_empty_subject(store: Store):
    assert await store.load_system() == INITIAL
    assert await store.system_version() == 0
    assert await store.history("system") == []


async def test_what_was_written_can_be_read_back(store: Store):
    done = await transact_system(store, PauseQueue("mail", "full"), META)

    assert done.events == (QueuePaused("mail", "full"),)
    assert await store.load_system() == done.system
    assert await store.system_version() == done.system.version == 1
    assert done.position == await store.last_position(0)
    assert (await store.load_system()).state.paused["mail"].by == "ann"


async def test_events_stand_among_those_of_tasks_and_make_a_history(store: Store):
    await transact_system(store, PauseQueue("mail"), META)
    task = await submit(store)
    await transact_system(store, ResumeQueue("mail"), META)
    await send(store, task, CancelTask())

    first, second = await store.history("system")

    assert [e.system_event() for e in (first, second)] == [
        QueuePaused("mail"),
        QueueResumed("mail"),
    ]
    assert (first.version, first.prev) == (1, "")
    assert (second.version, second.prev) == (2, first.position.entry)
    assert decode_meta(second.meta).actor == "ann"
    assert first.of_system
    counts = await check_ledger(store)
    assert counts.system.version == 2
    assert counts.tasks.keys() == {task.id}


async def test_a_wish_that_holds_writes_nothing(store: Store):
    await transact_system(store, PauseQueue("mail"), META)
    before = await store.last_position(0)

    again = await transact_system(store, PauseQueue("mail"), META)

    assert (again.events, again.position) == ((), None)
    assert await store.last_position(0) == before


async def test_what_is_out_of_date_conflicts(store: Store):
    event = QueuePaused("mail")
    step = SystemAppend(INITIAL, evolve(INITIAL, event, 1_000, "ann"), (event,), META)

    assert isinstance(await store.append_system(step), Written)
    assert await store.append_system(step) == Conflict(1)
    assert len(await store.history("system")) == 1


async def test_many_at_once_all_happen(store: Store):
    names = [f"t{n}" for n in range(8)]

    await asyncio.gather(*(transact_system(store, PauseQueue(name), META) for name in names))

    assert sorted((await store.load_system()).state.paused) == names
    assert await store.system_version() == 8


async def test_conflicts_without_end_come_to_an_end(store: Store):
    tries = 0

    async def append_system(step: SystemAppend) -> Written | Conflict:
        nonlocal tries
        tries += 1
        return Conflict(7)

    store.append_system = append_system

    with pytest.raises(Rejection) as raised:
        await transact_system(store, PauseQueue("mail"), META)

    assert raised.value.code is RejectionCode.VERSION_CONFLICT
    assert tries == CONFLICTS_MAX


# -- limits in the partitions ---------------------------------------------------------------------


async def limited(store: Store, *commands: SetLimit | RemoveLimit) -> System:
    for command in commands:
        await transact_system(store, command, META)
    return await store.load_system()


async def test_each_partition_holds_its_share_of_the_limits(store: Store):
    system = await limited(store, SetLimit(TYPE, "mail", 5), SetLimit(KB, "kb:ü", 1))

    await store.spread_limits(system)

    for partition in range(PARTITIONS):
        assert await store.limits_held(partition) == {(TYPE, "mail"): 3, (KB, "kb:ü"): 1}


async def test_limits_that_were_removed_are_gone_from_the_partitions(store: Store):
    await store.spread_limits(await limited(store, SetLimit(TYPE, "mail", 5)))

    await store.spread_limits(await limited(store, RemoveLimit(TYPE, "mail")))

    assert await store.limits_held(0) == await store.limits_held(1) == {}


async def test_older_limits_never_replace_newer_ones(store: Store):
    older = await limited(store, SetLimit(TYPE, "mail", 5))
    await store.spread_limits(await limited(store, SetLimit(TYPE, "mail", 9)))

    await store.spread_limits(older)

    assert (await store.limits_held(0))[TYPE, "mail"] == 5


async def test_only_what_has_changed_is_sent_where_the_rest_is_held(store: Store):
    before = await limited(store, SetLimit(TYPE, "mail", 5), SetLimit(KB, "docs", 2))
    await store.spread_limits(before)

    after = await limited(store, RemoveLimit(KB, "docs"), SetLimit(TYPE, "work", 3))
    await store.spread_limits(after, before)

    assert await store.limits_held(0) == {(TYPE, "mail"): 3, (TYPE, "work"): 2}


async def test_all_is_sent_where_other_limits_are_held_than_those_that_changed(store: Store):
    older = await limited(store, SetLimit(TYPE, "mail", 5))
    before = await limited(store, SetLimit(KB, "docs", 2))
    after = await limited(store, SetLimit(TYPE, "work", 3))
    await store.spread_limits(older)

    await store.spread_limits(after, before)

    expected = {(TYPE, "mail"): 3, (TYPE, "work"): 2, (KB, "docs"): 1}
    assert [await store.limits_held(p) for p in range(PARTITIONS)] == [expected] * PARTITIONS


async def test_a_change_that_another_overtook_is_nothing(ledger_url: str):
    store = await RedisStore.open(ledger_url)
    before = await limited(store, SetLimit(TYPE, "mail", 5))
    after = await limited(store, SetLimit(TYPE, "mail", 6))
    keys, version = PartitionKeys(0).queues, str(after.state.limits_version)

    client = cast("Any", store.client)
    changed = await client.eval(  # as if the other came between the look and the change
        LIMITS.text, len(keys), *keys, STAGED_MAX, PRIORITIES, version, "7", "type:mail", "6"
    )
    await store.spread_limits(after, before)

    assert (changed, await store.limits_held(0)) == (-1, {(TYPE, "mail"): 6})
    await store.close()


async def test_a_task_behind_its_limit_is_held(store: Store):
    system = await limited(store, SetLimit(KB, "docs", 2))
    await store.spread_limits(system)
    ids = [derived_id("held", str(n)) for n in range(40)]
    tasks = [
        await submit(store, task_id=i, kb_id="docs") for i in ids if store.partition_of(i) == 0
    ]

    held = [await store.is_held(task) for task in tasks]

    assert held == [False] + [True] * (len(tasks) - 1)
    assert await store.admitted(KB, ["docs"]) == [1]
    assert [await store.admitted(KB, ["docs"], p) for p in (0, 1)] == [[1], [0]]


async def test_ten_thousand_limits_are_held(store: Store):
    limits = {f"kb-{n}": 1 + n % 7 for n in range(10_000)}
    state = INITIAL.state.__class__(kb_limits=limits, limits_version=1)

    await store.spread_limits(System(1, state))

    assert len(await store.limits_held(1)) == 10_000


async def test_nothing_is_admitted_in_the_beginning(store: Store):
    assert await store.admitted(TYPE, ["mail", "health_check"]) == [0, 0]
    assert await store.admitted(KB, []) == []


async def test_an_event_of_the_system_in_another_partition_is_foreign(ledger_url: str):
    store = await RedisStore.open(ledger_url, StoreOptions(partitions=PARTITIONS))
    await transact_system(store, PauseQueue("mail"), META)
    [entry] = await store.entries_after(Position(0, "0-0"), 10, 1)

    await send_raw(store.client, ("XADD", PartitionKeys(1).events, "*", *entry[1]))

    assert await store.events_after(Position(1, "0-0"), 10, 1) == []
    assert store.foreign.count == 1
    await store.close()
