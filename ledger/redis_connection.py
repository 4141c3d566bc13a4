"""How the server is spoken to: connections, scripts, and the calls that outlive a fault."""

import asyncio
import hashlib
import random
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
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ledger.rejections import Rejection, RejectionCode
from ledger.script_format import Argument

RETRY_FIRST_S: Final = 0.02
RETRY_CAP_S: Final = 1.0

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

REFUSALS: Final = ("MISCONF", "NOREPLICAS", "BUSY ")
"""How a server's error begins that takes no writes for now: its disk, its replicas, or a script."""


class Script:
    """A Lua script that lies beside this file, called by its hash."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = Path(__file__).with_name(f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


_pack = cast("Callable[[tuple[Any, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]


class _Sending:
    """Packs commands in C: redis-py's own asyncio packing was the largest cost of a hot script. And
    sends them so that whoever waits can be cancelled."""

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
    pool = ConnectionPool(
        **options,
        max_connections=connections_max,
        socket_timeout=timeout_ms / 1000,
        socket_connect_timeout=timeout_ms / 1000,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    return Redis.from_pool(pool)


class ServerRefused(Exception):
    """The server does not let us in: a wrong user, password or right. Trying again is no help."""


class Caller:
    """Sends commands and scripts, again and again while the server is out of reach, within
    `timeout_ms`. Everything sent this way must be safe to send twice."""

    def __init__(self, client: Redis, timeout_ms: int) -> None:
        self._client = client
        self._timeout_s = timeout_ms / 1000

    async def command(self, *arguments: Argument) -> Any:
        """The reply as the server gave it: bytes, ints, lists, None."""
        reply, _ = await self._persist(lambda: send(self._client, arguments))
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

        return await self._persist(once)

    async def _persist(self, call: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """The reply, and whether it took more than one call."""
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        try:
            # The connection's own time-outs bound a single call; a clock more is felt here.
            return await call(), False
        except PASSING_ERRORS as error:
            fault = error
        except ResponseError as error:
            _check_refusal(error)
            raise
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
            except PASSING_ERRORS:
                delay_s = min(delay_s * 2, RETRY_CAP_S)
            except ResponseError as error:
                _check_refusal(error)
                raise


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


async def send(client: Redis, arguments: Sequence[Argument]) -> Any:
    """One command on a connection of the pool, without redis-py's reply conversions."""
    pool = client.connection_pool
    try:
        connection = cast("Any", await pool.get_connection())
        try:
            await connection.send_command(*arguments)
            return await connection.read_response()
        finally:
            await pool.release(connection)
    except RedisConnectionError as error:
        # redis-py shows a refused login as a lost connection.
        if isinstance(error, AuthenticationError) or isinstance(
            error.__cause__, AuthenticationError
        ):
            raise ServerRefused(f"the ledger's server does not let us in: {error}") from error
        raise
    except RuntimeError as error:
        # What uvloop says of a connection that the server closed a moment ago.
        if "handler is closed" not in str(error):
            raise
        raise RedisConnectionError(str(error)) from error
