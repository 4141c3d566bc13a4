"""`ledgerq replay`"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from cyclopts import Parameter

from api.cli.event_text import detail
from api.cli.failures import CliError
from api.cli.filters import Kbs, Types
from api.cli.flags import AsJson, DataDir, RedisUrl, load_settings
from api.cli.output import (
    counted,
    on_terminal,
    print_fields,
    print_json,
    print_table,
    printable,
    shortened,
)
from api.cli.progress import counting
from api.cli.reading import (
    Actors,
    ArchiveAt,
    Epoch,
    Events,
    Since,
    Tasks,
    Traces,
    Until,
    chosen_span,
    filters_of,
    read_through,
    reading,
)
from api.cli.replayed_views import View, print_view
from api.replay.chosen import Chosen, Filters
from api.replay.emit import emit
from api.replay.other_ledger import OtherLedger
from api.replay.pace import Pace, speed_of
from api.replay.sinks import Sink, SinkFailed, StandardOutput, WebSocket
from api.replay.two_versions import Compared, NoVersion, TwoVersions, load_version
from consumers.collector import collect_rarely
from ledger.archive.joined import Joined
from ledger.moments import moment_text
from ledger.settings import Settings
from ledger.store import Recorded

TYPE_CHARACTERS: Final = 17
STATE_CHARACTERS_MAX: Final = 300


class Counted(msgspec.Struct, frozen=True):
    """How many events there are."""

    events: int
    by_event: dict[str, int]


class _Wishes(msgspec.Struct, frozen=True):
    """What the flags say."""

    since: str | None
    until: str | None
    filters: Filters
    archive: str | None
    epoch: str | None
    speed: str | None
    as_json: bool


def replay(
    *,
    since: Since = None,
    until: Until = None,
    task: Tasks = None,
    kb: Kbs = None,
    task_type: Types = None,
    event: Events = None,
    actor: Actors = None,
    trace: Traces = None,
    count: Annotated[bool, Parameter(help="only say how many events there are")] = False,
    view: Annotated[
        Literal["stats", "queues", "tasks"] | None,
        Parameter(help="fold the events, and show this as it was at --until", metavar="VIEW"),
    ] = None,
    speed: Annotated[
        str | None,
        Parameter(
            help="as far apart as they happened (1), so many times as fast (10), or as fast as it"
            " goes (max) [default: max]",
            metavar="1|10|max",
        ),
    ] = None,
    to: Annotated[
        str | None,
        Parameter(
            help="send the events to standard output as JSON (-), to a WebSocket (ws://…), or into"
            " another ledger (redis://…)",
            metavar="-|URL",
            allow_leading_hyphen=True,
        ),
    ] = None,
    diff: Annotated[
        str | None,
        Parameter(
            help="fold with the functions `initial` and `evolve` of this module too, and show where"
            " tasks are not the same then; exit code 1 when there are any",
            metavar="MODULE|FILE.py",
        ),
    ] = None,
    archive: ArchiveAt = None,
    epoch: Epoch = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    json: AsJson = False,
) -> int:
    """Prints every event from the first one to the last one there is now, or those chosen. Reads
    the ledger itself, which is started for the purpose when nothing runs on its folder."""
    if sum((count, view is not None, to is not None, diff is not None)) > 1:
        raise CliError("--count, --view, --to and --diff exclude one another")
    if speed is not None and (count or view is not None or diff is not None):
        raise CliError("--speed: only where events are printed, or sent somewhere with --to")
    settings = load_settings(redis_url=redis_url, data_dir=data_dir).settings
    filters = filters_of(
        task=task, kb=kb, task_type=task_type, event=event, actor=actor, trace=trace
    )
    wishes = _Wishes(since, until, filters, archive, epoch, speed, json)
    collect_rarely()
    try:
        if count:
            return asyncio.run(_count(settings, wishes))
        if view is not None:
            return asyncio.run(_view(settings, wishes, view))
        if diff is not None:
            return asyncio.run(_diff(settings, wishes, diff))
        return asyncio.run(_send(settings, wishes, to))
    except (SinkFailed, NoVersion) as error:
        raise CliError(str(error)) from error


# -- printing and sending ----------------------------------------------------------------------


async def _send(settings: Settings, wishes: _Wishes, to: str | None) -> int:
    try:
        pace = Pace(speed_of(wishes.speed or "max"))
    except ValueError as error:
        raise CliError(str(error)) from error
    async with reading(settings, wishes.archive, wishes.epoch) as events:
        sink = await _sink(events, to, as_json=wishes.as_json)
        try:
            span = await chosen_span(events, wishes.since, wishes.until)
            pieces = Chosen(events, span, wishes.filters).pieces()
            began_s = time.monotonic()
            sent = await emit(pieces, sink.send, pace)
        finally:
            await sink.close()
    if to not in (None, "-"):
        seconds = round(time.monotonic() - began_s, 3)
        if wishes.as_json:
            print_json({"events": sent, "to": to, "seconds": seconds})
        else:
            print(f"sent {counted(sent, 'event')} in {seconds:g} s")
    return 0


async def _sink(events: Joined, to: str | None, *, as_json: bool) -> Sink:
    match to:
        case None:
            return StandardOutput() if as_json else _Printed()
        case "-":
            return StandardOutput()
        case str() if to.startswith(("ws://", "wss://")):
            return WebSocket(to)
        case str() if to.startswith(("redis://", "rediss://", "unix://")):
            return OtherLedger(to, await events.epoch(), events.partitions)
        case _:
            raise CliError(f"--to: expected -, redis://… or ws://…, got {to[:80]!r}")


class _Printed:
    """A Sink for people."""

    async def send(self, events: Sequence[Recorded]) -> None:
        sys.stdout.write("".join([_line(event) for event in events]))
        sys.stdout.flush()

    async def close(self) -> None:
        pass


def _line(event: Recorded) -> str:
    words = (
        str(event.position),
        moment_text(event.at),
        event.type.ljust(TYPE_CHARACTERS),
        event.task_id,
        f"{event.version:>3}",
        _actor(event) or "-",
        detail(_object(event.data)),
    )
    return printable("  ".join(words)).rstrip() + "\n"


def _actor(event: Recorded) -> str:
    return str(_object(event.meta).get("actor", ""))


def _object(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (ValueError, RecursionError):
        return {"unreadable": shortened(data.decode(errors="replace"), STATE_CHARACTERS_MAX)}


# -- counting ----------------------------------------------------------------------------------


async def _count(settings: Settings, wishes: _Wishes) -> int:
    counts: Counter[str] = Counter()

    async def count(piece: Sequence[Recorded]) -> None:
        counts.update([event.type for event in piece])

    async with reading(settings, wishes.archive, wishes.epoch) as events:
        span = await chosen_span(events, wishes.since, wishes.until)
        total = await read_through(events, span, wishes.filters, "counting", count)
    found = Counted(total, dict(sorted(counts.items())))
    if wishes.as_json:
        print_json(found)
    else:
        print_table(
            ("event", "events"),
            [
                *((name, f"{n:,}") for name, n in found.by_event.items()),
                ("all", f"{found.events:,}"),
            ],
        )
    return 0


# -- folding -----------------------------------------------------------------------------------


async def _view(settings: Settings, wishes: _Wishes, view: View) -> int:
    filters = wishes.filters
    if wishes.since is not None or filters.types is not None or filters.of_meta:
        raise CliError(
            "--view: a fold begins with the first event and takes all of them, so --from, --event,"
            " --actor and --trace do not go with it"
        )
    async with reading(settings, wishes.archive, wishes.epoch) as events:
        span = await chosen_span(events, None, wishes.until)
        with counting("folding", await events.count()) as progress:
            shown = await print_view(events, span, filters, view, progress)
    shown(as_json=wishes.as_json)
    return 0


async def _diff(settings: Settings, wishes: _Wishes, name: str) -> int:
    filters = wishes.filters
    if filters.types is not None or filters.of_meta:
        raise CliError(
            "--diff: tasks are folded whole, so --event, --actor and --trace do not go with it"
        )
    other = load_version(name)
    async with reading(settings, wishes.archive, wishes.epoch) as events:
        span = await chosen_span(events, wishes.since, wishes.until)
        versions = TwoVersions(other, events.history)
        await read_through(events, span, filters, "comparing", versions.take)
    found = versions.found
    if wishes.as_json:
        print_json(found)
    else:
        _print_compared(found)
    return int(found.tasks > 0)


def _print_compared(found: Compared) -> None:
    for each in found.differences:
        print_fields(
            [
                ("task", each.task_id),
                ("parts at", f"{each.position}, {each.type}, version {each.version}"),
                ("  ours", _state(each.ours)),
                ("  theirs", _state(each.theirs)),
            ]
        )
    told = f"{counted(found.tasks, 'task')} not the same" if found.tasks else "the same in both"
    if found.tasks > len(found.differences):
        told += f", of which {len(found.differences)} are shown"
    print_fields([("events", f"{found.events:,}"), ("tasks", told)])


def _state(value: Any) -> str:
    encoded = msgspec.json.encode(value).decode()
    return shortened(encoded, STATE_CHARACTERS_MAX) if on_terminal() else encoded
