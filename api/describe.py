"""How an endpoint says what it takes and answers, beside its code.

To add an endpoint: write it as a coroutine that takes an Exchange, put `@operation(...)` above it,
and add its route to the table in `api.routes`. `/openapi.json`, `/docs` and the tests that hold the
API to its description all follow from there: a route without a description fails a test.

- The first line of the docstring is the summary, the rest of it the description (Markdown).
- `query` is the struct that reads the query parameters (`api.query`), `body` the type that the body
  is decoded to, `Answer.shape` the struct that is encoded: a field's bounds, default and `Meta`
  description are the documentation. Scalars that are used in several places stand in `api.scalars`.
- `answers` are the statuses of success, with the headers that they always carry; `refusals` are
  the error codes of this endpoint's own. What every endpoint can answer is added by itself.
"""

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec

from api.errors import ErrorCode
from api.scalars import POSITIONS_PATTERN
from ledger.rejections import RejectionCode

Code = ErrorCode | RejectionCode
Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[None]])

READING: Final = (ErrorCode.REQUEST_TIMEOUT, ErrorCode.PAYLOAD_TOO_LARGE)
"""What comes of looking whether there is a body."""

_DESCRIPTION: Final = "ledgerq_operation"


class Group(StrEnum):
    """What the endpoints are sorted by."""

    TASKS = "Tasks"
    STATISTICS = "Statistics and queues"
    CONTROL = "Pauses and limits"
    FEED = "Live feed"
    OPERATIONS = "Operations"


class HeaderInfo(msgspec.Struct, frozen=True):
    """A header of a request or an answer. `always`: no answer of its status is without it."""

    name: str
    description: str
    schema: Mapping[str, Any]
    always: bool = True


class Answer(msgspec.Struct, frozen=True):
    """An answer that is no refusal. `shape`: the type of its JSON (of a stream: of each event), or
    None where `schema` says more. Without `media_type` there is no body."""

    description: str
    shape: Any = None
    headers: tuple[HeaderInfo, ...] = ()
    media_type: str = "application/json"
    schema: Mapping[str, Any] = {}


class Operation(msgspec.Struct, frozen=True):
    """The description of one endpoint."""

    id: str
    group: Group
    summary: str
    description: str
    answers: Mapping[int, Answer]
    refusals: tuple[Code, ...]
    query: type[msgspec.Struct] | None
    headers: tuple[HeaderInfo, ...]
    body: Any
    body_media_type: str
    body_may_be_absent: bool


def operation(
    id: str,
    group: Group,
    answers: Mapping[int, Answer],
    *,
    refusals: tuple[Code, ...] = (),
    query: type[msgspec.Struct] | None = None,
    headers: tuple[HeaderInfo, ...] = (),
    body: Any = None,
    body_media_type: str = "application/json",
    body_may_be_absent: bool = False,
) -> Callable[[Endpoint], Endpoint]:
    """Describe the endpoint below. `id` is its name in generated clients, such as `submitTask`."""

    def describe(endpoint: Endpoint) -> Endpoint:
        summary, _, description = (endpoint.__doc__ or "").partition("\n")
        described = Operation(
            id,
            group,
            summary.strip().removesuffix("."),
            _unwrapped(description),
            answers,
            refusals,
            query,
            headers,
            body,
            body_media_type,
            body_may_be_absent,
        )
        setattr(endpoint, _DESCRIPTION, described)
        return endpoint

    return describe


def described(endpoint: Callable[..., Awaitable[None]]) -> Operation | None:
    """What `operation` said of it; None when nothing did."""
    return getattr(endpoint, _DESCRIPTION, None)


def _unwrapped(text: str) -> str:
    """Paragraphs of a docstring, each on one line."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


# -- headers of requests --------------------------------------------------------------------------

_TAG: Final = r'(W/)?"[!#-~]*"'
_TAGS: Final = {"type": "string", "pattern": rf"^(\*|{_TAG}(, *{_TAG})*)$", "examples": ['"3"']}

REQUEST_ID_HEADER: Final = HeaderInfo(
    "X-Request-ID",
    "Names the request in logs, events and the answer; anything but 1 to 128 printable ASCII "
    "characters is replaced.",
    {"type": "string", "examples": ["r-7f3a"]},
    always=False,
)
ACTOR_HEADER: Final = HeaderInfo(
    "X-Actor",
    "Who is behind the request; kept with the events that it writes.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"},
    always=False,
)
TRACEPARENT_HEADER: Final = HeaderInfo(
    "traceparent",
    "W3C Trace Context; kept with the events that the request writes, and with the task that it "
    "submits or retries, for all that follows. Ignored when malformed.",
    {
        "type": "string",
        "examples": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
    },
    always=False,
)
IDEMPOTENCY_KEY_HEADER: Final = HeaderInfo(
    "Idempotency-Key",
    "Makes it safe to send the request again: within one `kb_id`, the same key and body give what "
    "exists already.",
    {
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        "pattern": "^[ -~]*$",
        "examples": ["order-1042"],
    },
    always=False,
)
IF_MATCH_HEADER: Final = HeaderInfo(
    "If-Match",
    "Write only if the task is still at one of these versions: `*`, or `ETag`s as they were given.",
    _TAGS,
    always=False,
)
IF_MATCH_SYSTEM_HEADER: Final = HeaderInfo(
    "If-Match",
    "Write only if the service is still at one of these versions: `*`, or `ETag`s as they were "
    "given.",
    _TAGS,
    always=False,
)
IF_NONE_MATCH_HEADER: Final = HeaderInfo(
    "If-None-Match",
    "Answer 304 without a body if the `ETag` is still this one.",
    {"type": "string", "examples": ['"3"']},
    always=False,
)
WRITER_HEADERS: Final = (ACTOR_HEADER, TRACEPARENT_HEADER)
"""Read by every endpoint that writes events."""

# -- headers of answers ---------------------------------------------------------------------------

REQUEST_ID: Final = HeaderInfo(
    "X-Request-ID",
    "The request's id: the caller's own, or one that was made here.",
    {"type": "string", "minLength": 1, "maxLength": 128},
)
LOCATION: Final = HeaderInfo(
    "Location", "Where the task is.", {"type": "string", "pattern": "^/api/v1/tasks/[0-9a-f-]{36}$"}
)
ETAG: Final = HeaderInfo(
    "ETag", "The task's version, for `If-Match`.", {"type": "string", "pattern": '^"[0-9]+"$'}
)
SYSTEM_ETAG: Final = HeaderInfo(
    "ETag",
    "The service's version, for `If-Match`: the number of events that belong to no task.",
    {"type": "string", "pattern": '^"[0-9]+"$'},
)
CACHE_CONTROL: Final = HeaderInfo("Cache-Control", "For caches.", {"const": "no-cache"})
DOCUMENT_ETAG: Final = HeaderInfo(
    "ETag", "Changes with the document.", {"type": "string", "pattern": '^"[0-9a-f]+"$'}
)
LEDGER_POSITION: Final = HeaderInfo(
    "Ledger-Position",
    "Where the last event stands that this request wrote (one for each partition, separated by "
    "commas); send it with a read to see at least that.",
    {"type": "string", "pattern": f"^{POSITIONS_PATTERN}$"},
)
LEDGER_POSITION_IF_WRITTEN: Final = msgspec.structs.replace(LEDGER_POSITION, always=False)
"""Where the request may find that its wish holds already, and write nothing."""
LEDGER_POSITION_WANTED: Final = HeaderInfo(
    "Ledger-Position",
    "See at least this: what a write answered with. Not seen in time, the answer is 503.",
    {"type": "string", "pattern": f"^{POSITIONS_PATTERN}$"},
    always=False,
)
LEDGER_POSITION_SEEN: Final = HeaderInfo(
    "Ledger-Position",
    "How far the read model had seen the ledger: one position for each partition, separated by "
    "commas.",
    {"type": "string", "pattern": f"^{POSITIONS_PATTERN}$"},
)
PROJECTION_LAG: Final = HeaderInfo(
    "Projection-Lag",
    "The read model did not catch up with the ledger in time: for how many ms the oldest event "
    "that the answer lacks has been there. Absent when all was seen.",
    {"type": "string", "pattern": "^[0-9]+$"},
    always=False,
)
REPLAYED: Final = HeaderInfo(
    "Idempotent-Replayed",
    "The key was used before, with this very body.",
    {"const": "true"},
)
RETRY_AFTER: Final = HeaderInfo(
    "Retry-After", "Seconds after which to try again.", {"type": "string", "pattern": "^[0-9]+$"}
)
ALLOW: Final = HeaderInfo("Allow", "The methods that are possible here.", {"type": "string"})

NOT_MODIFIED: Final = Answer(
    "It has not changed.", headers=(DOCUMENT_ETAG, CACHE_CONTROL), media_type=""
)
