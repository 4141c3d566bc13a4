"""The API in two forms: called in this process, and served by uvicorn on a port."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest

from api.app import App, create_app
from api.server import serve
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.api.conformance import conformance
from tests.api.reading import Projection


@pytest.fixture(autouse=True)
def _time_for_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request does without one that takes long, as it may on a busy machine."""
    monkeypatch.setattr("api.estimates.FIRST_WAIT_S", 20)


@pytest.fixture
def settings() -> Settings:
    """The defaults; a test file that needs others overrides this."""
    return Settings()


@pytest.fixture
async def app(store: RedisStore, settings: Settings) -> AsyncIterator[App]:
    """The application on an empty ledger."""
    app = create_app(store, settings)
    yield app
    await app.close()


@pytest.fixture
async def api(app: App, settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that calls the application without a network, and holds each answer to what
    `/openapi.json` says of it."""
    transport = httpx2.ASGITransport(app=app)
    hooks = {"response": [conformance(app, settings).check]}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://api", event_hooks=hooks
    ) as client:
        yield client


@pytest.fixture
async def projection(store: RedisStore, settings: Settings) -> AsyncIterator[Projection]:
    """What brings the read model level when it is told to."""
    projection = Projection(store, settings.read_model_folder)
    yield projection
    projection.close()


class Service:
    """The API behind a port, until `stop` is set."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.started = asyncio.Event()
        self.port = 0

    def on_started(self, host: str, port: int) -> None:
        self.port = port
        self.started.set()


@pytest.fixture
async def service(store: RedisStore, settings: Settings, tmp_path: Path) -> AsyncIterator[Service]:
    """uvicorn on a free loopback port, over an empty ledger."""
    service = Service()
    served = msgspec.structs.replace(settings, port=0, data_dir=str(tmp_path))
    running = asyncio.create_task(
        serve(served, store, stop=service.stop, on_started=service.on_started)
    )
    async with asyncio.timeout(20):
        await service.started.wait()
    yield service
    service.stop.set()
    async with asyncio.timeout(20):
        await running


@pytest.fixture
async def web(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that speaks to the served API over TCP."""
    url = f"http://127.0.0.1:{service.port}"
    async with httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client:
        yield client
