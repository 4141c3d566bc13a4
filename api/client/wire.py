"""Calls as httpx2 has them: what both transports need, and neither does."""

import ipaddress
import math
import os
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import httpx2
import msgspec

from api.client.calls import Call, NoAnswer, Reply
from api.client.errors import Unreachable, unsendable
from ledger import __version__

DEFAULT_URL: Final = "http://127.0.0.1:8084"
PORT_MAX: Final = 65_535
CONNECT_TIMEOUT_S: Final = 5.0
TIMEOUT_S: Final = 30.0
CONNECTIONS_MAX: Final = 100
"""For calls, at once. One that waits for a task holds its own all the while."""

KEPT_ALIVE_S: Final = 15.0
"""Less than the service keeps an idle connection, so that no request meets its end."""


class Where(msgspec.Struct, frozen=True):
    """Which service, and how long it may take."""

    url: str
    timeout_s: float = TIMEOUT_S
    """Between two pieces of an answer, beyond what a request may wait for."""
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    connections_max: int = CONNECTIONS_MAX

    def __post_init__(self) -> None:
        for name in ("timeout_s", "connect_timeout_s"):
            _check(name, getattr(self, name), int | float, "seconds, more than none")
        _check("connections_max", self.connections_max, int, "a whole number from 1")

    @property
    def options(self) -> dict[str, Any]:
        """Of an httpx2 client. Raises ValueError for what is no URL."""
        address = _address(self.url)
        # Of use to https alone, and what takes longest of all: made once, where it is needed.
        certificates = httpx2.create_ssl_context() if address.scheme == "https" else False
        return {
            "base_url": self.url.rstrip("/"),
            # A proxy of the environment is not for services on this machine.
            "trust_env": not _is_local(address.host),
            "verify": certificates,
            "limits": httpx2.Limits(
                max_connections=self.connections_max, keepalive_expiry=KEPT_ALIVE_S
            ),
            "headers": {"user-agent": f"ledgerq/{__version__}", "accept": "application/json"},
        }

    @property
    def feed_options(self) -> dict[str, Any]:
        """What is different for feeds: each holds a connection for as long as it lasts. Calls have
        others, or so many feeds as there are connections would wait for ever for one more."""
        return {"limits": httpx2.Limits(max_connections=None, keepalive_expiry=KEPT_ALIVE_S)}

    def request(
        self, call: Call, headers: Mapping[str, str], read_timeout_s: float
    ) -> dict[str, Any]:
        """The arguments of `client.build_request`, but for files. Raises InvalidRequest for headers
        that cannot be sent."""
        kind = {} if call.body is None else {"content-type": "application/json"}
        return {
            "method": call.method,
            "url": call.path,
            "params": dict(call.query) or None,
            "headers": _encoded({**headers, **kind, **call.headers}),
            "content": call.body,
            "timeout": httpx2.Timeout(read_timeout_s, connect=self.connect_timeout_s),
        }

    @contextmanager
    def sending(
        self, call: Call, headers: Mapping[str, str], read_timeout_s: float
    ) -> Generator[dict[str, Any]]:
        """The same with files, which are open meanwhile. Raises OSError."""
        request = self.request(call, headers, read_timeout_s)
        if call.form is None:
            yield request
            return
        with ExitStack() as stack:
            del request["content"]
            yield {**request, "data": dict(call.form.fields), "files": call.form.opened(stack)}

    def no_answer(
        self, error: httpx2.HTTPError | httpx2.InvalidURL, read_timeout_s: float
    ) -> NoAnswer:
        """What an exception of httpx2 means."""
        if isinstance(error, httpx2.PoolTimeout):
            message = (
                f"all {self.connections_max} connections of this client are taken, by calls that "
                "wait perhaps; connections_max says how many there may be"
            )
            told = Unreachable(message, may_be_done=False)
        elif isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            message = f"no ledgerq at {self.url} ({_reason(error)})"
            told = Unreachable(message, may_be_done=False)
        elif isinstance(error, httpx2.TimeoutException):
            message = f"no answer from {self.url} within {read_timeout_s:g} s"
            told = Unreachable(message, may_be_done=True, timeout_s=read_timeout_s)
        else:
            message = f"the call to {self.url} broke off: {_reason(error)}"
            told = Unreachable(message, may_be_done=True)
        told.__cause__ = error
        return NoAnswer(told)


def url_of(given: str | None) -> str:
    """Where the service is: as given, else by the environment, else on this machine."""
    return given or os.environ.get("LEDGERQ_URL") or DEFAULT_URL


def reply_of(response: httpx2.Response, body: bytes) -> Reply:
    """The answer as a value."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, body)


def _address(url: str) -> httpx2.URL:
    """Raises ValueError for what no call could be made to."""
    try:
        address = httpx2.URL(url)
    except httpx2.InvalidURL:
        address = httpx2.URL()
    is_http = address.scheme in ("http", "https") and address.host and url == url.strip()
    if not is_http or (address.port or 0) > PORT_MAX:
        raise ValueError(f"expected a URL such as {DEFAULT_URL}, got {url!r}")
    return address


def _check(name: str, given: Any, kind: Any, expected: str) -> None:
    if not isinstance(given, kind) or isinstance(given, bool):
        raise TypeError(f"{name}: expected {expected}, got {type(given).__name__}")
    if not 0 < given < math.inf:
        raise ValueError(f"{name}: expected {expected}, got {given}")


def _encoded(headers: Mapping[str, Any]) -> dict[str, bytes]:
    """As the service reads them: in UTF-8. httpx2 takes bytes as they are, and texts in ASCII."""
    for name, value in headers.items():
        if not isinstance(value, str):
            raise TypeError(f"the header {name}: expected a text, got {type(value).__name__}")
        if not value.replace("\t", " ").isprintable() or value != value.strip():
            expected = "printable characters, without spaces at either end"
            raise unsendable(f"the header {name}", name, expected, value)
    return {name: value.encode() for name, value in headers.items()}


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: Exception) -> str:
    """The innermost cause in words: the outer ones say less."""
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or "no reason"
