"""`ledgerq submit`"""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from api.cli import batch as batches
from api.cli.answers import Task
from api.cli.client import Service
from api.cli.failures import CliError
from api.cli.flags import AsJson, Url, load_settings
from api.cli.output import print_json
from api.cli.print_task import print_task
from ledger.events import Priority

JSON_OR_FILE: Final = "JSON|@FILE|-"


def submit(
    task_type: Annotated[
        str | None, Parameter(help="what kind of task, such as document_processing")
    ] = None,
    /,
    *,
    kb: Annotated[str | None, Parameter(help="the knowledge base that it belongs to")] = None,
    payload: Annotated[
        str | None,
        Parameter(
            help="a JSON object; @ reads a file, - standard input",
            metavar=JSON_OR_FILE,
            allow_leading_hyphen=True,
        ),
    ] = None,
    priority: Annotated[Priority | None, Parameter(help="[default: normal]")] = None,
    max_retries: Annotated[int | None, Parameter(help="0 to 100 [default: 3]")] = None,
    timeout: Annotated[
        int | None, Parameter(help="of one attempt [default: 300]", metavar="SECONDS")
    ] = None,
    schedule_for: Annotated[
        str | None, Parameter(help="not before: RFC 3339, 2030-01-31T09:30:00Z", metavar="TIME")
    ] = None,
    callback_url: Annotated[
        str | None, Parameter(help="called when it is finished", metavar="URL")
    ] = None,
    metadata: Annotated[
        str | None,
        Parameter(
            help="a JSON object of your own", metavar=JSON_OR_FILE, allow_leading_hyphen=True
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None, Parameter(help="the same key again gives the same task", metavar="KEY")
    ] = None,
    batch: Annotated[
        str | None,
        Parameter(
            help="a file of submissions, one JSON object a line (- is standard input); what else is"
            " given here holds for lines that do not say it",
            metavar="FILE",
            allow_leading_hyphen=True,
        ),
    ] = None,
    wait: Annotated[bool, Parameter(help="until finished; exit code 1 unless completed")] = False,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Prints the id, so that `$(ledgerq submit … | cut -d' ' -f1)` works."""
    settings = load_settings(url=url).settings
    fields = _given(
        task_type=task_type,
        kb_id=kb,
        payload=_read_object("--payload", payload),
        priority=priority,
        max_retries=max_retries,
        timeout=timeout,
        schedule_for=schedule_for,
        callback_url=callback_url,
        metadata=_read_object("--metadata", metadata),
    )
    if batch is None:
        _require(task_type=task_type, kb=kb, payload=payload)
    with Service(settings.url, wait_seconds_max=settings.wait_seconds_max) as service:
        if batch is not None:
            tasks = batches.submit(service, batch, fields, idempotency_key, settings)
        else:
            tasks = [service.submit(msgspec.json.encode(fields), idempotency_key)]
        if wait:
            tasks = batches.finished(service, tasks)
    _print(tasks, as_batch=batch is not None, in_full=wait, as_json=json)
    return 0 if not wait or all(task.status == "completed" for task in tasks) else 1


def _print(tasks: list[Task], *, as_batch: bool, in_full: bool, as_json: bool) -> None:
    match as_json, as_batch:
        case True, False:
            print_json(bytes(tasks[0].json))
        case True, True:
            print_json({"tasks": [task.json for task in tasks], "count": len(tasks)})
        case False, False if in_full:
            print_task(tasks[0])
        case _:
            for task in tasks:
                print(f"{task.id}  {task.status}  {task.task_type}")


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _require(**flags: str | None) -> None:
    missing = [name for name, value in flags.items() if value is None]
    if missing:
        names = {"task_type": "TYPE", "kb": "--kb", "payload": "--payload"}
        raise CliError(
            f"a task needs {', '.join(names[name] for name in missing)}: see `submit --help`"
        )


def _read_object(flag: str, given: str | None) -> msgspec.Raw | None:
    """The JSON object that a flag gives or points to, its bytes untouched."""
    if given is None:
        return None
    try:
        match given[:1]:
            case "@":
                text = Path(given[1:]).read_bytes()
            case "-" if given == "-":
                text = sys.stdin.buffer.read()
            case _:
                text = given.encode()
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except OSError as error:
        raise CliError(f"{flag} {given}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CliError(f"{flag}: expected a JSON object, @FILE or -: {error}") from error
    return msgspec.Raw(text.strip())
