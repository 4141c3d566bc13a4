"""Events that are sent again: when, and to where."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from api.replay.emit import emit
from api.replay.other_ledger import OtherLedger
from api.replay.pace import Pace, speed_of
from api.replay.sinks import SinkFailed, WebSocket
from ledger.codec import decode_meta
from ledger.commands import CancelTask, CompleteTask, FailAttempt
from ledger.events import ErrorKind
from ledger.redis_store import RedisStore, StoreOptions
from ledger.store import Position, Recorded, Store
from tests.checks import check_ledger
from tests.contracts.store import RESULT, send, start, submit
from tests.projections.ledgers import Clock, make_store

CALLED_BACK = "http://127.0.0.1:9/hook"


async def events_of(store: Store) -> list[Recorded]:
    return await store.events_after(Position(0, "0-0"), 10_000, 0)


async def in_pieces(events: Sequence[Recorded], size: int) -> AsyncGenerator[list[Recorded]]:
    for first in range(0, len(events), size):
        yield list(events[first : first + size])


class Taken:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.groups: list[list[Recorded]] = []

    async def take(self, events: Sequence[Recorded]) -> None:
        self.groups.append(list(events))


async def test_what_is_read_ahead_is_let_go_of_when_nobody_takes_more(tmp_path: Path):
    # given events that are read ahead of whom they are sent to
    store = make_store(1, Clock())
    await submit(store)
    ended: list[str] = []

    async def reading() -> AsyncGenerator[list[Recorded]]:
        try:
            while True:
                yield await events_of(store)
        finally:
            ended.append("reading")

    async def gone(events: Sequence[Recorded]) -> None:
        raise BrokenPipeError

    # when that one goes away, then nothing is left reading
    with pytest.raises(BrokenPipeError):
        await emit(reading(), gone, Pace(speed_of("max")))
    assert ended == ["reading"]


async def test_what_was_written_at_once_is_sent_at_once(tmp_path: Path):
    store = make_store(1, Clock())
    await send(
        store, await start(store, await submit(store)), FailAttempt(1, "no", ErrorKind.PERMANENT)
    )
    written = await events_of(store)
    taken = Taken()

    count = await emit(in_pieces(written, 3), taken.take, Pace(1_000_000.0))

    assert count == 4
    assert [[event.type for event in group] for group in taken.groups] == [
        ["TaskSubmitted"],
        ["TaskStarted"],
        ["AttemptFailed", "TaskFailed"],
    ]


async def test_events_are_as_far_apart_as_they_happened_or_less():
    clock = Clock()
    store = make_store(1, clock)
    for _ in range(3):
        await submit(store)
        clock.ms += 10_000
    loop = asyncio.get_running_loop()
    began_s, taken = loop.time(), Taken()

    await emit(in_pieces(await events_of(store), 100), taken.take, Pace(speed_of("100")))

    assert loop.time() - began_s >= 0.2
    assert len(taken.groups) == 3


@pytest.mark.parametrize("text", ["0", "-1", "fast", "inf", "nan"])
def test_a_speed_is_a_number_above_nothing(text: str):
    with pytest.raises(ValueError, match="--speed: expected a number above 0, or max"):
        speed_of(text)


async def test_a_websocket_gets_a_message_for_each_event():
    store = make_store(1, Clock())
    await send(store, await submit(store), CancelTask())
    written, got = await events_of(store), list[str | bytes]()

    async def receive(connection: ServerConnection) -> None:
        async for message in connection:
            got.append(message)

    async with serve(receive, "127.0.0.1", 0) as server:
        sink = WebSocket(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")
        await sink.send(written)
        await sink.close()

    told = [json.loads(message) for message in got]
    assert [each["type"] for each in told] == ["TaskSubmitted", "TaskCanceled"]
    assert [each["position"] for each in told] == [str(event.position) for event in written]
    assert {each["task_id"] for each in told} == {written[0].task_id}


async def test_nobody_who_listens_is_one_clear_line():
    with pytest.raises(SinkFailed, match=r"ws://127\.0\.0\.1:1: "):
        await WebSocket("ws://127.0.0.1:1").send(await events_of(await _with_a_task()))


async def _with_a_task() -> Store:
    store = make_store(1, Clock())
    await submit(store)
    return store


async def test_another_ledger_lives_the_same_lives(ledger_url: str):
    clock = Clock()
    first = make_store(1, clock)
    for _ in range(3):
        clock.ms += 5
        await submit(first, callback_url=CALLED_BACK)
    done = await send(first, await start(first, await submit(first)), CompleteTask(1, RESULT))
    failing = await start(first, await submit(first))
    failed = await send(first, failing, FailAttempt(1, "no", ErrorKind.RETRYABLE))
    written = await events_of(first)
    sink = OtherLedger(ledger_url, await first.epoch(), 1)

    await emit(in_pieces(written, 2), sink.send, Pace(speed_of("max")))
    await emit(in_pieces(written, 5), sink.send, Pace(speed_of("max")))
    await sink.close()

    second = await RedisStore.open(ledger_url, StoreOptions())
    try:
        repeated = await events_of(second)
        counts = await check_ledger(second)
        assert await second.load(done.id) == done
        assert await second.load(failed.id) == failed
    finally:
        await second.close()
    assert len(repeated) == len(written)
    assert [(e.task_id, e.type, e.version, e.at) for e in repeated] == [
        (e.task_id, e.type, e.version, e.at) for e in written
    ]
    assert {decode_meta(event.meta).actor for event in repeated} == {
        decode_meta(event.meta).actor for event in written
    }
    assert all(task.submission.callback_url is None for task in counts.tasks.values())


async def test_a_task_whose_beginning_is_missing_there_is_named(ledger_url: str):
    store = make_store(1, Clock())
    await send(store, await submit(store), CancelTask())
    _, canceled = await events_of(store)
    sink = OtherLedger(ledger_url, await store.epoch(), 1)

    with pytest.raises(SinkFailed, match=f"task {canceled.task_id} is at version 0 there"):
        await sink.send([canceled])
    await sink.close()


async def test_a_ledger_is_not_repeated_into_itself(store: RedisStore, ledger_url: str):
    await submit(store)
    sink = OtherLedger(ledger_url, await store.epoch(), 1)

    with pytest.raises(SinkFailed, match="this is the ledger that the events are read from"):
        await sink.send(await events_of(store))
    await sink.close()
