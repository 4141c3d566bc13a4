"""`ledgerq status`"""

import sys
from typing import Annotated

from cyclopts import Parameter

from api.cli.client import Service
from api.cli.flags import AsJson, TaskId, Url, load_settings
from api.cli.output import print_json
from api.cli.print_task import print_task


def status(
    task_id: TaskId,
    /,
    *,
    wait: Annotated[
        float | None,
        Parameter(help="seconds to wait until it is finished", metavar="SECONDS"),
    ] = None,
    version: Annotated[int | None, Parameter(help="as it was after so many events")] = None,
    as_of: Annotated[
        str | None,
        Parameter(help="as it was at a time (RFC 3339), or so long ago (90s, 15m, 1h, 7d)"),
    ] = None,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Exit code 0; with --wait, 1 if the task is not finished by then."""
    settings = load_settings(url=url).settings
    with Service(settings.url, wait_seconds_max=settings.wait_seconds_max) as service:
        if wait is None or version is not None or as_of is not None:
            task = service.task(task_id, version=version, as_of=as_of, wait=wait)
        else:
            task = service.finished(task_id, wait)
    if json:
        print_json(bytes(task.json))
    else:
        print_task(task)
    if wait is not None and not task.finished:
        print(f"ledgerq: not finished after {wait:g} s: {task.status}", file=sys.stderr)
        return 1
    return 0
