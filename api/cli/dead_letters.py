"""`ledgerq dead-letters` and `ledgerq dead-letters retry`"""

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from api.cli.answers import Answer
from api.cli.client import Service
from api.cli.failures import CliError
from api.cli.filters import (
    CreatedAfter,
    CreatedBefore,
    ErrorKinds,
    FailedAfter,
    FailedBefore,
    Fingerprints,
    Kbs,
    Types,
    sent,
)
from api.cli.flags import AsJson, Url, service_url
from api.cli.output import counted, print_json, print_table, shortened
from api.cli.print_answer import print_answer, say_how_old
from api.cli.progress import counting
from api.comma_list import values_of

MESSAGE_CHARACTERS_MAX: Final = 80
HEADINGS: Final = ("fingerprint", "tasks", "kbs", "type", "kind", "last failed", "message")
LEAST: Final = ("kbs", "kind", "last failed", "type")
"""Left out, in this order, where the terminal is narrow."""

CHUNK: Final = 1_000
"""Tasks that one request retries."""

QUEUE_FULL: Final = "queue_full"
"""The reason of those that stay failed, and remain."""

LISTS: Final = ("kb_id", "task_type", "error_kind", "fingerprint")

app = App(
    name="dead-letters",
    help_epilogue="Examples:\n"
    "  ledgerq dead-letters --failed-after 1d\n"
    "  ledgerq dead-letters --kb docs --json\n"
    "  ledgerq dead-letters retry --fingerprint 5f0c8d1e9a37b264 --dry-run",
)


class _Group(msgspec.Struct, frozen=True):
    fingerprint: str
    count: int
    kb_ids: int
    task_type: str
    error_kind: str
    last_failed_at: str
    example_message: str


class _Pagination(msgspec.Struct, frozen=True):
    page: int
    total_pages: int


class _Page(msgspec.Struct, frozen=True):
    dead_letters: list[_Group]
    total: int
    total_tasks: int
    pagination: _Pagination


class Retried(msgspec.Struct):
    """What several requests came to."""

    retried: int = 0
    skipped: dict[str, int] = {}
    remaining: int = 0
    dry_run: bool = False
    fingerprints: dict[str, int] = {}
    as_of: str = ""


@app.default
def dead_letters(
    *,
    kb: Kbs = None,
    task_type: Types = None,
    error_kind: ErrorKinds = None,
    fingerprint: Fingerprints = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    failed_after: FailedAfter = None,
    failed_before: FailedBefore = None,
    page: Annotated[int | None, Parameter(help="which page [default: 1]")] = None,
    page_size: Annotated[int | None, Parameter(help="groups on a page [default: 20]")] = None,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Show failed tasks by the way in which they failed, the most frequent first. Exit code 0."""
    query = sent(
        kb_id=kb,
        task_type=task_type,
        error_kind=error_kind,
        fingerprint=fingerprint,
        created_after=created_after,
        created_before=created_before,
        failed_after=failed_after,
        failed_before=failed_before,
        page=page,
        page_size=page_size,
    )
    with Service(service_url(url)) as service:
        answer = service.dead_letters(query)
    print_answer(answer, _Page, _print, as_json=json)
    return 0


@app.command(
    help_epilogue="Examples:\n"
    "  ledgerq dead-letters retry --fingerprint 5f0c8d1e9a37b264 --yes\n"
    "  ledgerq dead-letters retry --kb docs --failed-after 1h --dry-run"
)
def retry(
    *,
    kb: Kbs = None,
    task_type: Types = None,
    error_kind: ErrorKinds = None,
    fingerprint: Fingerprints = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    failed_after: FailedAfter = None,
    failed_before: FailedBefore = None,
    limit: Annotated[
        int | None, Parameter(help="at most so many, the oldest failures first [default: all]")
    ] = None,
    dry_run: Annotated[bool, Parameter(help="only say what would be retried")] = False,
    yes: Annotated[bool, Parameter(help="do not ask whether that is meant")] = False,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Queue failed tasks again, many at once. Exit code 1: a queue has no room for some of them."""
    asked = _body(
        sent(
            kb_id=kb,
            task_type=task_type,
            error_kind=error_kind,
            fingerprint=fingerprint,
            created_after=created_after,
            created_before=created_before,
            failed_after=failed_after,
            failed_before=failed_before,
        )
    )
    if limit is not None and limit < 1:
        raise CliError(f"--limit: expected a whole number from 1 on, got {limit}")
    with Service(service_url(url)) as service:
        found = _look(service, asked, limit)
        found.dry_run = dry_run
        if not dry_run and found.retried and _meant(found.retried, yes=yes):
            found = _retry_all(service, {**asked, "failed_before": found.as_of}, found.retried)
    if json:
        print_json(found)
    else:
        print(_said(found))
    return 0 if found.dry_run or not found.skipped.get(QUEUE_FULL) else 1


def _look(service: Service, asked: Mapping[str, Any], limit: int | None) -> Retried:
    """What a retry would do; more than a request may take is counted by what remains."""
    found, answer = _ask(service, {**asked, "dry_run": True, "limit": min(limit or CHUNK, CHUNK)})
    say_how_old(answer)
    matching = found.retried + found.remaining
    found.retried = matching if limit is None else min(matching, limit)
    found.remaining = matching - found.retried
    if found.retried > CHUNK:
        # Those of the first request alone would mislead.
        found.fingerprints = {}
    return found


def _meant(tasks: int, *, yes: bool) -> bool:
    """Whether that many are to be retried. Raises CliError where nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        would = f"{counted(tasks, 'task')} would be retried"
        raise CliError(f"{would}; nothing was: add --yes, or --dry-run")
    sys.stderr.write(f"Retry {counted(tasks, 'task')}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CliError("nothing was retried")
    return True


def _retry_all(service: Service, asked: Mapping[str, Any], tasks: int) -> Retried:
    """Retry so many, request after request."""
    total, skipped, fingerprints = Retried(), Counter[str](), Counter[str]()
    position: str | None = None
    behind: Answer | None = None
    with counting("retrying", tasks) as advance:
        while total.retried < tasks:
            body = {**asked, "limit": min(CHUNK, tasks - total.retried)}
            try:
                found, answer = _ask(service, body, position)
            except CliError as error:
                so_far = f"retried before that: {counted(total.retried, 'task')}"
                raise CliError(f"{error}; {so_far}; the same call goes on from there") from error
            behind = answer if answer.behind_ms else behind
            position = answer.position or position
            total.retried += found.retried
            # Those that found no room remain, so that every request comes upon them anew.
            skipped.pop(QUEUE_FULL, None)
            skipped.update(found.skipped)
            fingerprints.update(found.fingerprints)
            total.remaining, total.as_of = found.remaining, found.as_of
            advance(found.retried)
            if found.remaining == 0 or not found.retried:
                break
    if behind is not None:
        say_how_old(behind)
    total.skipped, total.fingerprints = dict(skipped), dict(fingerprints)
    return total


def _ask(
    service: Service, body: Mapping[str, Any], position: str | None = None
) -> tuple[Retried, Answer]:
    """One request, which sees at least the writes up to `position`; its answer says where its own
    stand."""
    answer = service.retry_dead_letters(msgspec.json.encode(body), position)
    return msgspec.json.decode(answer.json, type=Retried), answer


def _body(filters: Mapping[str, str]) -> dict[str, Any]:
    """The filters as the API takes them in a body."""
    return {name: values_of(value) if name in LISTS else value for name, value in filters.items()}


def _print(page: _Page) -> None:
    if page.dead_letters:
        print_table(HEADINGS, [_row(group) for group in page.dead_letters], least=LEAST)
    # Aside, so that whatever reads the lines finds groups only.
    sys.stderr.write(f"ledgerq: {_where(page)}\n")


def _row(group: _Group) -> tuple[str, ...]:
    return (
        group.fingerprint,
        f"{group.count}",
        f"{group.kb_ids}",
        group.task_type,
        group.error_kind,
        group.last_failed_at,
        shortened(group.example_message, MESSAGE_CHARACTERS_MAX),
    )


def _where(page: _Page) -> str:
    if page.total == 0:
        return "no failed task matches"
    ways = f"in {page.total:,} ways" if page.total != 1 else "in one way"
    found = f"{counted(page.total_tasks, 'task')} failed, {ways}"
    if page.pagination.total_pages < 2:
        return found
    return f"{found}; this is page {page.pagination.page:,} of {page.pagination.total_pages:,}"


def _said(found: Retried) -> str:
    if found.dry_run and found.retried:
        said = f"{counted(found.retried, 'task')} would be retried"
    elif found.retried:
        said = f"{counted(found.retried, 'task')} retried"
    else:
        said = "no failed task matches" if not found.skipped else "no task was retried"
    skipped = ", ".join(f"{n:,} {reason}" for reason, n in found.skipped.items())
    left = f"; {found.remaining:,} remain" if found.remaining else ""
    if left and found.skipped.get(QUEUE_FULL):
        left += ": a queue is full; the same call goes on once it has room"
    return f"{said}{f'; skipped: {skipped}' if skipped else ''}{left}"
