"""One connection that many calls share."""

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ledger.redis_caller import Caller
from ledger.redis_connection import ServerRefused, connect, connections_made, distrust, send
from ledger.redis_line import Line, line_of

PAUSE_MS: Final = 60_000
"""It is ended, not waited for."""

CALLERS: Final = 50
CONNECTIONS_MAX: Final = 4


@pytest.fixture
async def client(ledger_url: str) -> AsyncIterator[Redis]:
    client = connect(ledger_url, timeout_ms=10_000, connections_max=CONNECTIONS_MAX)
    yield client
    await client.aclose()


@pytest.fixture
async def hasty(ledger_url: str) -> AsyncIterator[Redis]:
    """It does not wait for long."""
    client = connect(ledger_url, timeout_ms=200, connections_max=CONNECTIONS_MAX)
    yield client
    await client.aclose()


@pytest.fixture
def line(client: Redis) -> Line:
    return line_of(client)


async def test_each_gets_its_own_reply(line: Line):
    async def talk(name: int) -> list[bytes]:
        return [await line.ask(("ECHO", f"{name}-{turn}")) for turn in range(10)]

    told = await asyncio.gather(*map(talk, range(CALLERS)))

    assert told == [[b"%d-%d" % (name, turn) for turn in range(10)] for name in range(CALLERS)]


async def test_all_of_them_take_one_connection(client: Redis):
    await asyncio.gather(*(line_of(client).ask(("PING",)) for _ in range(CALLERS)))
    await Caller(client, 10_000).command("PING")

    assert connections_made(client) == 1


async def test_whoever_goes_takes_no_reply_along(line: Line):
    for steps in range(20):
        calls = [asyncio.create_task(_ask(line, n)) for n in range(CALLERS)]
        for _ in range(steps):
            await asyncio.sleep(0)
        gone = random.sample(calls, CALLERS // 2)
        for call in gone:
            call.cancel()
        await asyncio.wait(calls)

        left = [(n, call.result()) for n, call in enumerate(calls) if not call.cancelled()]
        assert left == [(n, b"%d" % n) for n, _ in left]
        assert await line.ask(("ECHO", "next")) == b"next"


async def test_an_error_is_for_the_one_who_asked(line: Line):
    replies = await _outcomes(line, ("ECHO", "before"), ("NONSENSE",), ("ECHO", "after"))

    assert replies[0::2] == [b"before", b"after"]
    assert isinstance(replies[1], ResponseError)


async def test_what_is_no_command_harms_nobody(line: Line):
    other = line.ask(("ECHO", "other"))

    with pytest.raises(TypeError):
        line.ask(("ECHO", object()))  # pyright: ignore[reportArgumentType]

    assert await other == b"other"


async def test_a_reply_that_does_not_come_fails_all_who_wait_and_nobody_after(
    client: Redis, hasty: Redis
):
    line = line_of(hasty)
    await line.ask(("PING",))
    await send(hasty, ("PING",))
    made = connections_made(hasty)
    await send(client, ("CLIENT", "PAUSE", PAUSE_MS, "WRITE"))

    replies = await _outcomes(line, ("SET", "a", 1), ("ECHO", "behind it"))
    await send(client, ("CLIENT", "UNPAUSE"))

    assert [type(reply) for reply in replies] == [RedisTimeoutError, RedisTimeoutError]
    assert replies[0] is not replies[1]
    assert await line.ask(("ECHO", "next")) == b"next"
    await send(hasty, ("DEL", "a"))
    assert connections_made(hasty) == made + 2, "one was used that was there before the fault"


async def test_each_has_its_own_time_however_long_the_line_is_busy(client: Redis, ledger_url: str):
    asking = connect(ledger_url, timeout_ms=1_500, connections_max=1)
    line = line_of(asking)
    first = line.ask(("BLPOP", "nothing", "0.9"))
    await send(client, ("BLPOP", "nothing", "0.8"))

    # Its turn comes late, and its reply when the time of the first is long up.
    second = line.ask(("BLPOP", "nothing", "0.9"))

    assert await asyncio.gather(first, second) == [None, None]
    assert connections_made(asking) == 1
    await asking.aclose()


async def test_a_connection_that_is_cut_fails_all_who_wait_and_nobody_after(
    client: Redis, line: Line
):
    for _ in range(CONNECTIONS_MAX + 1):
        number = await line.ask(("CLIENT", "ID"))
        waiting = _all(line, ("BLPOP", "nothing", 0), ("PING",))
        await send(client, ("CLIENT", "KILL", "ID", number))
        replies = await asyncio.gather(*waiting, return_exceptions=True)

        assert all(isinstance(reply, RedisConnectionError) for reply in replies)
        assert await line.ask(("ECHO", "next")) == b"next"


async def test_a_connection_that_was_cut_while_nobody_asked_fails_nobody(client: Redis, line: Line):
    await send(client, ("CLIENT", "KILL", "ID", await line.ask(("CLIENT", "ID"))))

    assert await line.ask(("ECHO", "next")) == b"next"


async def test_a_connection_that_the_system_gave_up_is_no_empty_reply(line: Line):
    await line.ask(("PING",))
    given_up = TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    line._connection._reader.set_exception(given_up)  # pyright: ignore[reportPrivateUsage]

    with pytest.raises(RedisConnectionError):
        await line.ask(("GET", "nothing"))

    assert await line.ask(("ECHO", "next")) == b"next"


async def test_what_is_not_trusted_is_read_to_its_end_and_replaced(client: Redis, line: Line):
    before = await line.ask(("CLIENT", "ID"))
    waiting = line.ask(("BLPOP", "nothing", "0.1"))
    await send(client, ("PING",))

    distrust(client)
    after = await line.ask(("CLIENT", "ID"))

    assert await waiting is None
    assert after != before


async def test_a_server_that_lets_nobody_in_is_told_to_all(ledger_url: str):
    stranger = connect(f"{ledger_url}?password=wrong", timeout_ms=5_000, connections_max=2)

    replies = await _outcomes(line_of(stranger), ("PING",), ("PING",))

    assert [type(reply) for reply in replies] == [ServerRefused, ServerRefused]
    await stranger.aclose()


def _all(line: Line, *commands: Sequence[Any]) -> list[asyncio.Future[Any]]:
    return [line.ask(command) for command in commands]


async def _outcomes(line: Line, *commands: Sequence[Any]) -> list[Any]:
    return await asyncio.gather(*_all(line, *commands), return_exceptions=True)


async def _ask(line: Line, number: int) -> bytes:
    return await line.ask(("ECHO", number))
