"""Which events are read: spans, filters, and their order."""

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import msgspec
import pytest

from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.codec import Meta
from ledger.commands import CancelTask, SubmitTask
from ledger.events import TaskCanceled, TaskSubmitted
from ledger.identity import SYSTEM
from ledger.moments import moment_text
from ledger.objects.local_folder import LocalFolder
from ledger.store import Position, Recorded
from ledger.system.commands import PauseQueue
from ledger.system.transact import transact_system
from ledger.transact import transact
from tests.archives import EPOCH, T0, archive_of, histories, seal
from tests.contracts.store import META, new_id, send, submit
from tests.given import OTHER_TRACE, TRACE, a_submission
from tests.projections.ledgers import Clock, make_store
from tests.replay.ledgers import joined, replayed

MINUTE_MS = 60_000


async def archived(folder: Path, *partitions: Sequence[Recorded]) -> Joined:
    """The logs of these partitions."""
    objects = LocalFolder(folder)
    for partition, events in enumerate(partitions):
        await seal(objects, events, partition=partition)
    return Joined(None, Archive(objects, EPOCH, len(partitions)))


def every(minutes: int, count: int, partition: int = 0) -> list[Recorded]:
    """Events of as many tasks, so far apart; of later partitions, a ms later each."""
    return [
        msgspec.structs.replace(
            event,
            position=Position(partition, f"{T0 + n * minutes * MINUTE_MS + partition}-0"),
            at=T0 + n * minutes * MINUTE_MS + partition,
        )
        for n, event in enumerate(histories(count, 1, partition))
    ]


async def test_all_partitions_come_in_the_order_of_their_writing(tmp_path: Path):
    logs = [every(1, 600), every(2, 300, 1), every(3, 10, 2)]

    found = await replayed(await archived(tmp_path, *logs))

    assert found == sorted(chain(*logs), key=lambda event: event.at)


async def test_times_are_those_at_which_events_happened(tmp_path: Path):
    written = every(1, 400)
    late = msgspec.structs.replace(written[200], at=T0)
    written[200] = late
    events = await archived(tmp_path, written)
    since, until = moment_text(T0 + MINUTE_MS), moment_text(T0 + 200 * MINUTE_MS)

    found = await replayed(events, since=since, until=until)
    by_age = await replayed(events, since="2m", now_ms=T0 + 400 * MINUTE_MS)

    assert found == written[1:200]
    assert by_age == written[398:]


async def test_positions_are_included(tmp_path: Path):
    written = every(1, 300)
    events = await archived(tmp_path, written)
    since, until = str(written[7].position), str(written[270].position)

    found = await replayed(events, since=since, until=until)

    assert found == written[7:271]


async def test_of_partitions_that_are_not_named_the_same_time_is_meant(tmp_path: Path):
    one, other = every(1, 20), every(1, 20, 1)
    events = await archived(tmp_path, one, other)

    found = await replayed(events, since=str(one[5].position), until=str(other[9].position))

    assert set(found) == {*one[5:10], *other[5:10]}


@pytest.mark.parametrize("text", ["yesterday", "5", "2026-11-05", "0:1-", "7:1-0", "0:1-0,0:2-0"])
async def test_what_cannot_be_meant_is_refused(text: str, tmp_path: Path):
    events = await joined(make_store(1, Clock()), tmp_path)

    with pytest.raises(ValueError, match=r"--from: expected"):
        await replayed(events, since=text)


async def test_a_beginning_behind_the_end_is_refused(tmp_path: Path):
    events = await joined(make_store(1, Clock()), tmp_path)

    with pytest.raises(ValueError, match="--from 1h is after --until 2h"):
        await replayed(events, since="1h", until="2h", now_ms=100_000_000)


async def test_filters_hold_for_events_that_do_not_say_themselves_whose_they_are(tmp_path: Path):
    store = make_store(1, Clock())
    one = await submit(store, kb_id="one")
    other = await submit(store, kb_id="other", task_type="health_check")
    await send(store, one, CancelTask())
    await send(store, other, CancelTask())
    await transact_system(store, PauseQueue("health_check", "a test"), META)
    events = await joined(store, tmp_path)

    of_kb = await replayed(events, kb_ids=frozenset({"one"}))
    of_type = await replayed(
        events, task_types=frozenset({"health_check"}), types=frozenset({"TaskCanceled"})
    )
    of_task = await replayed(events, tasks=frozenset({other.id}))
    of_system = await replayed(events, tasks=frozenset({SYSTEM}))

    assert {event.task_id for event in of_kb} == {one.id}
    assert len(of_kb) == 2
    assert [(event.task_id, event.type) for event in of_type] == [(other.id, "TaskCanceled")]
    assert [event.type for event in of_task] == [TaskSubmitted.__name__, TaskCanceled.__name__]
    assert [event.type for event in of_system] == ["QueuePaused"]


async def test_whose_a_task_is_that_began_before_the_span_is_found_out(tmp_path: Path):
    store = make_store(1, Clock())
    task = await submit(store, kb_id="one")
    await submit(store, kb_id="other")
    await send(store, task, CancelTask())
    events = await joined(store, tmp_path)
    last = (await replayed(events))[-1]

    found = await replayed(events, since=str(last.position), kb_ids=frozenset({"one"}))

    assert found == [last]


async def test_actors_are_told_apart(tmp_path: Path):
    store = make_store(1, Clock())
    for actor in ("anna", "bert", "anna"):
        await transact(store, new_id(), SubmitTask(a_submission()), meta=Meta(actor=actor))
    events = await joined(store, tmp_path)

    found = await replayed(events, actors=frozenset({"anna"}))

    assert len(found) == 2
    assert all(re.search(b'"actor":"anna"', event.meta) for event in found)


async def test_a_trace_is_followed_through_all_its_tasks(tmp_path: Path):
    store = make_store(2, Clock())
    one, other = await submit(store, trace=TRACE), await submit(store, trace=TRACE)
    strange = await submit(store, trace=OTHER_TRACE)
    await submit(store)
    for task in (one, other, strange):
        await send(store, task, CancelTask())
    events = await joined(store, tmp_path)

    found = await replayed(events, traces=frozenset({TRACE.split("-")[1]}))

    assert sorted((event.task_id, event.type) for event in found) == sorted(
        (task.id, kind) for task in (one, other) for kind in ("TaskSubmitted", "TaskCanceled")
    )


async def test_in_an_archive_alone_tasks_are_found_wherever_they_lie(tmp_path: Path):
    store = make_store(3, Clock())
    tasks = [await submit(store) for _ in range(30)]
    archive = await archive_of(store, tmp_path)
    alone = Joined(None, archive)

    for task in tasks:
        assert await alone.history(task.id) == await store.history(task.id)
    assert len(await replayed(alone)) == 30
    assert await alone.event_at(Position(0, "1000-1")) is None
