"""`ledgerq tail`"""

import sys
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from api.cli.client import Service
from api.cli.event_text import detail
from api.cli.failures import CliError
from api.cli.filters import Kbs, Priorities, Types, sent
from api.cli.flags import AsJson, Url, service_url
from api.cli.output import STYLES, on_terminal, printable
from ledger.identity import SYSTEM

TYPE_CHARACTERS: Final = 17
"""The longest type of event."""

LEAVE_AS_IS: Final = ("Callback", "TaskErased")
"""How the types of events begin that leave their tasks' statuses as they were."""

STATUS_CHARACTERS: Final = 10
ID_CHARACTERS: Final = 36


class _Event(msgspec.Struct, frozen=True):
    type: str
    task_id: str
    at: str
    data: dict[str, Any] | None
    kb_id: str | None
    task_type: str | None
    status: str | None


def tail(
    *task_ids: Annotated[str, Parameter(help="only events of these tasks")],
    kb: Kbs = None,
    status: Annotated[
        str | None, Parameter(help="events that lead to these statuses", metavar="STATUS,...")
    ] = None,
    task_type: Types = None,
    priority: Priorities = None,
    worker: Annotated[
        str | None, Parameter(help="events that these workers wrote", metavar="WORKER,...")
    ] = None,
    after: Annotated[
        str | None,
        Parameter(
            help="begin after this position, at the `beginning`, or `now`", metavar="POSITION"
        ),
    ] = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Shows each event as it happens, until ctrl-C. When the service goes away it waits for it, and
    goes on where it was. --json: one object a line, as the API sends it."""
    query = sent(
        task_id=",".join(task_ids) or None,
        kb_id=kb,
        status=status,
        task_type=task_type,
        priority=priority,
        worker_id=worker,
        after=after,
    )
    show = _show_json if json else _show_on_terminal if on_terminal() else _show_plain
    try:
        with Service(service_url(url)) as service:
            for event in service.feed(query, _say):
                show(event)
    except KeyboardInterrupt:
        return


def _say(error: CliError | None) -> None:
    if error is None:
        print("ledgerq: connected again", file=sys.stderr)
    else:
        print(f"ledgerq: the feed broke off: {error}; trying again", file=sys.stderr)


def _show_json(event: bytes) -> None:
    # A payload's line breaks stand between tokens: one object is one line.
    sys.stdout.write(msgspec.json.format(event, indent=-1).decode() + "\n")
    sys.stdout.flush()


def _show_plain(event: bytes) -> None:
    at, *words = _words(msgspec.json.decode(event, type=_Event))
    print("  ".join((at, *words)).rstrip(), flush=True)


def _show_on_terminal(event: bytes) -> None:
    from rich.console import Console
    from rich.text import Text

    told = msgspec.json.decode(event, type=_Event)
    at, kind, status, *words = _words(told)
    line = Text(at[11:23], style="dim")
    line.append(f"  {kind}  ")
    line.append(status, style=STYLES.get(told.status or "", ""))
    line.append("  " + "  ".join(words))
    Console(highlight=False).print(line, no_wrap=True, overflow="ellipsis", crop=True)


def _words(event: _Event) -> list[str]:
    # What belongs to no task has none of these.
    unknown = "-" if event.task_id == SYSTEM else "?"
    leads_nowhere = "-" if event.type.startswith(LEAVE_AS_IS) else unknown
    return [
        event.at,
        printable(event.type).ljust(TYPE_CHARACTERS),
        (event.status or leads_nowhere).ljust(STATUS_CHARACTERS),
        event.task_id.ljust(ID_CHARACTERS),
        printable(f"{event.task_type or unknown} {event.kb_id or unknown}"),
        printable(detail(event.data or {})),
    ]
