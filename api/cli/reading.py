"""What `ledgerq replay` and `export` have in common: which events, and where they lie."""

import contextlib
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, Final

from cyclopts import Parameter

from api.cli.archives import archive_settings, find_archive
from api.cli.failures import CliError
from api.cli.open_ledger import open_events
from api.cli.progress import counting
from api.comma_list import values_of
from api.replay.chosen import Chosen, Filters, Wanted
from api.replay.span import Span, span_of
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.events import EVENT_TYPES
from ledger.identity import SYSTEM, is_task_id
from ledger.objects import open_objects
from ledger.settings import Settings
from ledger.store import Recorded
from ledger.system.events import SYSTEM_EVENT_TYPES

Since = Annotated[
    str | None,
    Parameter(
        name="--from",
        help="begin at this time (RFC 3339), so long ago (15m, 7d), or at the event at this"
        " position [default: the beginning]",
        metavar="TIME|POSITION",
    ),
]
Until = Annotated[
    str | None,
    Parameter(
        name="--until",
        help="end with this time, or with the event at this position [default: now]",
        metavar="TIME|POSITION",
    ),
]
Tasks = Annotated[
    str | None,
    Parameter(name="--task", help="only events of these tasks (or of `system`)", metavar="ID,..."),
]
Events = Annotated[
    str | None,
    Parameter(name="--event", help="only these events, such as TaskFailed", metavar="EVENT,..."),
]
Actors = Annotated[
    str | None,
    Parameter(
        name="--actor",
        help="only what these did: an X-Actor, a worker, scheduler, notifier, …",
        metavar="ACTOR,...",
    ),
]
Traces = Annotated[
    str | None,
    Parameter(
        name="--trace",
        help="only events in these traces: their ids, or whole traceparents",
        metavar="TRACE,...",
    ),
]
ArchiveAt = Annotated[
    str | None,
    Parameter(
        name="--archive",
        help="read this archive alone: a folder, or s3://bucket/prefix",
        metavar="DIR|URL",
    ),
]
Epoch = Annotated[
    str | None,
    Parameter(help="of the ledger, where several lie in one archive: the middle of its origin"),
]


_TRACE: Final = re.compile(r"(?:[0-9a-f]{2}-)?([0-9a-f]{32})(?:-[0-9a-f]{16}-[0-9a-f]{2})?")


@contextlib.asynccontextmanager
async def reading(
    settings: Settings, archive: str | None, epoch: str | None
) -> AsyncGenerator[Joined]:
    """The events of the ledger that the settings name, or of an archive. Raises CliError, and as
    `open_ledger`."""
    if archive is None:
        async with open_events(settings) as events:
            yield events
        return
    objects = open_objects(archive_settings(settings, archive))
    try:
        found = await find_archive(objects, epoch, (), None)
        partitions = max(found.partitions) + 1
        yield Joined(None, Archive(objects, found.epoch, partitions))
    finally:
        await objects.close()


async def chosen_span(events: Joined, since: str | None, until: str | None) -> Span:
    """Raises CliError."""
    try:
        return await span_of(events, since, until, time.time_ns() // 1_000_000)
    except ValueError as error:
        raise CliError(str(error)) from error


async def read_through(
    events: Joined,
    span: Span,
    filters: Filters,
    what: str,
    take: Callable[[list[Recorded]], Awaitable[None]],
) -> int:
    """Hand all that is wanted of a span to `take`, with a progress bar that says `what` is done;
    how many events that were. Raises as both do."""
    count = 0
    async with contextlib.aclosing(Chosen(events, span, filters).pieces()) as pieces:
        with counting(what) as progress:
            async for piece in pieces:
                await take(piece)
                count += len(piece)
                progress(len(piece))
    return count


def filters_of(
    *,
    task: str | None,
    kb: str | None,
    task_type: str | None,
    event: str | None,
    actor: str | None,
    trace: str | None,
) -> Filters:
    """What was asked for. Raises CliError."""
    tasks, types = _values(task), _values(event)
    for each in tasks or ():
        if not is_task_id(each) and each != SYSTEM:
            raise CliError(f"--task: expected ids of tasks, got {each[:80]!r}")
    known = EVENT_TYPES.keys() | SYSTEM_EVENT_TYPES.keys()
    for each in types or ():
        if each not in known:
            raise CliError(
                f"--event: there is no event {each[:80]!r}, only {', '.join(sorted(known))}"
            )
    traces = None if trace is None else frozenset(map(_trace_id, values_of(trace)))
    return Filters(tasks, _values(kb), _values(task_type), types, _values(actor), traces)


def _trace_id(text: str) -> str:
    found = _TRACE.fullmatch(text.lower())
    if found is None:
        raise CliError(
            f"--trace: expected ids of 32 hexadecimal digits, or traceparents, got {text[:80]!r}"
        )
    return found[1]


def _values(text: str | None) -> Wanted:
    return None if text is None else frozenset(values_of(text))
