"""The client in its two forms, against one served API; and what stands between them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from api.client import AsyncClient, Client, Retries
from ledger.settings import Settings
from tests.api.conftest import Service
from tests.faults.proxy import Proxy, run_tcp_proxy

QUICK = Retries(calls_max=8, pause_first_s=0.01, pause_max_s=0.1)


class InThread:
    """A blocking client as an asynchronous one, so that one test serves both."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            return await asyncio.to_thread(method, *arguments, **options)

        async def each(*arguments: Any, **options: Any) -> AsyncIterator[Any]:
            found = method(*arguments, **options)
            try:
                while (item := await asyncio.to_thread(next, found, None)) is not None:
                    yield item
            finally:
                found.close()

        return each if name in ("iterate", "watch", "follow") else call


def client_of(form: str, url: str, **options: Any) -> AsyncClient:
    """A client of that form, as an asynchronous one."""
    options = {"retries": QUICK, "timeout_s": 20, **options}
    if form == "async":
        return AsyncClient(url, **options)
    return cast("AsyncClient", InThread(Client(url, **options)))


@pytest.fixture
def settings(tmp_path: Path, ledger_url: str) -> Settings:
    """The read model lies where the service looks for it."""
    return Settings(data_dir=str(tmp_path), redis_url=ledger_url)


@pytest.fixture(params=["async", "blocking"])
def form(request: pytest.FixtureRequest) -> str:
    """Which client the test is run with."""
    return request.param


@pytest.fixture
async def client(form: str, service: Service) -> AsyncIterator[AsyncClient]:
    """A client of the served API."""
    client = client_of(form, f"http://127.0.0.1:{service.port}")
    yield client
    await client.close()


@pytest.fixture
async def proxy(service: Service) -> AsyncIterator[Proxy]:
    """A line to the served API that can be cut."""
    async with run_tcp_proxy(f"http://127.0.0.1:{service.port}") as proxy:
        yield proxy


@pytest.fixture
async def far_client(form: str, proxy: Proxy) -> AsyncIterator[AsyncClient]:
    """A client behind that line."""
    client = client_of(form, proxy.url)
    yield client
    await client.close()
