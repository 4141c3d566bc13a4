"""`ledgerq limits`"""

import sys

from api.cli.client import Service
from api.cli.flags import AsJson, Url, service_url
from api.cli.output import print_json, print_table

HEADINGS = ("of", "limit", "now", "name")


def limits(*, url: Url = None, json: AsJson = False) -> None:
    """`now` counts the tasks that run and those that are next to be taken."""
    with Service(service_url(url)) as service:
        found = service.limits()
    rows = [
        *(("type", str(of.limit), str(of.admitted), of.task_type) for of in found.types),
        *(("kb", str(of.limit), str(of.admitted), of.kb_id) for of in found.kbs),
    ]
    if json:
        print_json(bytes(found.json))
    elif rows:
        print_table(HEADINGS, rows)
    else:
        print("ledgerq: nothing is limited: `ledgerq limit` does that", file=sys.stderr)
