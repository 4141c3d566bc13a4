"""`ledgerq limit`"""

from typing import Annotated, Literal

from cyclopts import Parameter

from api.cli.client import Service
from api.cli.failures import CliError
from api.cli.flags import AsJson, Url, service_url
from api.cli.output import print_json


def limit(
    scope: Annotated[Literal["type", "kb"], Parameter(help="what counts together")],
    name: Annotated[str, Parameter(help="the task type, or the knowledge base")],
    n: Annotated[int | None, Parameter(help="how many run at once at most")] = None,
    /,
    *,
    remove: Annotated[bool, Parameter(help="let as many run as there is room for")] = False,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """It takes effect within about a second; what runs goes on."""
    if remove is (n is not None):
        raise CliError("expected how many may run at once, or --remove")
    with Service(service_url(url)) as service:
        if n is None:
            answer = service.remove_limit(scope, name)
        else:
            answer = service.set_limit(scope, name, n)
    if json:
        print_json(answer)
    else:
        print(f"{scope} {name}  {'no limit' if n is None else f'at most {n} at once'}")
