"""`ledgerq stats`"""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from cyclopts import Parameter

from api.cli.client import Service
from api.cli.filters import CreatedAfter, Kbs, Priorities, Statuses, Types, sent
from api.cli.flags import AsJson, Url, service_url
from api.cli.output import print_table
from api.cli.print_answer import print_answer


class _Stats(msgspec.Struct, frozen=True):
    total_tasks: int
    avg_process_time: float | None
    success_rate: float
    status_breakdown: dict[str, int]
    type_breakdown: dict[str, int]
    priority_breakdown: dict[str, int]


def stats(
    *,
    kb: Kbs = None,
    status: Statuses = None,
    task_type: Types = None,
    priority: Priorities = None,
    created_after: CreatedAfter = None,
    as_of: Annotated[
        str | None,
        Parameter(
            help="as they were at this time (RFC 3339), or so long ago (90s, 15m, 1h, 7d)",
            metavar="TIME",
        ),
    ] = None,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Counts every task that ever was. Exit code 0."""
    query = sent(
        kb_id=kb,
        status=status,
        task_type=task_type,
        priority=priority,
        created_after=created_after,
        as_of=as_of,
    )
    with Service(service_url(url)) as service:
        answer = service.task_stats(query)
    print_answer(answer, _Stats, _print, as_json=json)
    return 0


def _print(counts: _Stats) -> None:
    print_table(("by", "of", "tasks", "share"), _rows(counts), least=("share",))


def _rows(counts: _Stats) -> Iterator[tuple[str, ...]]:
    total = counts.total_tasks
    yield "all", "", f"{total}", ""
    for by, breakdown in (
        ("status", counts.status_breakdown),
        ("type", counts.type_breakdown),
        ("priority", counts.priority_breakdown),
    ):
        for name, n in breakdown.items():
            yield by, name, f"{n}", f"{100 * n / total:.1f} %" if total else ""
    yield "success rate", "", f"{counts.success_rate:g} %", ""
    average = counts.avg_process_time
    yield "mean time", "", "-" if average is None else f"{average:.3g} s", ""
