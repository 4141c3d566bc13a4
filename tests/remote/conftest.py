"""The gRPC service on a free loopback port, over an empty ledger, and a client that calls it."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import msgspec
import pytest

from api.app import App, create_app
from api.grpc.server import GrpcServer
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.api.reading import Projection
from tests.remote.calls import Remote


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The defaults; a test file that needs others overrides this."""
    return Settings(port=0, grpc_port=0, data_dir=str(tmp_path))


@pytest.fixture
async def app(store: RedisStore, settings: Settings) -> AsyncIterator[App]:
    """What answers."""
    app = create_app(store, settings)
    yield app
    await app.close()


@pytest.fixture
async def projection(store: RedisStore, settings: Settings) -> AsyncIterator[Projection]:
    """What brings the read model level when it is told to."""
    projection = Projection(store, settings.read_model_folder)
    yield projection
    projection.close()


@pytest.fixture
async def server(app: App, settings: Settings) -> AsyncIterator[tuple[GrpcServer, int]]:
    """The server, and its port."""
    server = GrpcServer(msgspec.structs.replace(settings, drain_timeout_ms=2_000))
    port = await server.start()
    server.open(app)
    yield server, port
    await server.stop()


@pytest.fixture
async def remote(server: tuple[GrpcServer, int]) -> AsyncIterator[Remote]:
    """A client, as a service or a worker elsewhere has one."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server[1]}") as channel:
        yield Remote(channel)
