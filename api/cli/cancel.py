"""`ledgerq cancel`"""

from api.cli.client import Service
from api.cli.flags import AsJson, TaskId, Url, service_url
from api.cli.output import print_json


def cancel(task_id: TaskId, /, *, url: Url = None, json: AsJson = False) -> None:
    """A task that is finished already is not canceled: exit code 1."""
    with Service(service_url(url)) as service:
        answer = service.cancel(task_id)
    if json:
        print_json(answer)
    else:
        print(f"{task_id}  canceled")
