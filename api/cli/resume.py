"""`ledgerq resume`"""

from api.cli.client import Service
from api.cli.flags import AsJson, TaskType, Url, service_url
from api.cli.output import print_json


def resume(task_type: TaskType, /, *, url: Url = None, json: AsJson = False) -> None:
    """A queue that is not paused stays so."""
    with Service(service_url(url)) as service:
        answer = service.resume(task_type)
    if json:
        print_json(answer)
    else:
        print(f"{task_type}  not paused")
