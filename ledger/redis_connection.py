"""How the server is spoken to: connections, scripts, and the calls that outlive a fault."""

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
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
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ledger.rejections import Rejection, RejectionCode
from ledger.script_format import Argument

RETRY_FIRST_S: Final = 0.02
RETRY_CAP_S: Final = 1.0
CONNECTION_AGE_MAX_S: Final = 60.0

PASSING_ERRORS: Final = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    TryAgainError,
    ClusterDownError,
    MasterDownError,
)
"""Faults of a server that restarts, fails over or is out of reach: worth another try."""

UNBLOCKED: Final = "UNBLOCKED"
"""How the error begins, which redis-py has no class for, that ends a blocking read when its server
is made a replica."""

ELSEWHERE: Final = (ReadOnlyError, MasterDownError, ClusterDownError)
"""What a server says that is not, or no longer, the one to ask. After a fail-over the address leads
to another one, but a connection that is still open does not."""

AWAY: Final = (RedisConnectionError, RedisTimeoutError, MasterDownError, ClusterDownError)
"""Faults after which nothing is answered, neither writes nor reads."""

ANYTHING: Final = ""
"""In place of a kind of call: all of them."""

REFUSALS: Final = ("MISCONF", "NOREPLICAS", "BUSY ")
"""How a server's error begins that takes no writes for now: its disk, its replicas, or a script."""


class Script:
    """A Lua script that lies beside this file, called by its hash; what it builds on stands before
    it."""

    def __init__(self, name: str, *, after: Sequence[str] = ()) -> None:
        self.name = name
        *before, own = [
            Path(__file__).with_name(f"{part}.lua").read_bytes() for part in (*after, name)
        ]
        flags, own = own.split(b"\n", 1) if own.startswith(b"#!") else (b"", own)
        self.text = b"".join((flags, b"\n" if flags else b"", *before, own))
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


_pack = cast("Callable[[tuple[Any, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]


class _Sending:
    """Packs commands in C: redis-py's own asyncio packing was the largest cost of a hot script. And
    sends them so that whoever waits can be cancelled."""

    _made_at_s = 0.0
    is_new = False

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """What is said first on a new connection."""
        self._made_at_s, self.is_new = time.monotonic(), True
        await cast("Any", super()).on_connect_check_health(check_health=check_health)

    def is_worn(self: Any) -> bool:
        """Whether it is not to be used again: since a fault, or since it is time to look where the
        address leads now. Reads never fail on a server that was replaced, and lives on."""
        is_old = time.monotonic() - self._made_at_s > CONNECTION_AGE_MAX_S
        return is_old or self.should_reconnect()

    def pack_command(self, *args: Any) -> list[bytes]:
        head = args[0]
        if isinstance(head, str) and " " in head:
            args = (*head.split(), *args[1:])
        return [_pack(args)]

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
    # Ours, whatever the URL says of them.
    options |= {
        "max_connections": connections_max,
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": timeout_ms / 1000,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    return Redis.from_pool(ConnectionPool(**options))


class ServerRefused(Exception):
    """The server does not let us in (a wrong user, password or right), or is another kind of
    server. Trying again is no help."""


class Caller:
    """Sends commands and scripts, again and again while the server is out of reach, within
    `timeout_ms`. Everything sent this way must be safe to send twice."""

    def __init__(self, client: Redis, timeout_ms: int) -> None:
        self._client = client
        self._timeout_s = timeout_ms / 1000
        self._failing: set[str] = set()
        """What was given up and did not go well since: kinds of calls, or ANYTHING."""
        self._well_at_s = float("-inf")
        """When that was the last time so; calls that began before may still give up."""
        self.on_outage: Callable[[str | None], None] | None = None
        """Told the reason when a call was given up, and None when all goes well again."""

    async def command(self, *arguments: Argument) -> Any:
        """The reply as the server gave it: bytes, ints, lists, None."""
        kind = str(arguments[0])
        reply, _ = await self._persist(kind, lambda: send(self._client, arguments))
        return reply

    async def script(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> tuple[Any, bool]:
        """The script's reply, and whether it was sent more than once: if so, an earlier one may
        have run with its reply lost."""
        rest = (len(keys), *keys, *arguments)

        async def once() -> Any:
            try:
                return await send(self._client, ("EVALSHA", script.sha, *rest))
            except NoScriptError:
                return await send(self._client, ("EVAL", script.text, *rest))

        return await self._persist(script.name, once)

    async def _persist(self, kind: str, call: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """The reply, and whether it took more than one call."""
        began_s = asyncio.get_running_loop().time()
        try:
            reply = await self._until_answered(call, began_s + self._timeout_s)
        except Rejection as rejection:
            if began_s >= self._well_at_s:
                is_away = isinstance(rejection.__cause__, AWAY)
                self._given_up(ANYTHING if is_away else kind, rejection.message)
            raise
        if self._failing:
            self._went_well(kind)
        return reply

    def _given_up(self, kind: str, reason: str) -> None:
        if not self._failing and self.on_outage is not None:
            self.on_outage(reason)
        self._failing.add(kind)

    def _went_well(self, kind: str) -> None:
        # A server that takes no writes goes on answering reads.
        self._failing -= {ANYTHING, kind}
        if self._failing:
            return
        self._well_at_s = asyncio.get_running_loop().time()
        if self.on_outage is not None:
            self.on_outage(None)

    async def _until_answered(
        self, call: Callable[[], Awaitable[Any]], deadline: float
    ) -> tuple[Any, bool]:
        try:
            # The connection's own time-outs bound a single call; a clock more is felt here.
            return await call(), False
        except RedisError as error:
            self._check_passing(error)
            fault = error
        try:
            async with asyncio.timeout_at(deadline):
                return await self._again(call), True
        except TimeoutError:
            raise Rejection(
                RejectionCode.SERVICE_UNAVAILABLE,
                f"the ledger's server cannot be reached ({type(fault).__name__}: {fault}); "
                "try again",
            ) from fault

    async def _again(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call with growing pauses until there is a reply."""
        delay_s = RETRY_FIRST_S
        while True:
            await asyncio.sleep(delay_s * (0.5 + random.random() / 2))  # noqa: S311 - no secret
            try:
                return await call()
            except RedisError as error:
                self._check_passing(error)
                delay_s = min(delay_s * 2, RETRY_CAP_S)

    def _check_passing(self, error: RedisError) -> None:
        """Return when another try may help. Raises Rejection(SERVICE_UNAVAILABLE) when the server
        only takes no writes for now, and any other error as it is."""
        if isinstance(error, PASSING_ERRORS) or _is_unblocked(error):
            return
        if isinstance(error, ResponseError):
            _check_refusal(error)
        raise error


def _check_refusal(error: ResponseError) -> None:
    """Raise Rejection(SERVICE_UNAVAILABLE) when the server only takes no writes for now."""
    if isinstance(error, OutOfMemoryError):
        reason = "is at its memory limit"
    elif str(error).startswith(REFUSALS):
        reason = f"takes no writes ({error})"
    else:
        return
    raise Rejection(
        RejectionCode.SERVICE_UNAVAILABLE, f"the ledger's server {reason}; try again later"
    ) from error


def connections_made(client: Redis) -> int:
    """How many connections commands were sent on so far. While it has not grown, the server is the
    one that it was, with all that it had."""
    return getattr(client.connection_pool, "made", 0)


async def send(client: Redis, arguments: Sequence[Argument]) -> Any:
    """One command on a connection of the pool, without redis-py's reply conversions."""
    pool = cast("Any", client.connection_pool)
    try:
        connection: Any = await pool.get_connection()
        try:
            if _is_ours(connection):
                if connection.is_worn():
                    await connection.disconnect(nowait=True)
                    await connection.connect()
                if connection.is_new:
                    connection.is_new = False
                    pool.made = connections_made(client) + 1
            await connection.send_command(*arguments)
            return await connection.read_response()
        except RedisError as error:
            if _is_fault(error):
                _distrust(pool)
            raise
        finally:
            await pool.release(connection)
    except RedisConnectionError as error:
        # redis-py shows a refused login as a lost connection.
        if isinstance(error, AuthenticationError) or isinstance(
            error.__cause__, AuthenticationError
        ):
            raise ServerRefused(f"the ledger's server does not let us in: {error}") from error
        raise
    except InvalidResponse as error:
        raise ServerRefused(f"the server is no Redis and no Valkey: {error}") from error
    except RuntimeError as error:
        # What uvloop says of a connection that the server closed a moment ago.
        if "handler is closed" not in str(error):
            raise
        raise RedisConnectionError(str(error)) from error


def _is_ours(connection: Any) -> bool:
    """fakeredis has connections of its own."""
    return isinstance(connection, _Sending)


def _is_unblocked(error: RedisError) -> bool:
    return str(error).startswith(UNBLOCKED)


def _is_fault(error: RedisError) -> bool:
    """Whether the way to the server, or where it leads, is to be looked for anew."""
    lost = isinstance(error, (RedisConnectionError, RedisTimeoutError, *ELSEWHERE))
    return lost or _is_unblocked(error)


def _distrust(pool: Any) -> None:
    """No connection that was made before a fault is used for another command: each may lead to a
    server that is gone without a word, or is no longer the one to ask; to find that out would take
    a time-out for each."""
    for connection in (*pool._get_free_connections(), *pool._get_in_use_connections()):
        if _is_ours(connection):
            connection.mark_for_reconnect()
