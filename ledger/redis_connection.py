"""Connections to the server: how they are made, and which are not to be used again."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import (
    Connection,
    ConnectionPool,
    Redis,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MaxConnectionsError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ledger.script_format import Argument

CONNECTION_AGE_MAX_S: Final = 60.0

UNBLOCKED: Final = "UNBLOCKED"
"""How the error begins, which redis-py has no class for, that ends a blocking read when its server
is made a replica."""

ELSEWHERE: Final = (ReadOnlyError, MasterDownError, ClusterDownError)
"""What a server says that is not, or no longer, the one to ask. After a fail-over the address leads
to another one, but a connection that is still open does not."""


_pack = cast("Callable[[tuple[Any, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]


def packed(arguments: Sequence[Any]) -> bytes:
    """A command as it is sent. Raises TypeError for what is neither text nor bytes nor a number."""
    head = arguments[0]
    if isinstance(head, str) and " " in head:
        arguments = (*head.split(), *arguments[1:])
    return _pack(tuple(arguments))


class _Sending:
    """Packs commands in C: redis-py's own asyncio packing was the largest cost of a hot script. And
    sends them so that whoever waits can be cancelled."""

    _made_at_s = 0.0
    is_new = False

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """What is said first on a new connection."""
        self._made_at_s, self.is_new = time.monotonic(), True
        cast("Any", self).reset_should_reconnect()  # a fault before it was made says nothing of it
        await cast("Any", super()).on_connect_check_health(check_health=check_health)

    def is_worn(self: Any) -> bool:
        """Whether it is not to be used again: since a fault, or since it is time to look where the
        address leads now. Reads never fail on a server that was replaced, and lives on."""
        is_old = time.monotonic() - self._made_at_s > CONNECTION_AGE_MAX_S
        return is_old or self.should_reconnect()

    def pack_command(self, *args: Any) -> list[bytes]:
        return [packed(args)]

    def write(self: Any, commands: Sequence[bytes]) -> None:
        """Have commands sent that were packed, and go on. Raises OSError and RuntimeError where
        that is known at once to be in vain."""
        self._writer.writelines(commands)

    def abort(self: Any) -> None:
        """Drop what is not sent yet."""
        self._writer.transport.abort()

    async def read_reply(self: Any) -> Any:
        """The next reply; an error that the server answered is returned. It takes as long as it
        takes, and what is cancelled is read on by the next call. Raises RedisError.

        redis-py's own `read_response` takes a connection that the system has given up (ETIMEDOUT)
        for a wait that is over, and returns None where it has no time limit: an empty reply.
        """
        try:
            return await self._parser.read_response()
        except OSError as error:
            raise RedisConnectionError(f"Error while reading from socket. {error}.") from error

    async def send_packed_command(self: Any, command: Any, check_health: bool = True) -> None:
        """Send what was packed, within the connection's time-out.

        redis-py waits with `wait_for`. On Python 3.11 that swallows a cancellation which comes in
        the step in which the write is done (https://github.com/python/cpython/issues/86296): the
        task that was cancelled would go on, and wait for events for ever.
        """
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command(command)
        except TimeoutError:
            await self.disconnect(nowait=True)
            raise RedisTimeoutError("Timeout writing to socket") from None
        except OSError as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"Error while writing to socket. {error}.") from error
        except BaseException:
            # The command may be there in part, or its reply still to come.
            await self.disconnect(nowait=True)
            raise


class FastConnection(_Sending, Connection):
    """TCP."""


class FastSSLConnection(_Sending, SSLConnection):
    """TLS."""


class FastUnixConnection(_Sending, UnixDomainSocketConnection):
    """Unix socket."""


CONNECTION_CLASSES: Final = {
    "redis": FastConnection,
    "rediss": FastSSLConnection,
    "unix": FastUnixConnection,
}


class _Pool(ConnectionPool):
    """What calls share that have a client in common."""

    made = 0
    """Connections that commands were sent on."""
    line: Any = None
    """The one that they send on together, once there is one (`ledger.redis_line`)."""


def connect(url: str, *, timeout_ms: int, connections_max: int) -> Redis:
    """A client of the server at `url` (redis://, rediss:// or unix://); connects when first used.

    Raises ValueError for another kind of URL. Lost calls are not sent again here: whoever calls
    knows whether that is safe.
    """
    scheme = urlsplit(url).scheme
    if scheme not in CONNECTION_CLASSES:
        raise ValueError(f"redis_url: expected redis://, rediss:// or unix://, got {url!r}")
    # Not ConnectionPool.from_url: there the URL's own connection class would win over ours.
    options: dict[str, Any] = {**parse_url(url), "connection_class": CONNECTION_CLASSES[scheme]}
    options |= {
        "max_connections": connections_max,
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": timeout_ms / 1000,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    return Redis.from_pool(_Pool(**options))


class ServerRefused(Exception):
    """The server does not let us in (a wrong user, password or right), or is another kind of
    server. Trying again is no help."""


def connections_made(client: Redis) -> int:
    """How many connections commands were sent on so far. While it has not grown, the server is the
    one that it was, with all that it had."""
    return pool_of(client).made if is_shareable(client) else 0


async def send(client: Redis, arguments: Sequence[Argument]) -> Any:
    """One command on a connection of the pool that is its own until the reply is there, without
    redis-py's reply conversions."""
    pool = cast("Any", client.connection_pool)
    try:
        connection = await usable(client)
        try:
            await connection.send_command(*arguments)
            return await connection.read_response()
        except RedisError as error:
            if is_fault(error):
                distrust(client)
            raise
        finally:
            await pool.release(connection)
    except Exception as error:
        fault = plain_fault(error)
        if fault is error:
            raise
        raise fault from error


async def usable(client: Redis, held: Any = None) -> Any:
    """A connection that a command can be sent on: the one that is held already, while it is good
    for that, else one of the pool's. It is to be released in the end."""
    pool = cast("Any", client.connection_pool)
    if held is not None:
        with contextlib.suppress(RedisConnectionError):  # it is being closed
            # What is to be read of it now is its end.
            if held.is_connected and not held.is_worn() and not await held.can_read():
                return held
        await give_up(client, held)
    connection = await pool.get_connection()
    if not _is_ours(connection):
        return connection
    try:
        if connection.is_worn():
            await connection.disconnect(nowait=True)
            await connection.connect()
    except BaseException:
        await pool.release(connection)
        raise
    if connection.is_new:
        connection.is_new = False
        pool.made += 1
    return connection


async def give_up(client: Redis, connection: Any) -> None:
    """Close a connection, and give it back to the pool."""
    if connection.is_connected:
        # Else it would go on sending to whoever does not read.
        connection.abort()
    await connection.disconnect(nowait=True)
    await cast("Any", client.connection_pool).release(connection)


def is_shareable(client: Redis) -> bool:
    """Whether the client's connections can be written to while a reply is awaited. Those of
    fakeredis cannot."""
    return isinstance(client.connection_pool, _Pool)


def pool_of(client: Redis) -> _Pool:
    """Of a client that `connect` made."""
    return cast("_Pool", client.connection_pool)


def plain_fault(error: Exception) -> Exception:
    """What an error of redis-py's or uvloop's means; itself where it says so."""
    match error:
        case AuthenticationError() | RedisConnectionError(__cause__=AuthenticationError()):
            # redis-py shows a refused login as a lost connection.
            return ServerRefused(f"the ledger's server does not let us in: {error}")
        case InvalidResponse():
            return ServerRefused(f"the server is no Redis and no Valkey: {error}")
        case RuntimeError() if "handler is closed" in str(error):
            # What uvloop says of a connection that the server closed a moment ago.
            return RedisConnectionError(str(error))
        case _:
            return error


def is_unblocked(error: RedisError) -> bool:
    """Whether a blocking read was ended since its server was made a replica."""
    return str(error).startswith(UNBLOCKED)


def is_fault(error: RedisError) -> bool:
    """Whether the way to the server, or where it leads, is to be looked for anew."""
    lost = isinstance(error, (RedisConnectionError, RedisTimeoutError, *ELSEWHERE))
    return (lost and not isinstance(error, MaxConnectionsError)) or is_unblocked(error)


def distrust(client: Redis) -> None:
    """No connection that was made before a fault is used for another command: each may lead to a
    server that is gone without a word, or is no longer the one to ask; to find that out would take
    a time-out for each."""
    pool = cast("Any", client.connection_pool)
    for connection in (*pool._get_free_connections(), *pool._get_in_use_connections()):
        if _is_ours(connection):
            connection.mark_for_reconnect()


def _is_ours(connection: Any) -> bool:
    """fakeredis has connections of its own."""
    return isinstance(connection, _Sending)
