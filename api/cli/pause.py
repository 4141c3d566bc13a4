"""`ledgerq pause`"""

from typing import Annotated

from cyclopts import Parameter

from api.cli.client import Service
from api.cli.flags import AsJson, TaskType, Url, service_url
from api.cli.output import print_json


def pause(
    task_type: TaskType,
    /,
    *,
    reason: Annotated[str | None, Parameter(help="why, for whoever wonders")] = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """What runs goes on, and what is submitted waits. A queue that is paused already stays so."""
    with Service(service_url(url)) as service:
        answer = service.pause(task_type, reason)
    if json:
        print_json(answer)
    else:
        print(f"{task_type}  paused")
