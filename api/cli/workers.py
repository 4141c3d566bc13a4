"""`ledgerq workers`"""

import sys

from api.cli.answers import Worker
from api.cli.client import Service
from api.cli.flags import AsJson, Url, service_url
from api.cli.output import print_json, print_table

HEADINGS = ("worker", "status", "running", "done", "failed", "mean", "last heard", "types")

LEAST = ("mean", "failed", "done", "last heard")
"""Left out, in this order, where the terminal is narrow."""


def workers(*, url: Url = None, json: AsJson = False) -> int:
    """Exit code 0."""
    with Service(service_url(url)) as service:
        listed = service.workers()
    if json:
        print_json(bytes(listed.json))
    elif listed.workers:
        print_table(HEADINGS, [_row(worker) for worker in listed.workers], least=LEAST)
    else:
        print("ledgerq: no worker is there: start one with `ledgerq worker`", file=sys.stderr)
    return 0


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
