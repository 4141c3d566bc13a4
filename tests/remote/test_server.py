"""The server as such: health, reflection, metrics, its beginning."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from api.app import App
from api.errors import ANSWERS, ApiError, ErrorCode
from api.grpc import server as grpc_server
from api.grpc import task_service_pb2 as pb
from api.grpc.server import SERVICE, GrpcServer
from api.grpc.statuses import STATUSES, error_message, error_metadata
from ledger.settings import Settings
from tests.remote.calls import Remote, refused, submission

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
PATIENCE_S: Final = 10


def counted(app: App, method: str) -> dict[str, int]:
    """How many calls of a method were measured, by their codes."""
    return {
        name: sum(calls.counts)
        for name, calls in app.meter.meters.calls.items()
        if name.startswith(f"{method} ")
    }


async def test_health_is_told_and_watched_until_the_server_stops(
    server: tuple[GrpcServer, int], remote: Remote
):
    health: Any = health_pb2_grpc
    stub = health.HealthStub(remote.channel)
    asked = health_pb2.HealthCheckRequest(service=SERVICE)

    now = await stub.Check(asked)
    watch = stub.Watch(asked)
    first = await watch.read()
    stopping = asyncio.create_task(server[0].stop())
    last = await watch.read()
    await stopping

    assert (now.status, first.status, last.status) == (SERVING, SERVING, NOT_SERVING)


async def test_the_service_describes_itself(remote: Remote):
    reflection: Any = reflection_pb2_grpc
    stub = reflection.ServerReflectionStub(remote.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]

    services, file = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]

    assert SERVICE in {service.name for service in services.list_services_response.service}
    assert b"GetPendingTasks" in file.file_descriptor_response.file_descriptor_proto[0]


async def test_calls_are_measured(app: App, remote: Remote):
    await remote.submit()
    await refused(remote.get("nonsense"))

    meters = app.meter.meters
    assert sum(meters.calls["SubmitTask OK"].counts) == 1
    assert sum(meters.calls["GetTask NOT_FOUND"].counts) == 1


async def test_a_refused_call_counts_once(app: App, remote: Remote):
    await refused(remote.get("nonsense"))

    assert counted(app, "GetTask") == {"GetTask NOT_FOUND": 1}


async def test_a_caller_who_is_gone_is_counted_as_that(
    app: App, server: tuple[GrpcServer, int], remote: Remote
):
    waiting = asyncio.create_task(remote.take(wait_ms=20_000))
    async with asyncio.timeout(PATIENCE_S):
        while not server[0].waiting:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.01)
    waiting.cancel()
    async with asyncio.timeout(PATIENCE_S):
        while not counted(app, "GetPendingTasks"):  # noqa: ASYNC110 - nor this
            await asyncio.sleep(0.01)

    assert counted(app, "GetPendingTasks") == {"GetPendingTasks CANCELLED": 1}


async def test_a_server_whose_calls_are_answered_ends_before_its_patience_does(
    app: App, settings: Settings
):
    server = GrpcServer(msgspec.structs.replace(settings, drain_timeout_ms=10_000 * PATIENCE_S))
    port = await server.start()
    server.open(app)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await Remote(channel).submit()

        async with asyncio.timeout(PATIENCE_S):
            await server.stop()


async def test_calls_that_come_at_once_are_all_answered(remote: Remote):
    calls = [remote.stub.GetTask(pb.GetTaskRequest(id="nonsense")) for _ in range(2_000)]

    statuses = {await call.code() for call in calls}

    assert statuses == {grpc.StatusCode.NOT_FOUND}


async def test_a_probe_does_not_wait_in_line_with_calls(remote: Remote):
    health: Any = health_pb2_grpc
    stub = health.HealthStub(remote.channel)
    calls = [remote.stub.GetTask(pb.GetTaskRequest(id="nonsense")) for _ in range(2_000)]

    now = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    answered = sum(call.done() for call in calls)
    for call in calls:
        await call.code()

    assert now.status == SERVING
    assert answered < len(calls) / 2


async def test_before_the_ledger_is_open_calls_are_unavailable(settings: Settings):
    server = GrpcServer(settings)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            error = await refused(Remote(channel).call("SubmitTask", submission()))
    finally:
        await server.stop()

    assert (error.status, error.code) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")


async def test_before_the_ledger_is_open_health_and_reflection_answer(settings: Settings):
    health: Any = health_pb2_grpc
    reflection: Any = reflection_pb2_grpc
    server = GrpcServer(settings)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            asked = health_pb2.HealthCheckRequest(service=SERVICE)
            now = await health.HealthStub(channel).Check(asked)
            first = await health.HealthStub(channel).Watch(asked).read()
            listing = reflection_pb2.ServerReflectionRequest(list_services="")
            stub = reflection.ServerReflectionStub(channel)
            [services] = [each async for each in stub.ServerReflectionInfo(iter([listing]))]
    finally:
        await server.stop()

    assert (now.status, first.status) == (NOT_SERVING, NOT_SERVING)
    assert SERVICE in {service.name for service in services.list_services_response.service}


async def test_a_call_that_begins_before_the_ledger_is_open_and_ends_after_is_unavailable(
    app: App, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    begun, opened = asyncio.Event(), asyncio.Event()
    look_up = vars(grpc_server)["_Methods"].service

    def service(methods: object, details: grpc.HandlerCallDetails) -> object:
        begun.set()
        return look_up(methods, details)

    async def late() -> AsyncIterator[bytes]:
        await opened.wait()
        yield b""

    monkeypatch.setattr("api.grpc.server._Methods.service", service)
    server = GrpcServer(settings)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.stream_unary(f"/{SERVICE}/GetTask")  # pyright: ignore[reportUnknownVariableType]
            answer = call(late(), timeout=20)
            await asyncio.wait_for(begun.wait(), 20)
            server.open(app)
            opened.set()
            error = await refused(answer)
    finally:
        await server.stop()

    assert (error.status, error.code) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")


async def test_a_port_in_use_is_a_clear_error(server: tuple[GrpcServer, int], settings: Settings):
    other = GrpcServer(msgspec.structs.replace(settings, grpc_port=server[1]))
    try:
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{server[1]} for gRPC"):
            await other.start()
    finally:
        await other.stop()


def test_every_error_of_rest_has_a_status():
    assert STATUSES.keys() == ANSWERS.keys()


def test_what_is_told_of_an_error_is_ascii_and_bounded():
    details = {"field": "käse", "task_ids": ["x" * 36] * 1_000}
    error = ApiError(ErrorCode.INVALID_REQUEST, "m" * 10_000, details)

    metadata = dict(error_metadata(error))

    assert metadata["error-details"] == '{"field":"k\\u00e4se"}'
    assert len(error_message(error)) == 500
