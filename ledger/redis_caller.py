"""Calls of the server that outlive a fault: they are made again until it answers, or time is up."""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
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

from ledger.redis_connection import is_shareable, is_unblocked, send
from ledger.redis_line import line_of
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

AWAY: Final = (RedisConnectionError, RedisTimeoutError, MasterDownError, ClusterDownError)
"""Faults after which nothing is answered, neither writes nor reads."""

ANYTHING: Final = ""
"""In place of a kind of call: all of them."""

REFUSALS: Final = ("MISCONF", "NOREPLICAS", "BUSY ")
"""How a server's error begins that takes no writes for now: its disk, its replicas, or a script."""

Send = Callable[[Sequence[Argument]], Awaitable[Any]]


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


class Caller:
    """Sends commands and scripts, again and again while the server is out of reach, within
    `timeout_ms`. Everything sent this way must be safe to send twice."""

    def __init__(self, client: Redis, timeout_ms: int) -> None:
        self._client = client
        self._timeout_s = timeout_ms / 1000
        self._share: Send = line_of(client).ask if is_shareable(client) else partial(send, client)
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
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        shared: bool = False,
    ) -> tuple[Any, bool]:
        """The script's reply, and whether it was sent more than once: if so, an earlier one may
        have run with its reply lost.

        Calls that are `shared` cost less, and wait for the replies to others of them: not for what
        has to be there in time, such as leases.
        """
        rest = (len(keys), *keys, *arguments)
        ask: Send = self._share if shared else partial(send, self._client)

        async def once() -> Any:
            try:
                return await ask(("EVALSHA", script.sha, *rest))
            except NoScriptError:
                return await ask(("EVAL", script.text, *rest))

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
        if isinstance(error, PASSING_ERRORS) or is_unblocked(error):
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
