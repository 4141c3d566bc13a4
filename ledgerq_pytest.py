"""The pytest plugin: the fixture `ledgerq`, a running service for tests of handlers and of code
that submits tasks. docs/client.md tells how to use it.

pytest imports this module wherever ledgerq is installed, so it imports nothing else of it: suites
that do not use it pay nothing, and an `api` package of theirs is found before ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:  # anyio takes an async fixture as it is
    from pytest import fixture as async_fixture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from api.testing import BlockingService, InlineService


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "ledgerq_handlers",
        "modules of handlers that the fixture ledgerq imports; handlers that are registered"
        " already are there in any case",
        type="args",
        default=[],
    )


@pytest.fixture(scope="session")
def ledgerq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey in memory, for the whole session. Override it to test on a server of your
    own: the database that it names is emptied before each test."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from ledger.embedded import EmbeddedServer

    server = EmbeddedServer(tmp_path_factory.mktemp("ledgerq"), durability="memory")
    # In a thread, since asyncio.run leaves its own behind without an event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, server.start()).result()
        try:
            yield server.url
        finally:
            thread.submit(asyncio.run, server.stop()).result()


@pytest.fixture
def ledgerq_handlers(pytestconfig: pytest.Config) -> Sequence[str]:
    """Modules of handlers; those of the ini option `ledgerq_handlers` unless overridden."""
    modules: list[str] = pytestconfig.getini("ledgerq_handlers")
    return modules


@pytest.fixture
def ledgerq_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the service keeps its files, and its handlers find those that were uploaded."""
    folder = tmp_path / "ledgerq"
    monkeypatch.setenv("LEDGERQ_DATA_DIR", str(folder))
    monkeypatch.delenv("LEDGERQ_OBJECT_STORE_URL", raising=False)
    return folder


@async_fixture
async def ledgerq(
    ledgerq_server: str, ledgerq_handlers: Sequence[str], ledgerq_folder: Path
) -> AsyncIterator[InlineService]:
    """A running service, empty, with every handler that is registered: `ledgerq.client`,
    `ledgerq.handler(...)`, `await ledgerq.run_until_finished()`."""
    from api.testing import inline_service

    async with inline_service(ledgerq_server, ledgerq_folder, ledgerq_handlers) as service:
        yield service


@pytest.fixture
def ledgerq_blocking(
    ledgerq_server: str, ledgerq_handlers: Sequence[str], ledgerq_folder: Path
) -> Iterator[BlockingService]:
    """The same for tests that are no coroutines: a client that blocks, and a service that runs,
    with its handlers, in a thread of its own."""
    from api.testing import blocking_service

    with blocking_service(ledgerq_server, ledgerq_folder, ledgerq_handlers) as service:
        yield service
