"""GET /api/v1/dead-letters: failed tasks by the way in which they failed."""

from collections.abc import Callable
from typing import Annotated, Any, Final

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
from api.errors import ApiError
from api.exchange import Exchange
from api.known_types import check_types
from api.query import QueryReader
from api.read_model import ReadModel
from api.scalars import (
    Count,
    CreatedAfter,
    CreatedBefore,
    Fingerprint,
    KbId,
    Moment,
    TaskId,
    TaskTypeName,
    TimeOrAge,
)
from api.task_list import PAGE_MAX, alternatives, several
from api.time_bounds import Bounds, time_bounds
from api.wire import moment_text
from ledger.codec import encode
from ledger.events import ErrorKind
from ledger.settings import Settings
from ledger.store import Store
from projections.dead_letters import EXAMPLES_MAX, FailureFilters, FailureGroup


class DeadLetterFilters(msgspec.Struct, frozen=True):
    """Which failed tasks are asked for."""

    kb_id: Annotated[tuple[KbId, ...], several("Of these knowledge bases.")] | UnsetType = UNSET
    task_type: Annotated[tuple[TaskTypeName, ...], several("Of these types.")] | UnsetType = UNSET
    error_kind: (
        Annotated[tuple[ErrorKind, ...], several("That failed for such a reason.")] | UnsetType
    ) = UNSET
    fingerprint: (
        Annotated[tuple[Fingerprint, ...], several("That failed in these ways.")] | UnsetType
    ) = UNSET
    created_after: CreatedAfter | UnsetType = UNSET
    created_before: CreatedBefore | UnsetType = UNSET
    failed_after: (
        Annotated[TimeOrAge, Meta(description="Failed after this time, or less long ago.")]
        | UnsetType
    ) = UNSET
    failed_before: (
        Annotated[TimeOrAge, Meta(description="Failed before this time, or longer ago.")]
        | UnsetType
    ) = UNSET


class DeadLetterQuery(DeadLetterFilters, frozen=True):
    """Which failed tasks are asked for, and which part of their groups."""

    page: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="Which page.")] = 1
    page_size: Annotated[int, Meta(ge=1, le=100, description="Groups on a page.")] = 20


class DeadLetterGroup(msgspec.Struct, frozen=True):
    """Failed tasks of one type and one kind of error, whose messages are the same but for numbers,
    ids, hexadecimal digits, quoted text and paths."""

    fingerprint: Fingerprint
    task_type: TaskTypeName
    error_kind: ErrorKind
    count: Annotated[int, Meta(ge=1, description="Tasks that match and failed so.")]
    kb_ids: Annotated[int, Meta(ge=1, description="How many knowledge bases they belong to.")]
    first_failed_at: Moment
    last_failed_at: Moment
    example_message: Annotated[str, Meta(description="The message of the last one.")]
    example_task_ids: Annotated[
        list[TaskId],
        Meta(min_length=1, max_length=EXAMPLES_MAX, description="The last ones, the latest first."),
    ]


class GroupPagination(msgspec.Struct, frozen=True):
    """Where the page stands."""

    page: Annotated[int, Meta(ge=1)]
    page_size: Annotated[int, Meta(ge=1, le=100)]
    total: Annotated[Count, Meta(description="Groups that match.")]
    total_pages: Count


class DeadLetterPage(msgspec.Struct, frozen=True):
    """Groups, the largest first."""

    dead_letters: list[DeadLetterGroup]
    total: Annotated[Count, Meta(description="Groups that match, on all pages.")]
    total_tasks: Annotated[Count, Meta(description="Tasks in all of these groups.")]
    pagination: GroupPagination


class DeadLetters:
    """The endpoint; takes an Exchange and answers it, or raises."""

    _reader: Final = QueryReader(DeadLetterQuery)

    def __init__(self, store: Store, read_model: ReadModel, settings: Settings) -> None:
        self._store = store
        self._read_model = read_model
        self._task_types = settings.known_task_types

    @operation(
        "listDeadLetters",
        Group.TASKS,
        {200: Answer("A page of groups.", DeadLetterPage, (LEDGER_POSITION_SEEN, PROJECTION_LAG))},
        query=DeadLetterQuery,
        headers=(LEDGER_POSITION_WANTED,),
    )
    async def groups(self, exchange: Exchange) -> None:
        """List failed tasks, grouped by the way in which they failed.

        Tasks have the same `fingerprint` when their type, the kind of their error and its message
        are the same, whatever numbers, ids, hexadecimal digits, quoted text and paths stand in it.
        `GET /api/v1/tasks?fingerprint=…` lists them, `POST /api/v1/dead-letters/retry` sends them
        round again.

        The groups are in order of `count`, the largest first, then of `fingerprint`. All that
        is told of a group is of those of its tasks that match. A comma list is as in the list of
        tasks.
        """
        asked = self._reader.read(exchange)
        filters = failure_filters(asked, self._store.now_ms(), self._reader.wrong, self._task_types)
        size, skip = asked.page_size, (asked.page - 1) * asked.page_size
        found, headers = await self._read_model.ask(
            exchange, lambda models, wanted: models.failure_groups(filters, skip, size, wanted)
        )
        page = DeadLetterPage(
            list(map(group_view, found.groups)),
            found.total,
            found.tasks,
            GroupPagination(asked.page, size, found.total, -(-found.total // size)),
        )
        await exchange.respond(200, encode(page), headers)


def failure_filters(
    asked: Any, now_ms: int, wrong: Callable[[str], ApiError], known_types: tuple[str, ...]
) -> FailureFilters:
    """The filters of a request, which has the fields of DeadLetterFilters. Raises ApiError (400);
    `wrong` makes that of a field's name."""
    types = alternatives(asked.task_type)
    check_types(types or (), known_types)
    created: Bounds = time_bounds(
        "created", asked.created_after, asked.created_before, now_ms, wrong
    )
    failed: Bounds = time_bounds("failed", asked.failed_after, asked.failed_before, now_ms, wrong)
    named = alternatives(asked.fingerprint)
    return FailureFilters(
        alternatives(asked.kb_id),
        types,
        alternatives(asked.error_kind),
        None if named is None else tuple(map(bytes.fromhex, named)),
        *created,
        *failed,
    )


def group_view(group: FailureGroup) -> DeadLetterGroup:
    """A group for a caller."""
    return DeadLetterGroup(
        group.fingerprint.hex(),
        group.task_type,
        group.error_kind,
        group.n,
        group.kbs,
        moment_text(group.first_at),
        moment_text(group.last_at),
        group.message,
        list(group.task_ids),
    )
