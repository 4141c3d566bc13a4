"""One connection that many calls share."""

import asyncio
import contextlib
import errno
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Final

import hiredis
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ledger.redis_connection import ServerRefused, connect, connections_made, distrust, send
from ledger.redis_line import Line, line_of

PAUSE_MS: Final = 60_000
"""It is ended, not waited for."""

CALLERS: Final = 50
CONNECTIONS_MAX: Final = 4
PATIENCE_S: Final = 10
LARGE_BYTES: Final = 64 * 1024 * 1024
"""More than the system keeps for a connection."""


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
    await line_of(client).ask(("PING",))

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


async def test_nobody_waits_for_the_reply_of_another_before_asking():
    async with Echoes(at_once=2).at() as url:
        client = connect(url, timeout_ms=10_000, connections_max=1)
        first = line_of(client).ask(("ECHO", "first"))
        await asyncio.wait([first], timeout=0.05)

        second = line_of(client).ask(("ECHO", "second"))

        async with asyncio.timeout(PATIENCE_S):
            assert await asyncio.gather(first, second) == [b"first", b"second"]
        await client.aclose()


async def test_what_is_cancelled_before_it_was_sent_is_not_sent(line: Line):
    line.ask(("SET", "a", 1)).cancel()

    assert await line.ask(("EXISTS", "a")) == 0


async def test_replies_to_those_who_were_cancelled_with_the_loop_are_for_nobody(
    client: Redis, line: Line
):
    await line.ask(("PING",))
    waiting = line.ask(("BLPOP", "nothing", 0))
    await send(client, ("PING",))

    await _cancel_all_tasks()

    assert await line.ask(("ECHO", "next")) == b"next"
    assert waiting.cancelled()


async def test_a_line_that_was_cancelled_before_it_began_begins_again(line: Line):
    first = line.ask(("ECHO", "first"))

    await _cancel_all_tasks()
    second = line.ask(("ECHO", "second"))

    async with asyncio.timeout(PATIENCE_S):
        assert await asyncio.gather(first, second) == [b"first", b"second"]


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


async def test_what_was_not_sent_does_not_fail_with_what_was(client: Redis, hasty: Redis):
    line = line_of(hasty)
    await line.ask(("PING",))
    await send(client, ("CLIENT", "PAUSE", PAUSE_MS, "WRITE"))
    sent = line.ask(("SET", "a", 1))
    await send(client, ("PING",))

    distrust(hasty)
    replies = await asyncio.gather(sent, line.ask(("ECHO", "next")), return_exceptions=True)
    await send(client, ("CLIENT", "UNPAUSE"))

    assert isinstance(replies[0], RedisTimeoutError)
    assert replies[1] == b"next"
    await send(client, ("DEL", "a"))


async def test_a_full_pool_is_no_fault_of_its_connections(ledger_url: str):
    client = connect(ledger_url, timeout_ms=10_000, connections_max=1)
    await send(client, ("PING",))
    held = asyncio.create_task(send(client, ("BLPOP", "nothing", "0.2")))
    await asyncio.sleep(0)

    with pytest.raises(MaxConnectionsError):
        await line_of(client).ask(("PING",))

    await held
    await send(client, ("PING",))
    assert connections_made(client) == 1
    await client.aclose()


async def test_nothing_more_is_sent_on_a_connection_that_was_given_up():
    server = Echoes()
    async with server.at() as url:
        hasty = connect(url, timeout_ms=200, connections_max=1)
        await line_of(hasty).ask(("ECHO", "first"))
        server.reading.clear()

        with pytest.raises(RedisTimeoutError):
            await line_of(hasty).ask(("SET", "a", bytes(LARGE_BYTES)))
        server.reading.set()

        async with asyncio.timeout(PATIENCE_S):
            await server.over.wait()
        assert server.bytes_read < LARGE_BYTES
        await hasty.aclose()


async def test_a_server_that_comes_is_connected_to_once(unused_tcp_port: int):
    client = connect(f"redis://127.0.0.1:{unused_tcp_port}", timeout_ms=10_000, connections_max=2)
    with pytest.raises(RedisConnectionError):
        await line_of(client).ask(("ECHO", "nobody"))

    server = Echoes()
    async with server.at(unused_tcp_port):
        assert await line_of(client).ask(("ECHO", "first")) == b"first"
        assert server.accepted == 1
        await client.aclose()


async def test_whoever_asks_while_the_client_closes_takes_no_connection_along():
    async with Echoes().at() as url:
        client = connect(url, timeout_ms=10_000, connections_max=CONNECTIONS_MAX)
        for steps in range(2 * CONNECTIONS_MAX):
            await line_of(client).ask(("ECHO", "before"))
            closing = asyncio.create_task(client.aclose())
            for _ in range(steps % 4):
                await asyncio.sleep(0)
            with contextlib.suppress(RedisConnectionError):
                await line_of(client).ask(("ECHO", "meanwhile"))
            await closing

        assert await line_of(client).ask(("ECHO", "next")) == b"next"
        await client.aclose()


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


class Echoes:
    """A server that answers ECHO once it has been asked so often, and reads while it is let."""

    def __init__(self, at_once: int = 1) -> None:
        self.accepted = 0
        self.bytes_read = 0
        self.reading = asyncio.Event()
        self.reading.set()
        self.over = asyncio.Event()
        self._at_once = at_once

    @contextlib.asynccontextmanager
    async def at(self, port: int = 0) -> AsyncGenerator[str]:
        async with await asyncio.start_server(self._answer, "127.0.0.1", port) as server:
            host, port = server.sockets[0].getsockname()
            yield f"redis://{host}:{port}"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        commands, asked = hiredis.Reader(), list[bytes]()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.bytes_read += len(data)
                commands.feed(data)
                while command := commands.gets():
                    if command[0] == b"ECHO":
                        asked.append(command[1])
                    else:
                        writer.write(b"+OK\r\n")
                if len(asked) >= self._at_once:
                    texts = [b"$%d\r\n%s\r\n" % (len(each), each) for each in asked]
                    writer.write(b"".join(texts))
                    asked.clear()
                await self.reading.wait()
        writer.close()
        self.over.set()


async def _cancel_all_tasks() -> None:
    """As `asyncio.run` does in the end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _all(line: Line, *commands: Sequence[Any]) -> list[asyncio.Future[Any]]:
    return [line.ask(command) for command in commands]


async def _outcomes(line: Line, *commands: Sequence[Any]) -> list[Any]:
    return await asyncio.gather(*_all(line, *commands), return_exceptions=True)


async def _ask(line: Line, number: int) -> bytes:
    return await line.ask(("ECHO", number))
