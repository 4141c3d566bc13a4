"""`ledgerq history`"""

import asyncio
import sys
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from api.cli.client import Service
from api.cli.event_text import detail
from api.cli.failures import CliError
from api.cli.flags import AsJson, DataDir, RedisUrl, Url, load_settings, service_url
from api.cli.output import on_terminal, print_json, print_table
from ledger.identity import SYSTEM, is_task_id
from ledger.settings import Settings


class _Event(msgspec.Struct, frozen=True):
    position: str
    type: str
    version: int
    at: str
    data: dict[str, Any]
    meta: dict[str, Any]


class _History(msgspec.Struct, frozen=True):
    events: list[_Event]
    task_id: str | None = None


def history(
    task_id: Annotated[
        str, Parameter(help="id of the task; `system`: pauses, limits, lost workers")
    ],
    /,
    *,
    data_dir: Annotated[DataDir, Parameter(help="read the ledger in this folder itself")] = None,
    redis_url: Annotated[RedisUrl, Parameter(help="read the ledger on this server itself")] = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Asks the service; with --data-dir or --redis it reads the ledger itself, which is started
    for the purpose when nothing runs on its folder."""
    if data_dir is None and redis_url is None:
        with Service(service_url(url)) as service:
            of_system = task_id == SYSTEM
            answer = service.system_events() if of_system else service.events(task_id)
    else:
        settings = load_settings(data_dir=data_dir, redis_url=redis_url).settings
        answer = asyncio.run(_from_ledger(settings, task_id))
    if json:
        print_json(answer)
    else:
        _print(msgspec.json.decode(answer, type=_History))


async def _from_ledger(settings: Settings, task_id: str) -> bytes:
    from api.cli.open_ledger import open_events
    from api.wire import History, SystemHistory, event_view

    known = task_id == SYSTEM or is_task_id(task_id)
    async with open_events(settings) as ledger:
        events = await ledger.history(task_id) if known else []
    views = [event_view(event) for event in events]
    if task_id == SYSTEM:
        return msgspec.json.encode(SystemHistory(views))
    if not events:
        raise CliError(f"there is no task with the id {task_id} (TASK_NOT_FOUND)")
    return msgspec.json.encode(History(task_id, views))


def _print(history: _History) -> None:
    events = history.events
    if not events:
        print("ledgerq: nothing was paused, limited or lost so far", file=sys.stderr)
        return
    # On a terminal the day is said once, above; a line elsewhere has to stand alone.
    day = events[0].at[:10]
    same_day = on_terminal() and all(event.at.startswith(day) for event in events)
    if on_terminal():
        print(
            (f"task {history.task_id}" if history.task_id else SYSTEM)
            + (f", {day} (UTC)" if same_day else "")
        )
    rows = [
        (
            str(event.version),
            event.at[11:].rstrip("Z") if same_day else event.at,
            event.type,
            event.meta.get("actor", ""),
            detail(event.data),
        )
        for event in events
    ]
    print_table(("#", "at", "event", "by", "what"), rows)
