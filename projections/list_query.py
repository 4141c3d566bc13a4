"""What a caller may ask of the tasks: filters, an order, a page. Names here, no numbers yet."""

from enum import StrEnum
from typing import Final

import msgspec

from ledger.task import FINISHED, Priority, Status


class SortBy(StrEnum):
    """What a list is in order of.

    The times sort by themselves, then by id; a task without that time comes last in either order,
    by `created_at`. The others sort by their value, then by `created_at`, then by id.
    """

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    STARTED_AT = "started_at"
    COMPLETED_AT = "completed_at"
    PRIORITY = "priority"
    STATUS = "status"
    TASK_TYPE = "task_type"


class SortOrder(StrEnum):
    """Whether the greatest comes first. It holds for what breaks ties too."""

    DESC = "desc"
    ASC = "asc"


STATUS_ORDER: Final = tuple(Status)
"""`asc`: as in a task's life."""

PRIORITY_ORDER: Final = (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL)
"""`asc`: the least urgent first."""

UNFINISHED: Final = frozenset(Status) - FINISHED


class Filters(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which tasks are meant: those that satisfy every filter that is there.

    A tuple names alternatives, None sets no condition. Times are in ms, and are themselves outside.
    """

    kb_ids: tuple[str, ...] | None = None
    statuses: tuple[Status, ...] | None = None
    task_types: tuple[str, ...] | None = None
    priorities: tuple[Priority, ...] | None = None
    worker_ids: tuple[str, ...] | None = None
    created_after: int | None = None
    created_before: int | None = None
    text: str | None = None
    """Stands somewhere in the error message, whatever the case of its letters."""
    fingerprints: tuple[bytes, ...] | None = None
    """Failed in one of these ways."""


class Anchor(msgspec.Struct, frozen=True, array_like=True):
    """A place in an order, just behind a task: where a page ends, and the next one begins.

    `group` is the value that the task sorts by where that is no time; of a time, "set", or "unset"
    for a task without it. `at` is its time in ms: the one sorted by, else `created_at`.
    """

    group: str
    at: int
    id: bytes


class Page(msgspec.Struct, frozen=True):
    """Which part of the list: so many tasks after the first `skip`, or after an anchor."""

    size: int
    skip: int = 0
    after: Anchor | None = None


class ListQuery(msgspec.Struct, frozen=True):
    """A whole question."""

    filters: Filters
    sort_by: SortBy
    sort_order: SortOrder
    page: Page


class Row(msgspec.Struct, frozen=True):
    """A task as the read model keeps it: bytes, for `ledger.codec.decode_task`."""

    id: str
    version: int
    submission: bytes
    state: bytes


class Listed(msgspec.Struct, frozen=True):
    """A page, how many tasks match in all, and where the next page begins (None: nowhere)."""

    rows: tuple[Row, ...]
    total: int
    following: Anchor | None
