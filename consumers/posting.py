"""Posts to callback_urls: every bound on what the other side can do to us is here.

The address that is connected to is the one that was checked: names are looked up here, and what is
not allowed is taken out before aiohttp connects to what is left. Redirects are not followed, no
proxy is asked, certificates are verified, and of an answer's body no more is read than it takes to
use the connection again.
"""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, Final, cast
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from ledger.allow_list import AllowList

log = structlog.get_logger("notifier")

BODY_BYTES_MAX: Final = 4_096
"""Of an answer; a connection with more to come is closed."""

BODY_WAIT_S: Final = 1.0
"""For so long it may take to come: the answer's head has told already."""

ANSWER_BYTES_MAX: Final = 512 * 1024
"""Of an answer with its head, and the interim answers (1xx) before it, of which there is no end."""

CONNECT_TIMEOUT_S: Final = 5.0
LOOKUPS_AT_ONCE: Final = 32
"""Names that are looked up at once, each in a thread; one name in one thread, however many wait."""

ERROR_CHARACTERS_MAX: Final = 300
RETRY_AFTER_S_MAX: Final = 86_400
GONE: Final = 410

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, for a port. Raises OSError."""


class Answer(msgspec.Struct, frozen=True):
    """What came of a post. `status_code` None: there was no answer, and `error` says why."""

    status_code: int | None
    error: str = ""
    retry_after_ms: int | None = None

    @property
    def is_taken(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300

    @property
    def is_final(self) -> bool:
        """Whether the other side wants to hear no more."""
        return self.status_code == GONE


class Refused(OSError):
    """A name that leads to no address that callbacks may go to."""


class Poster:
    """A client for many hosts, made in a running loop. How many posts are made at once is up to
    its caller."""

    def __init__(
        self, allowed: AllowList, *, timeout_s: float, lookup: Lookup | None = None
    ) -> None:
        self._allowed = allowed
        self._resolver = CheckingResolver(allowed, lookup)
        self._session = aiohttp.ClientSession(
            connector=_Connector(self._resolver),
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=BODY_BYTES_MAX,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()
        await self._resolver.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post `body`. Never raises for what the other side does."""
        # The list may have changed since the task was submitted; and addresses are not looked up.
        if not self._allowed.allows_url(url):
            return Answer(None, "its host is not on the list: see the setting callback_hosts")
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                answer = _answer(response)
                await _let_go_of_body(response)
                return answer
        except TimeoutError:
            return Answer(None, "there was no answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(None, _reason(error))
        except Exception as error:
            # A fault of ours, that some answer has found: it must not end the notifier, which would
            # be given the same callback again.
            log.exception("post_failed", host=urlsplit(url).hostname)
            return Answer(None, _reason(error))


class _Connector(aiohttp.TCPConnector):
    """Connects as aiohttp does, and bounds what comes in."""

    def __init__(self, resolver: AbstractResolver) -> None:
        made = cast("Any", super()).__init__  # its type names others that are not known
        made(resolver=resolver, use_dns_cache=False, limit=0)
        self._factory = functools.partial(_Incoming, loop=asyncio.get_running_loop())


class _Incoming(ResponseHandler):
    """What comes in on a connection."""

    _taken = 0

    def set_response_params(self, **params: Any) -> None:
        self._taken = 0  # another answer begins
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        self._taken += len(data)
        if self._taken > ANSWER_BYTES_MAX:
            self.set_exception(aiohttp.ClientPayloadError("its answer is too long"))
            if self.transport is not None:
                self.transport.abort()  # `self.abort` would forget why
        else:
            super().data_received(data)


class CheckingResolver(AbstractResolver):
    """Looks names up, and leaves out the addresses that they may not lead to."""

    def __init__(self, allowed: AllowList, lookup: Lookup | None = None) -> None:
        self._allowed = allowed
        self._threads = ThreadPoolExecutor(LOOKUPS_AT_ONCE, "callback-lookup")
        self._lookup = lookup or self._look_up
        self._running: dict[tuple[str, int], asyncio.Task[Sequence[str]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._shared(host, port)
        allowed = [
            address
            for address in found
            if self._allowed.allows_address(host, ip_address(address), port)
        ]
        if not allowed:
            raise Refused(
                f"{host} leads to {', '.join(found) or 'no address'}, which is neither public nor "
                "on the list: add the address, or its network, to the setting callback_hosts"
            )
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in allowed
        ]

    async def close(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        # A thread whose look-up hangs goes when the system gives up on it.
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _shared(self, host: str, port: int) -> Sequence[str]:
        """One look-up for all who wait for it; it goes on when they do not any more."""
        running = self._running.get((host, port))
        if running is None:
            running = asyncio.ensure_future(self._lookup(host, port))
            self._running[host, port] = running
            running.add_done_callback(lambda done: self._ended(host, port, done))
        return await asyncio.shield(running)

    def _ended(self, host: str, port: int, done: "asyncio.Task[Sequence[str]]") -> None:
        del self._running[host, port]
        if not done.cancelled():
            done.exception()  # nobody may be left to ask

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        infos = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        addresses = (str(info[4][0]) for info in infos)
        return list(dict.fromkeys(address for address in addresses if "%" not in address))


async def _let_go_of_body(response: aiohttp.ClientResponse) -> None:
    """Read what is short and comes soon: an answer that breaks off is none, and after a whole one
    the connection can be used again. Raises as aiohttp for one that breaks off."""
    left = BODY_BYTES_MAX
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BODY_WAIT_S):
            while left > 0:
                part = await response.content.read(left)
                if not part:
                    return
                left -= len(part)
    response.close()


def _answer(response: aiohttp.ClientResponse) -> Answer:
    status = response.status
    if 200 <= status < 300:
        return Answer(status)
    error = f"it answered {status}"
    if 300 <= status < 400:
        error = f"it answered {status}; redirects are not followed"
    return Answer(status, error, retry_after_ms(response.headers.get("Retry-After"), _now()))


def retry_after_ms(text: str | None, now: datetime) -> int | None:
    """For how long a Retry-After asks to wait, in seconds or until a date, within bounds; None for
    what is neither."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        seconds = float(text) if len(text) < 10 else RETRY_AFTER_S_MAX
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    return round(1000 * min(max(seconds, 0), RETRY_AFTER_S_MAX))


def _now() -> datetime:
    return datetime.now(UTC)


def _reason(error: Exception) -> str:
    """An error's own words. They hold what an answer's head may hold, hence the bound; never what
    its body does."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, Refused):
        return str(cause)[:ERROR_CHARACTERS_MAX]
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror[:ERROR_CHARACTERS_MAX]
    if isinstance(error, aiohttp.ClientResponseError):
        # Its status is aiohttp's own, and the URL says nothing that the task does not.
        return f"its answer cannot be read: {error.message}"[:ERROR_CHARACTERS_MAX]
    if isinstance(error, aiohttp.ClientPayloadError) and error.__cause__ is not None:
        return "its answer breaks off"
    kind = type(error).__name__
    return f"{kind}: {error}"[:ERROR_CHARACTERS_MAX]
