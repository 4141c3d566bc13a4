"""What the service says of itself: `/openapi.json` for programs, `/docs` for people, and
`/asyncapi.json` of the streams beside the API.

Made at the first request for it, and then kept: neither start-up nor the other endpoints pay.
"""

import hashlib
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import msgspec

from api.asyncapi import asyncapi
from api.describe import (
    CACHE_CONTROL,
    DOCUMENT_ETAG,
    IF_NONE_MATCH_HEADER,
    NOT_MODIFIED,
    Answer,
    Group,
    HeaderInfo,
    operation,
)
from api.docs_page import docs_page
from api.errors import Header
from api.exchange import JSON_TYPE, Exchange
from api.openapi import Schema, document
from api.preconditions import is_known
from ledger.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import Route

STATIC: Final = files("api") / "static"

CACHE: Final[Header] = (b"cache-control", b"no-cache")
"""Ask each time whether it has changed: it may after every restart."""


HTML_TYPE: Final[Header] = (b"content-type", b"text/html; charset=utf-8")
CSS_TYPE: Final[Header] = (b"content-type", b"text/css; charset=utf-8")
SCRIPT_TYPE: Final[Header] = (b"content-type", b"text/javascript; charset=utf-8")

TASK_MONITOR: Final = "/static/task-monitor.js"
FOR_ANY_PAGE: Final[tuple[Header, ...]] = (
    (b"access-control-allow-origin", b"*"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"x-content-type-options", b"nosniff"),
)
"""Pages of other services load the script; whether they may watch tasks is another question."""

POLICY: Final = (
    b"default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)
"""A page may load its stylesheet, and nothing else from anywhere."""

SAFE: Final[tuple[Header, ...]] = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
SAFE_HEADERS: Final = (
    HeaderInfo("Content-Security-Policy", "Nothing is loaded but the style.", {"type": "string"}),
    HeaderInfo("X-Content-Type-Options", "It is what it says.", {"const": "nosniff"}),
    HeaderInfo("Referrer-Policy", "Links do not tell.", {"const": "no-referrer"}),
)


class Page(msgspec.Struct, frozen=True):
    """A document, ready to be sent."""

    body: bytes
    content_type: Header
    etag: bytes
    headers: tuple[Header, ...] = ()

    @classmethod
    def of(cls, body: bytes, content_type: Header, *headers: Header) -> "Page":
        """`body` with an ETag that changes with it."""
        etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
        return cls(body, content_type, etag, headers)


class Pages:
    """The endpoints that serve documents. `table` is set once the table of routes is made."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.table: Sequence[Route] = ()

    @operation(
        "getOpenApi",
        Group.OPERATIONS,
        {
            200: Answer(
                "The document.", headers=(DOCUMENT_ETAG, CACHE_CONTROL), schema={"type": "object"}
            ),
            304: NOT_MODIFIED,
        },
        headers=(IF_NONE_MATCH_HEADER,),
    )
    async def openapi(self, exchange: Exchange) -> None:
        """This document: OpenAPI 3.1."""
        exchange.parameters()
        await _send(exchange, self._openapi)

    @operation(
        "getDocs",
        Group.OPERATIONS,
        {
            200: Answer(
                "The page.",
                headers=(DOCUMENT_ETAG, CACHE_CONTROL, *SAFE_HEADERS),
                media_type="text/html",
                schema={"type": "string"},
            ),
            304: NOT_MODIFIED,
        },
        headers=(IF_NONE_MATCH_HEADER,),
    )
    async def docs(self, exchange: Exchange) -> None:
        """This document as a page for people."""
        exchange.parameters()
        await _send(exchange, self._docs)

    @operation(
        "getAsyncApi",
        Group.OPERATIONS,
        {
            200: Answer(
                "The document.", headers=(DOCUMENT_ETAG, CACHE_CONTROL), schema={"type": "object"}
            ),
            304: NOT_MODIFIED,
        },
        headers=(IF_NONE_MATCH_HEADER,),
    )
    async def asyncapi(self, exchange: Exchange) -> None:
        """The ledger's streams, which any Redis client may read: AsyncAPI 3.0."""
        exchange.parameters()
        await _send(exchange, self._asyncapi)

    async def stylesheet(self, exchange: Exchange) -> None:
        """The style of the page; no part of the API."""
        exchange.parameters()
        await _send(exchange, self._stylesheet)

    async def task_monitor(self, exchange: Exchange) -> None:
        """The script with which web pages watch tasks."""
        exchange.parameters()
        await _send(exchange, self._task_monitor)

    @cached_property
    def _document(self) -> Schema:
        return document(self.table, self._settings)

    @cached_property
    def _openapi(self) -> Page:
        return Page.of(msgspec.json.encode(self._document), JSON_TYPE)

    @cached_property
    def _asyncapi(self) -> Page:
        return Page.of(msgspec.json.encode(asyncapi(self._settings.partitions)), JSON_TYPE)

    @cached_property
    def _docs(self) -> Page:
        html = docs_page(self._document, self._settings.url)
        return Page.of(html.encode(), HTML_TYPE, *SAFE)

    @cached_property
    def _task_monitor(self) -> Page:
        script = STATIC.joinpath(TASK_MONITOR.rpartition("/")[2])
        return Page.of(script.read_bytes(), SCRIPT_TYPE, *FOR_ANY_PAGE)

    @cached_property
    def _stylesheet(self) -> Page:
        return Page.of(STATIC.joinpath("docs.css").read_bytes(), CSS_TYPE, *SAFE)


async def _send(exchange: Exchange, page: Page) -> None:
    headers = [(b"etag", page.etag), CACHE]
    if is_known(exchange.list_header(b"if-none-match"), page.etag):
        await exchange.respond_empty(304, headers)
        return
    await exchange.respond(200, page.body, [*headers, *page.headers], page.content_type)
