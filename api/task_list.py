"""GET /api/v1/tasks: the list, with every filter and order, by page or by cursor."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypeVar, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.describe import (
    LEDGER_POSITION_SEEN,
    LEDGER_POSITION_WANTED,
    PROJECTION_LAG,
    Answer,
    Group,
    operation,
)
from api.errors import ApiError, Header, invalid
from api.estimates import Estimates
from api.exchange import Exchange
from api.known_types import check_types
from api.query import QueryReader
from api.read_model import POSITION_HEADER, ReadModel
from api.scalars import Count, CreatedAfter, CreatedBefore, Fingerprint, KbId, TaskTypeName
from api.time_bounds import Bounds, time_bounds
from api.waiting import queue_position
from api.wire import TaskView, task_view
from ledger.codec import Undecodable, decode_task, encode
from ledger.events import Priority
from ledger.redis_store import RedisStore
from ledger.rejections import RejectionCode
from ledger.settings import Settings
from ledger.task import Status, Task
from projections.cursor import (
    CURSOR_CHARACTERS_MAX,
    BadCursor,
    query_digest,
    read_cursor,
    write_cursor,
)
from projections.list_query import Filters, Listed, ListQuery, Page, Row, SortBy, SortOrder

VALUES_MAX: Final = 50
"""In one comma list."""

TEXT_MAX: Final = 200
PAGE_MAX: Final = 1_000_000_000

Value = TypeVar("Value")
WorkerId = Annotated[str, Meta(min_length=1, max_length=255)]


def several(description: str) -> Meta:
    """Of a filter that names alternatives."""
    return Meta(min_length=1, max_length=VALUES_MAX, description=description)


class TaskListQuery(msgspec.Struct, frozen=True):
    """Which tasks are asked for, in which order, and which part of them."""

    kb_id: Annotated[tuple[KbId, ...], several("Of these knowledge bases.")] | UnsetType = UNSET
    status: Annotated[tuple[Status, ...], several("In these statuses.")] | UnsetType = UNSET
    task_type: Annotated[tuple[TaskTypeName, ...], several("Of these types.")] | UnsetType = UNSET
    priority: Annotated[tuple[Priority, ...], several("Of these priorities.")] | UnsetType = UNSET
    worker_id: (
        Annotated[tuple[WorkerId, ...], several("That these workers have, or had last.")]
        | UnsetType
    ) = UNSET
    created_after: CreatedAfter | UnsetType = UNSET
    created_before: CreatedBefore | UnsetType = UNSET
    q: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=TEXT_MAX,
                description="Stands in the error message, whatever the case of the letters.",
            ),
        ]
        | UnsetType
    ) = UNSET
    fingerprint: (
        Annotated[
            tuple[Fingerprint, ...],
            several("That failed in these ways, as `GET /api/v1/dead-letters` names them."),
        ]
        | UnsetType
    ) = UNSET
    page: (
        Annotated[
            int, Meta(ge=1, le=PAGE_MAX, description="Which page; 1 when neither it nor a cursor.")
        ]
        | UnsetType
    ) = UNSET
    page_size: Annotated[int, Meta(ge=1, le=100, description="Tasks on a page.")] = 20
    sort_by: Annotated[SortBy, Meta(description="What the list is in order of.")] = (
        SortBy.CREATED_AT
    )
    sort_order: Annotated[SortOrder, Meta(description="The greatest first, or the least.")] = (
        SortOrder.DESC
    )
    cursor: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=CURSOR_CHARACTERS_MAX,
                description="`next_cursor` of an answer to the same filters and order.",
                extra={"expected": "a next_cursor of an answer to the same filters and order"},
            ),
        ]
        | UnsetType
    ) = UNSET


class Pagination(msgspec.Struct, frozen=True):
    """Where the page stands."""

    page: Annotated[int | None, Meta(description="Its number; null behind a cursor.")]
    page_size: Annotated[int, Meta(ge=1, le=100)]
    total: Annotated[Count, Meta(description="Tasks that match.")]
    total_pages: Count
    next_cursor: Annotated[
        str | None, Meta(description="Leads to the page behind this one; null on the last one.")
    ]


class TaskPage(msgspec.Struct, frozen=True):
    """Tasks in order, and how many there are in all."""

    tasks: list[TaskView]
    total: Annotated[Count, Meta(description="Tasks that match, on all pages.")]
    pagination: Pagination


Told = tuple[Task, int, int | None]
"""A task, its queue position and its estimated completion (ms)."""


class FoundPage(NamedTuple):
    """A page before it is written down."""

    tasks: list[Told]
    pagination: Pagination


class TaskLists:
    """The endpoint; takes an Exchange and answers it, or raises."""

    _reader: Final = QueryReader(TaskListQuery)

    def __init__(
        self,
        store: RedisStore,
        read_model: ReadModel,
        estimates: Estimates,
        settings: Settings,
    ) -> None:
        self._store = store
        self._read_model = read_model
        self._estimates = estimates
        self._task_types = settings.known_task_types
        self._secret = b""

    @operation(
        "listTasks",
        Group.TASKS,
        {200: Answer("A page of tasks.", TaskPage, (LEDGER_POSITION_SEEN, PROJECTION_LAG))},
        query=TaskListQuery,
        headers=(LEDGER_POSITION_WANTED,),
    )
    async def tasks(self, exchange: Exchange) -> None:
        """List tasks.

        A filter that is a comma list is satisfied by each of its values; several filters have to be
        satisfied all. A comma that belongs to a value is sent as `\\,`, a backslash before a comma
        or another backslash as `\\\\`.

        Tasks without a `started_at` or `completed_at` come last in either order of it, by
        `created_at`. `priority` ascends from low to critical, `status` as in a task's life,
        `task_type` by name; what is equal there is in order of `created_at`. The `id` breaks ties.

        Pages are counted anew for each request. `cursor` goes on behind the last task that was
        seen, however many came or left before it, and is quicker far down a long list. In order of
        `created_at`, which never changes, such a walk misses nothing; in another order, a task that
        changes meanwhile may move behind it, or be seen twice.
        """
        asked = self._reader.read(exchange)
        found, headers = await self.page(asked, exchange.list_header(POSITION_HEADER))
        views = [task_view(*each) for each in found.tasks]
        page = TaskPage(views, found.pagination.total, found.pagination)
        await exchange.respond(200, encode(page), headers)

    def given(self, values: Mapping[str, Any]) -> TaskListQuery:
        """The question that these parameters ask. Raises ApiError (400)."""
        return self._reader.given(values)

    async def page(
        self, asked: TaskListQuery, position: bytes | None
    ) -> tuple[FoundPage, list[Header]]:
        """The answer; `position` is the Ledger-Position that the caller insists on. Raises
        ApiError."""
        digest = _digest(asked)
        created, page = await self._where(asked, digest)
        query = ListQuery(self._filters(asked, *created), asked.sort_by, asked.sort_order, page)
        listed, headers = await self._read_model.ask_after(
            position, lambda models, wanted: models.tasks(query, wanted)
        )
        pagination = Pagination(
            None if page.after else page.skip // page.size + 1,
            page.size,
            listed.total,
            -(-listed.total // page.size),
            await self._following(listed, digest, created),
        )
        return FoundPage(await self._told(listed.rows), pagination), headers

    # -- the question -------------------------------------------------------------------------

    async def _where(self, asked: TaskListQuery, digest: bytes) -> tuple[Bounds, Page]:
        """The bounds on created_at, and the part of the list. Raises ApiError (400)."""
        if asked.cursor is UNSET:
            number = 1 if asked.page is UNSET else asked.page
            return self._created(asked), Page(asked.page_size, (number - 1) * asked.page_size)
        if asked.page is not UNSET:
            raise invalid("page", "no page beside cursor: they exclude each other")
        try:
            cursor = read_cursor(await self._signing_secret(), asked.cursor, digest)
        except BadCursor as error:
            raise self._reader.wrong("cursor", str(error)) from None
        created = cursor.created_after, cursor.created_before
        return created, Page(asked.page_size, after=cursor.anchor)

    def _created(self, asked: TaskListQuery) -> Bounds:
        after, before, now_ms = asked.created_after, asked.created_before, self._store.now_ms()
        return time_bounds("created", after, before, now_ms, self._reader.wrong)

    def _filters(
        self, asked: TaskListQuery, created_after: int | None, created_before: int | None
    ) -> Filters:
        types = alternatives(asked.task_type)
        check_types(types or (), self._task_types)
        fingerprints = alternatives(asked.fingerprint)
        return Filters(
            kb_ids=alternatives(asked.kb_id),
            statuses=alternatives(asked.status),
            task_types=types,
            priorities=alternatives(asked.priority),
            worker_ids=alternatives(asked.worker_id),
            created_after=created_after,
            created_before=created_before,
            text=None if asked.q is UNSET else asked.q,
            fingerprints=None if fingerprints is None else tuple(map(bytes.fromhex, fingerprints)),
        )

    # -- the answer ---------------------------------------------------------------------------

    async def _following(self, listed: Listed, digest: bytes, created: Bounds) -> str | None:
        if listed.following is None:
            return None
        return write_cursor(await self._signing_secret(), digest, created, listed.following)

    async def _signing_secret(self) -> bytes:
        if not self._secret:
            self._secret = await self._store.secret()
        return self._secret

    async def _told(self, rows: Sequence[Row]) -> list[Told]:
        """The tasks and what is known of them beside. Positions come from the store, all in one
        round trip."""
        tasks = _tasks(rows)
        positions = await asyncio.gather(*(queue_position(self._store, task) for task in tasks))
        # What estimates rest on is in the process, but for the first time.
        estimates = [await self._estimates.of(t, n) for t, n in zip(tasks, positions, strict=True)]
        return list(zip(tasks, positions, estimates, strict=True))


def alternatives(values: tuple[Value, ...] | UnsetType) -> tuple[Value, ...] | None:
    """What a comma list names, once each; None when it was not sent."""
    return None if isinstance(values, UnsetType) else tuple(dict.fromkeys(values))


def _tasks(rows: Sequence[Row]) -> list[Task]:
    """The tasks of rows. Raises ApiError (503) when one holds what no projector writes."""
    try:
        return [decode_task(row.id, row.version, row.submission, row.state) for row in rows]
    except Undecodable as error:
        raise ApiError(
            RejectionCode.SERVICE_UNAVAILABLE,
            f"the read model is damaged ({error}): `ledgerq rebuild` makes it anew. Single tasks "
            "still answer",
        ) from error


def _digest(asked: TaskListQuery) -> bytes:
    """Of what a cursor depends on."""
    fields = msgspec.structs.asdict(asked)
    for name in ("page", "page_size", "cursor"):
        del fields[name]
    return query_digest([_in_any_order(value) for value in fields.values()])


def _in_any_order(value: object) -> object:
    """The same for the same question: in a comma list neither order nor repetition counts."""
    if isinstance(value, tuple):
        return sorted(set(cast("tuple[str, ...]", value)))
    return None if value is UNSET else value
