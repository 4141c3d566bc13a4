"""Fixtures that every test may use: a real Valkey, and an empty ledger on it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from ledger.redis_store import RedisStore
from tests.servers import run_server, valkey_binary


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """One Valkey for the whole session; tests that use `ledger_url` get it empty."""
    with run_server(valkey_binary()) as url:
        yield url


@pytest.fixture
async def ledger_url(valkey_url: str) -> str:
    """A server without any key or script."""
    store = await RedisStore.open(valkey_url)
    await store.client.flushall()
    await store.client.script_flush()
    await store.close()
    return valkey_url


@pytest.fixture
async def store(ledger_url: str) -> AsyncIterator[RedisStore]:
    """An empty ledger on a real server."""
    store = await RedisStore.open(ledger_url)
    yield store
    await store.close()
