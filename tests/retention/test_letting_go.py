"""What leaves Redis, when, and what does not."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import ANY

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from consumers.retention_status import Terms
from ledger.archive import tiles
from ledger.archive.compression import compress, decompress
from ledger.commands import CancelTask, RetryTask
from ledger.identity import derived_id
from ledger.redis_connection import send
from ledger.rejections import Rejection
from ledger.retention import ArchiveState, Projection
from ledger.subscriptions import Checkpoint, Filters, Group
from ledger.transact import transact
from tests.retention.letting_go import (
    DAY_MS,
    HOUR_MS,
    KEYS,
    LaterStore,
    LettingGo,
    completed,
    failed,
    opened,
    started,
    submitted,
)
from tests.servers import empty

ONE, TWO, THREE = (f"01996abc-2400-7000-8000-00000000000{n}" for n in (1, 2, 3))


@pytest.fixture(params=["valkey", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[LaterStore]:
    """On both: everything here is done by scripts."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    await empty(url)
    async for one in opened(url):
        yield one


async def entries(ledger: LettingGo) -> int:
    return await ledger.store.client.xlen(KEYS.events)


def data_of(folder: Path) -> Path:
    """Of an archive, where the data lie."""
    [found] = folder.rglob("data")
    return found


def spoil_data(folder: Path) -> None:
    """All data of an archive become other ones, whole as they are."""
    for file in [file for file in data_of(folder).rglob("*") if file.is_file()]:
        stored = tiles.unpack_data(decompress(file.read_bytes()))
        wrong = [replace(one, data=b"{}") for one in stored]
        file.write_bytes(compress(tiles.pack_data(wrong)))


def lose_entries(folder: Path) -> None:
    """Of an archive, the leaves."""
    for entries in folder.rglob("tile/entries"):
        shutil.rmtree(entries)


# -- events ----------------------------------------------------------------------------------------


async def test_sealed_events_leave_the_stream_when_they_are_old(
    ledger: LettingGo, store: LaterStore
):
    await completed(store, ONE)
    await ledger.seal()

    await ledger.let_go()
    assert await entries(ledger) == 3

    ledger.pass_time(DAY_MS + HOUR_MS)
    await ledger.let_go()
    # What was sealed last stays: whoever reads must find where the partition is.
    assert await entries(ledger) == 1
    assert ledger.meter.meters.events_trimmed == 2


async def test_what_is_not_sealed_stays(ledger: LettingGo, store: LaterStore):
    await completed(store, ONE)
    await ledger.seal()
    await completed(store, TWO)
    ledger.pass_time(2 * DAY_MS)

    await ledger.let_go()

    assert await entries(ledger) == 1 + 3
    assert await ledger.store.load(TWO) is not None


@pytest.mark.parametrize(
    ("noted", "generation"), [({"halted": "another ledger"}, 7), ({}, 6), ({}, None)]
)
async def test_nothing_goes_while_the_archive_is_halted_or_anothers(
    ledger: LettingGo, store: LaterStore, noted: dict[str, str], generation: int | None
):
    task = await completed(store, ONE)
    await ledger.seal(**noted)
    ledger.pass_time(2 * DAY_MS)

    await ledger.let_go(generation)

    assert await entries(ledger) == 3
    assert await ledger.is_in_memory(task)


async def test_nothing_goes_that_the_archive_lost(
    ledger: LettingGo, store: LaterStore, tmp_path: Path
):
    task = await completed(store, ONE)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    lose_entries(tmp_path)

    await ledger.let_go()

    assert await ledger.is_in_memory(task)
    assert await entries(ledger) == 3


async def test_no_event_goes_whose_data_the_archive_lost(
    ledger: LettingGo, store: LaterStore, tmp_path: Path
):
    # given an archive that was whole when it was sealed, and lost the events' data since
    task = await completed(store, ONE)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    data = data_of(tmp_path)
    data.rename(tmp_path / "lost")
    # when the events are old, then they stay, and so does the task, and that is said
    with capture_logs() as logged:
        await ledger.let_go()
    assert await entries(ledger) == 3
    assert await ledger.is_in_memory(task)
    [said] = logged
    assert (said["event"], "/data/" in said["reason"]) == ("archive_unreadable", True)
    assert ledger.meter.meters.retentions_failed == 1
    # and when it is put back, they go
    (tmp_path / "lost").rename(data)
    await ledger.let_go()
    assert await entries(ledger) == 1


async def test_no_event_goes_whose_data_is_not_what_its_leaf_says(
    ledger: LettingGo, store: LaterStore, tmp_path: Path
):
    # given an archive into which a wrong copy was put back
    await completed(store, ONE)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    spoil_data(tmp_path)
    # then nothing goes
    with capture_logs() as logged:
        await ledger.let_go()
    assert await entries(ledger) == 3
    assert "is not what its leaf says" in logged[0]["reason"]


async def test_only_so_much_is_read_again_at_once_as_goes(
    ledger: LettingGo, store: LaterStore, monkeypatch: pytest.MonkeyPatch
):
    # given more events than are read again in one step
    monkeypatch.setattr("consumers.trimming.CHECK_BUNDLES", 1)
    for n in range(100):
        await completed(store, f"{ONE[:-3]}{n:03}")
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    # then they go all the same, some in each step
    assert await ledger.step() == 0.0
    assert await entries(ledger) == 300 - 256
    await ledger.let_go()
    assert await entries(ledger) == 1


async def test_a_script_trims_nothing_beyond_what_is_sealed(ledger: LettingGo, store: LaterStore):
    await completed(store, ONE)
    await ledger.seal()
    await completed(store, TWO)
    last = await store.last_position(0)

    assert await store.trim(0, 7, last.entry, 100) is None
    assert await entries(ledger) == 6


async def test_a_read_model_holds_back_what_it_has_not_seen(ledger: LettingGo, store: LaterStore):
    await completed(store, ONE)
    await ledger.seal()
    second = (await store.history(ONE))[1].position.entry
    ledger.pass_time(2 * DAY_MS)
    await store.tell_projection(0, "node", Projection(second, store.now_ms()))

    await ledger.let_go()

    assert await entries(ledger) == 2
    assert await store.client.exists(KEYS.task(ONE))


async def test_a_read_model_that_is_silent_for_long_holds_nothing(
    ledger: LettingGo, store: LaterStore
):
    await completed(store, ONE)
    await ledger.seal()
    await store.tell_projection(0, "node", Projection("0-0", store.now_ms()))
    ledger.pass_time(8 * DAY_MS)

    await ledger.let_go()

    assert await entries(ledger) == 1


async def test_a_read_model_that_never_came_back_is_forgotten(ledger: LettingGo, store: LaterStore):
    await completed(store, ONE)
    await ledger.seal()
    await store.tell_projection(0, "node", Projection("0-0", store.now_ms()))
    ledger.pass_time(29 * DAY_MS)

    await ledger.let_go()

    assert await store.projections(0) == {}


async def test_a_key_that_is_anothers_ends_nothing_but_letting_go(
    ledger: LettingGo, store: LaterStore
):
    await completed(store, ONE)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await send(store.client, ("SET", KEYS.projections, "by hand"))

    await ledger.let_go()

    assert await entries(ledger) == 3


async def test_a_read_model_can_be_forgotten(ledger: LettingGo, store: LaterStore):
    await completed(store, ONE)
    await ledger.seal()
    await store.tell_projection(0, "node", Projection("0-0", store.now_ms()))
    ledger.pass_time(2 * DAY_MS)

    assert await store.forget_projection("node")
    assert not await store.forget_projection("node")
    await ledger.let_go()

    assert await entries(ledger) == 1


async def test_a_subscription_holds_back_what_it_has_not_passed(
    ledger: LettingGo, store: LaterStore
):
    start = Checkpoint()
    group = Group("1", await store.epoch(), 0, Filters(), (start,))
    await ledger.subscriptions.register("billing", group)
    await completed(store, ONE)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)

    await ledger.let_go()
    assert await entries(ledger) == 3

    await ledger.subscriptions.remove("billing")
    await ledger.let_go()
    assert await entries(ledger) == 1


async def test_all_is_kept_where_that_is_asked_for(store: LaterStore, tmp_path: Path):
    ledger = LettingGo(store, tmp_path, Terms(events_ms=0, tasks_ms=0, hold_ms=DAY_MS))
    task = await completed(store, ONE)
    await ledger.seal()
    ledger.pass_time(1_000 * DAY_MS)

    await ledger.let_go()

    assert await entries(ledger) == 3
    assert await ledger.is_in_memory(task)


async def test_a_full_server_is_emptied(ledger: LettingGo, store: LaterStore):
    """Of what is sealed: else it would stay full."""
    task = await completed(store, ONE)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    end = (await store.last_position(0)).entry
    try:
        await send(store.client, ("CONFIG", "SET", "maxmemory", "1"))
        await store.tell_projection(0, "node", Projection(end, store.now_ms()))
        await ledger.let_go()
    finally:
        await send(store.client, ("CONFIG", "SET", "maxmemory", "0"))

    assert await entries(ledger) == 1
    assert not await ledger.is_in_memory(task)


# -- tasks -----------------------------------------------------------------------------------------


async def test_a_finished_task_leaves_when_its_last_event_is_old(
    ledger: LettingGo, store: LaterStore
):
    task = await completed(store, ONE)
    await ledger.seal()

    await ledger.let_go()
    assert await ledger.is_in_memory(task)

    ledger.pass_time(DAY_MS + HOUR_MS)
    await ledger.let_go()
    assert not await ledger.is_in_memory(task)
    assert ledger.meter.meters.tasks_evicted == 1


async def test_what_is_not_finished_stays_however_old(ledger: LettingGo, store: LaterStore):
    waiting = await submitted(store, ONE)
    running = await started(store, TWO)
    due = await submitted(store, THREE, schedule_for=store.now_ms() + 90 * DAY_MS)
    await ledger.seal()
    ledger.pass_time(30 * DAY_MS)

    await ledger.let_go()

    for task in (waiting, running, due):
        assert await store.load(task.id) == task


async def test_a_task_with_a_callback_to_come_stays(ledger: LettingGo, store: LaterStore):
    task = await completed(store, ONE, callback_url="http://127.0.0.1:1/done")
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)

    await ledger.let_go()

    assert await ledger.is_in_memory(task)


async def test_a_task_that_was_retried_leaves_only_after_its_second_end(
    ledger: LettingGo, store: LaterStore
):
    task = await failed(store, ONE)
    await ledger.seal()
    retried = (await transact(store, ONE, RetryTask())).task
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()
    assert await store.load(ONE) == retried

    await transact(store, ONE, CancelTask())
    await ledger.seal()
    await ledger.let_go()

    assert not await ledger.is_in_memory(task)


async def test_each_event_is_looked_at_once(ledger: LettingGo, store: LaterStore):
    await completed(store, ONE)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()
    end = (await store.last_position(0)).entry

    state = await store.archive_state(0)

    assert state == ArchiveState(7, end, 3, ANY, evicted=end, looked=3)


async def test_tasks_leave_also_where_an_archive_was_begun_anew(
    ledger: LettingGo, store: LaterStore
):
    # given a ledger that let go of tasks, and lost its archive
    for number in range(4):
        await completed(store, derived_id("kb", f"order {number}"))
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()
    await ledger.lose_archive(trimmed=True)
    # when there is another one, with fewer events
    tasks = [await completed(store, each) for each in (ONE, TWO)]
    await ledger.seal()
    await ledger.let_go()
    # then what it has is looked at all the same, and once
    assert [await ledger.is_in_memory(task) for task in tasks] == [False, False]
    state = await store.archive_state(0)
    assert (state.looked, state.size) == (6, 6)
    task = await completed(store, THREE)
    await ledger.seal()
    await ledger.let_go()
    assert not await ledger.is_in_memory(task)


async def test_a_key_is_taken_for_no_new_one_while_an_archive_is_written_anew(
    ledger: LettingGo, store: LaterStore
):
    # given a ledger that let go of a keyed task, and lost its archive, but has all events
    keyed = derived_id("kb", "order 17")
    ledger.terms = replace(ledger.terms, events_ms=0)
    task = await completed(store, keyed)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()
    await ledger.lose_archive(trimmed=False)
    # when the key is met again, then nobody can know
    with pytest.raises(Rejection, match="the log of partition 0 ends before"):
        await submitted(store, keyed)
    # until the events were sealed again
    await ledger.seal()
    assert await submitted(store, keyed) == task


# -- what is gone is still known -------------------------------------------------------------------


async def test_an_evicted_task_is_read_from_the_archive(ledger: LettingGo, store: LaterStore):
    task = await completed(store, ONE)
    history = await store.history(ONE)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()

    assert await store.load(ONE) == task
    assert await store.history(ONE) == history
    assert await store.load(TWO) is None
    assert await store.history(TWO) == []


async def test_a_history_goes_on_where_the_stream_was_trimmed(ledger: LettingGo, store: LaterStore):
    await started(store, ONE)
    await ledger.seal()
    await completed(store, TWO)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()
    done = await transact(store, ONE, CancelTask())

    history = await store.history(ONE)

    assert [event.version for event in history] == [1, 2, 3]
    assert history[-1].position == done.position
    assert await store.event_at(history[0].position) == history[0]


async def test_an_evicted_task_can_be_retried(ledger: LettingGo, store: LaterStore):
    task = await failed(store, ONE)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()

    done = await transact(store, ONE, RetryTask())

    assert done.task.version == task.version + 1
    assert await ledger.is_in_memory(task)
    history = await store.history(ONE)
    assert [event.version for event in history] == [*range(1, done.task.version + 1)]


async def test_a_task_put_back_to_no_avail_goes_again(ledger: LettingGo, store: LaterStore):
    task = await failed(store, ONE)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()
    await submitted(store, TWO)

    with pytest.raises(Rejection, match="queue"):
        await transact(store, ONE, RetryTask(), queue_max=1)
    assert await ledger.is_in_memory(task)
    await ledger.let_go()

    assert not await ledger.is_in_memory(task)
    assert await store.client.zcard(KEYS.restored) == 0


async def test_a_key_that_made_an_evicted_task_makes_no_other(ledger: LettingGo, store: LaterStore):
    keyed = derived_id("kb", "order 17")
    task = await completed(store, keyed)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()

    again = await submitted(store, keyed)

    assert again == task
    assert not await ledger.is_in_memory(task)
    assert (await submitted(store, derived_id("kb", "order 18"))).version == 1


async def test_a_store_without_the_archive_takes_no_key_that_may_have_been(
    ledger: LettingGo, store: LaterStore
):
    await completed(store, derived_id("kb", "order 17"))
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()
    store.past = None

    with pytest.raises(Rejection, match="archive"):
        await submitted(store, derived_id("kb", "order 17"))
