"""`ledgerq retry`"""

from api.cli.client import Service
from api.cli.flags import AsJson, TaskId, Url, service_url
from api.cli.output import print_json


def retry(task_id: TaskId, /, *, url: Url = None, json: AsJson = False) -> None:
    """Its retries are restored. A task that is neither failed nor canceled: exit code 1."""
    with Service(service_url(url)) as service:
        task = service.retry(task_id)
    if json:
        print_json(bytes(task.json))
    else:
        print(f"{task.id}  {task.status}")
