"""`ledgerq workers`"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from api.cli.answers import Worker
from api.cli.client import Service
from api.cli.flags import AsJson, Url, service_url
from api.cli.output import on_terminal, print_json, print_table

HEADINGS = ("worker", "status", "running", "done", "failed", "mean", "last heard", "types")

LEAST = ("mean", "failed", "done", "last heard")
"""Left out, in this order, where the terminal is narrow."""

LOST: Final = "lost"
LOST_SHOWN_MAX: Final = 3
"""Of those that took the same types; of more, a person is shown how many there are."""


def workers(*, url: Url = None, json: AsJson = False) -> int:
    """On a terminal, many lost workers that took the same types are one row. Exit code 0."""
    with Service(service_url(url)) as service:
        listed = service.workers()
    if json:
        print_json(bytes(listed.json))
    elif listed.workers:
        rows = _rows(listed.workers) if on_terminal() else map(_row, listed.workers)
        print_table(HEADINGS, rows, least=LEAST)
    else:
        print("ledgerq: no worker is there: start one with `ledgerq worker`", file=sys.stderr)
    return 0


def _rows(listed: Sequence[Worker]) -> Iterator[tuple[str, ...]]:
    """In the place of the first one of many, all of them."""
    lost: defaultdict[tuple[str, ...], list[Worker]] = defaultdict(list)
    for worker in listed:
        if worker.status == LOST:
            lost[_kind(worker)].append(worker)
    for worker in listed:
        alike = lost[_kind(worker)] if worker.status == LOST else []
        if len(alike) <= LOST_SHOWN_MAX:
            yield _row(worker)
        elif worker is alike[0]:
            yield _sum(alike)


def _kind(worker: Worker) -> tuple[str, ...]:
    return tuple(worker.task_types)


def _sum(alike: Sequence[Worker]) -> tuple[str, ...]:
    return (
        f"{len(alike)} workers",
        LOST,
        f"{sum(each.running for each in alike)}/{sum(each.concurrency for each in alike)}",
        str(sum(each.tasks_succeeded for each in alike)),
        str(sum(each.tasks_failed for each in alike)),
        "-",
        max(each.last_heartbeat for each in alike),
        ", ".join(alike[0].task_types),
    )


def _row(worker: Worker) -> tuple[str, ...]:
    average = worker.average_task_time
    return (
        worker.id,
        worker.status,
        f"{worker.running}/{worker.concurrency}",
        str(worker.tasks_succeeded),
        str(worker.tasks_failed),
        "-" if average is None else f"{average:.3g} s",
        worker.last_heartbeat,
        ", ".join(worker.task_types),
    )
