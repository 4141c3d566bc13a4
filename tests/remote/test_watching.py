"""WatchTasks: how tasks stand, as it changes, from any position on."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest

from api import outbox
from api.app import App
from api.audience import Ending
from api.grpc import task_service_pb2 as pb
from api.grpc.server import GrpcServer
from api.outbox import Outbox
from ledger.redis_store import RedisStore
from tests.api.requests import complete, fail
from tests.remote.calls import Remote, refused

PATIENCE_S = 20


class Watching:
    """An open stream, and where it stands."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._left: list[Any] = []
        self.position = ""

    async def read(self) -> None:
        """The next message."""
        async with asyncio.timeout(PATIENCE_S):
            message = await self._call.read()
        if message is grpc.aio.EOF:
            await self._call  # raises
        self._left += message.updates
        self.position = message.position

    async def updates(self, count: int) -> list[Any]:
        """The next updates."""
        while len(self._left) < count:
            await self.read()
        taken, self._left = self._left[:count], self._left[count:]
        return taken


@contextlib.asynccontextmanager
async def watching(remote: Remote, **asked: Any) -> AsyncGenerator[Watching]:
    """A stream that has begun: what happens from now on is told."""
    call = remote.stub.WatchTasks(pb.WatchTasksRequest(**asked))
    stream = Watching(call)
    try:
        await stream.read()
        yield stream
    finally:
        call.cancel()


async def test_a_task_is_told_from_its_submission_to_its_end(remote: Remote, store: RedisStore):
    async with watching(remote) as stream:
        task = await remote.submit(kb_id="kb-7")
        await complete(store, task.id, b'{"chunks": 1.0}')
        updates = await stream.updates(3)

    assert {(u.task_id, u.kb_id, u.task_type) for u in updates} == {
        (task.id, "kb-7", "document_processing")
    }
    assert [u.status for u in updates] == [
        pb.TASK_STATUS_QUEUED,
        pb.TASK_STATUS_PROCESSING,
        pb.TASK_STATUS_COMPLETED,
    ]
    assert (updates[-1].progress, updates[-1].result) == (100, b'{"chunks": 1.0}')
    assert [u.position for u in updates] == [str(e.position) for e in await store.history(task.id)]


async def test_a_stream_goes_on_from_a_position_without_gap_or_duplicate(
    remote: Remote, store: RedisStore
):
    async with watching(remote, after="beginning") as stream:
        first = await remote.submit()
        seen = await stream.updates(1)
        position = stream.position
    second = await remote.submit()
    await fail(store, first.id, "no such file")

    async with watching(remote, after=position) as stream:
        missed = await stream.updates(4)
        await remote.submit()
        live = await stream.updates(1)

    assert [(u.task_id, u.status) for u in seen] == [(first.id, pb.TASK_STATUS_QUEUED)]
    assert [(u.task_id, u.status) for u in missed] == [
        (second.id, pb.TASK_STATUS_QUEUED),
        (first.id, pb.TASK_STATUS_PROCESSING),
        (first.id, pb.TASK_STATUS_RETRYING),  # its attempt failed
        (first.id, pb.TASK_STATUS_FAILED),
    ]
    assert missed[-1].error_message == "no such file"
    assert live[0].status == pb.TASK_STATUS_QUEUED


@pytest.mark.parametrize(
    "asked",
    [
        {"kb_id": ["kb-2"]},
        {"task_type": ["vector_storage"]},
        {"priority": [pb.PRIORITY_HIGH]},
    ],
)
async def test_only_what_is_asked_for_is_told(remote: Remote, asked: dict[str, Any]):
    async with watching(remote, **asked) as stream:
        await remote.submit()
        wanted = await remote.submit(
            kb_id="kb-2", task_type="vector_storage", priority=pb.PRIORITY_HIGH
        )
        [update] = await stream.updates(1)

    assert update.task_id == wanted.id


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("after", {"after": "yesterday"}),
        ("after", {"after": "0:99999999999999-0"}),
        ("task_id", {"task_id": ["nonsense"]}),
        ("status", {"status": [99]}),
    ],
)
async def test_what_cannot_be_watched_is_refused(remote: Remote, field: str, asked: dict[str, Any]):
    call = remote.stub.WatchTasks(pb.WatchTasksRequest(**asked))

    error = await refused(call.read())

    assert (error.status, error.details["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_a_stopping_server_ends_streams(server: tuple[GrpcServer, int], remote: Remote):
    async with watching(remote) as stream:
        stopping = asyncio.create_task(server[0].stop())
        error = await refused(stream.read())
        await stopping

    assert (error.status, error.code) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
    assert "go on elsewhere" in error.message


async def test_a_stream_is_told_why_it_ends_though_its_first_message_is_still_being_written(
    app: App, remote: Remote, monkeypatch: pytest.MonkeyPatch
):
    async def stop_while_writing(_followers: Any, outbox: Outbox, write: Any, *_: Any) -> Ending:
        writing = asyncio.create_task(outbox.send_all(write))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        return Ending.STOPPING

    monkeypatch.setattr(app.audience, "serve", stop_while_writing)
    call = remote.stub.WatchTasks(pb.WatchTasksRequest())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async with asyncio.timeout(PATIENCE_S):
            async for _ in call:
                pass

    assert "go on elsewhere" in str(raised.value.details())


async def test_a_client_that_does_not_read_is_dropped_alone(
    remote: Remote, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox, "BUFFER_BYTES_MAX", 256 * 1024)
    monkeypatch.setattr(outbox, "SEND_TIMEOUT_S", 0.5)
    large = b'{"a": "' + b"x" * 200_000 + b'"}'
    async with watching(remote) as stalled, watching(remote) as reading:
        for _ in range(30):
            task = await remote.submit()
            await complete(store, task.id, large)
            told = await reading.updates(3)
            assert told[-1].result == large
        error = await refused(_read_on(stalled))

    assert error.status is grpc.StatusCode.UNAVAILABLE
    assert "more was told than was read" in error.message


async def _read_on(stream: Watching) -> None:
    while True:
        await stream.read()
