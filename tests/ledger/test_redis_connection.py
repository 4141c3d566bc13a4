"""Calls to the server, as the tasks that make them are cancelled."""

import asyncio
from typing import Final

import pytest

from ledger.redis_connection import connect, send
from ledger.redis_store import RedisStore

STEPS: Final = 20
"""Of the event loop; a call waits for its reply long before."""


async def test_a_call_ends_whenever_it_is_cancelled(store: RedisStore):
    for steps in range(STEPS):
        await send(store.client, ("PING",))
        call = asyncio.create_task(send(store.client, ("BLPOP", "nothing", 5)))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        _, waiting = await asyncio.wait([call], timeout=1)

        assert not waiting, f"it goes on after {steps} steps"
        assert call.cancelled()


async def test_a_connection_is_used_again_until_it_is_old(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    made = store.connections_made
    for _ in range(5):
        await send(store.client, ("PING",))
    assert store.connections_made == made

    monkeypatch.setattr("ledger.redis_connection.CONNECTION_AGE_MAX_S", 0)
    await send(store.client, ("PING",))
    assert store.connections_made == made + 1


async def test_a_reply_that_nobody_took_is_not_given_to_the_next(store: RedisStore):
    for steps in range(STEPS):
        call = asyncio.create_task(send(store.client, ("ECHO", "old")))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])

        assert await send(store.client, ("ECHO", "new")) == b"new"


async def test_the_bounds_of_a_call_are_ours_whatever_the_url_says():
    url = "redis://localhost/0?socket_timeout=3&max_connections=9&protocol=3"

    pool = connect(url, timeout_ms=5_000, connections_max=4).connection_pool

    assert pool.max_connections == 4
    assert (pool.connection_kwargs["socket_timeout"], pool.connection_kwargs["protocol"]) == (5, 2)
