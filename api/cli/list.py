"""`ledgerq list`"""

import sys
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from api.cli.client import Service
from api.cli.filters import (
    CreatedAfter,
    CreatedBefore,
    Fingerprints,
    Kbs,
    Priorities,
    Statuses,
    Types,
    sent,
)
from api.cli.flags import AsJson, Url, service_url
from api.cli.output import print_table, shortened
from api.cli.print_answer import print_answer

ERROR_CHARACTERS_MAX: Final = 60
HEADINGS: Final = ("task", "type", "kb", "status", "priority", "created", "error")

LEAST: Final = ("priority", "kb", "created", "type")
"""Left out, in this order, where the terminal is narrow."""


class _Listed(msgspec.Struct, frozen=True):
    id: str
    task_type: str
    kb_id: str
    status: str
    priority: str
    created_at: str
    error_message: str


class _Pagination(msgspec.Struct, frozen=True):
    page: int | None
    total_pages: int
    next_cursor: str | None


class _Page(msgspec.Struct, frozen=True):
    tasks: list[_Listed]
    total: int
    pagination: _Pagination


def list(
    *,
    kb: Kbs = None,
    status: Statuses = None,
    task_type: Types = None,
    priority: Priorities = None,
    worker: Annotated[
        str | None, Parameter(help="that these workers have, or had last", metavar="WORKER,...")
    ] = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    fingerprint: Fingerprints = None,
    search: Annotated[
        str | None, Parameter(help="with this text in the error message", metavar="TEXT")
    ] = None,
    sort_by: Annotated[
        str | None,
        Parameter(
            help="created_at, updated_at, started_at, completed_at, priority, status or task_type"
            " [default: created_at]",
            metavar="FIELD",
        ),
    ] = None,
    sort_order: Annotated[str | None, Parameter(help="asc or desc [default: desc]")] = None,
    page: Annotated[int | None, Parameter(help="which page [default: 1]")] = None,
    page_size: Annotated[int | None, Parameter(help="tasks on a page [default: 20]")] = None,
    cursor: Annotated[
        str | None,
        # Some begin with a hyphen.
        Parameter(
            help="the next_cursor that a page before this one told", allow_leading_hyphen=True
        ),
    ] = None,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Several filters have to be satisfied all. Exit code 0."""
    query = sent(
        kb_id=kb,
        status=status,
        task_type=task_type,
        priority=priority,
        worker_id=worker,
        created_after=created_after,
        created_before=created_before,
        fingerprint=fingerprint,
        q=search,
        sort_by=sort_by,
        sort_order=sort_order,
        page=page,
        page_size=page_size,
        cursor=cursor,
    )
    with Service(service_url(url)) as service:
        answer = service.tasks(query)
    print_answer(answer, _Page, _print, as_json=json)
    return 0


def _print(page: _Page) -> None:
    if page.tasks:
        print_table(HEADINGS, [_row(task) for task in page.tasks], least=LEAST)
    # Aside, so that whatever reads the lines finds tasks only.
    sys.stderr.write(f"ledgerq: {_where(page)}\n")


def _where(page: _Page) -> str:
    found = f"{page.total:,} tasks match" if page.total != 1 else "1 task matches"
    if page.total == 0:
        return "no task matches"
    if page.pagination.page is None or page.pagination.total_pages < 2:
        more = page.pagination.next_cursor
        return f"{found}; next: --cursor {more}" if more else found
    return f"{found}; this is page {page.pagination.page:,} of {page.pagination.total_pages:,}"


def _row(task: _Listed) -> tuple[str, ...]:
    return (
        task.id,
        task.task_type,
        task.kb_id,
        task.status,
        task.priority,
        task.created_at,
        shortened(task.error_message, ERROR_CHARACTERS_MAX),
    )
