"""`ledgerq explain`"""

from api.cli.client import Service
from api.cli.flags import AsJson, TaskId, Url, service_url
from api.cli.output import print_fields, print_json


def explain(task_id: TaskId, /, *, url: Url = None, json: AsJson = False) -> int:
    """Exit code 0."""
    with Service(service_url(url)) as service:
        explanation = service.explain(task_id)
    if json:
        print_json(bytes(explanation.json))
        return 0
    print_fields(
        [
            ("task", explanation.task_id),
            ("status", explanation.status),
            *((reason.code, reason.message) for reason in explanation.reasons),
        ]
    )
    return 0
