"""`ledgerq rebuild`"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from api.cli.failures import CliError
from api.cli.flags import (
    AsJson,
    DataDir,
    ReadModelDir,
    RedisUrl,
    SkipEvents,
    load_settings,
)
from api.cli.open_ledger import open_events
from api.cli.output import print_fields, print_json
from api.cli.progress import counting
from consumers.collector import collect_rarely
from ledger.settings import Settings
from projections.check import Checked, check
from projections.compare import Compared
from projections.fold import GO_ON_HINT, Poison
from projections.model_files import REBUILD_LOCK, ModelFiles
from projections.read_model import VERSIONS, BrokenProjection, Stopped, read_stopped
from projections.rebuild import Rebuild


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild made."""

    file: str
    events: int
    seconds: float
    events_per_s: int


class CheckedSoFar(Checked, frozen=True, kw_only=True):
    """What a check found, and which projections went no further: with those, only what happened
    before is compared."""

    stopped: Mapping[str, Stopped]


def rebuild(
    projection: Annotated[
        Literal["tasks", "stats", "queues"] | None,
        Parameter(help="the one to look at; a file holds all three, so all are made"),
    ] = None,
    /,
    *,
    check_only: Annotated[
        bool,
        Parameter(
            name="--check",
            help="compare one that is made beside it with the one that serves; exit code 1 when"
            " they differ",
        ),
    ] = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    read_model_dir: ReadModelDir = None,
    skip_events: SkipEvents = None,
    json: AsJson = False,
) -> int:
    """The one that serves does so until the other is level with it, and a running projector goes
    on with that."""
    settings = load_settings(
        redis_url=redis_url,
        data_dir=data_dir,
        read_model_dir=read_model_dir,
        skip_events=skip_events,
    ).settings
    collect_rarely()
    try:
        if check_only:
            projections = list(VERSIONS) if projection is None else [projection]
            found = asyncio.run(_check(settings, projections))
            _print_checked(found, as_json=json)
            return 0 if found.equal else 1
        _print_rebuilt(asyncio.run(_rebuild(settings)), as_json=json)
    except (Poison, BrokenProjection) as error:
        raise CliError(f"{error}; {GO_ON_HINT}") from error
    return 0


async def _rebuild(settings: Settings) -> Rebuilt:
    files, began_s = ModelFiles(settings.read_model_folder), time.monotonic()
    # Nothing is written, not even the lock, before there is a ledger.
    async with open_events(settings) as events:
        with _alone(files), counting("rebuilding", await events.count()) as progress:
            making = Rebuild(files, events, skipped=settings.skip_events, progress=progress)
            try:
                await making.build()
                taken = making.model.events
                path = await making.swap()
            finally:
                making.discard()
    seconds = time.monotonic() - began_s
    return Rebuilt(str(path), taken, round(seconds, 3), round(taken / seconds))


async def _check(settings: Settings, projections: Sequence[str]) -> CheckedSoFar:
    files = ModelFiles(settings.read_model_folder)
    async with open_events(settings) as events:
        with _alone(files), counting("checking", await events.count()) as progress:
            found = await check(
                files,
                events,
                projections=projections,
                skipped=settings.skip_events,
                progress=progress,
            )
            stopped = _stopped(files)
    return CheckedSoFar(
        **msgspec.structs.asdict(found),
        stopped={name: stop for name, stop in stopped.items() if name in projections},
    )


def _stopped(files: ModelFiles) -> Mapping[str, Stopped]:
    path = files.current()
    if path is None:
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as live:
        return read_stopped(live)


@contextlib.contextmanager
def _alone(files: ModelFiles) -> Generator[None]:
    with files.lock(REBUILD_LOCK) as alone:
        if not alone:
            raise CliError(f"another rebuild is under way in {files.folder}: wait for its end")
        yield


def _print_rebuilt(found: Rebuilt, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("read model", str(Path(found.file).absolute())),
            ("events", f"{found.events:,}"),
            ("time", f"{found.seconds:.1f} s, {found.events_per_s:,} events/s"),
        ]
    )


def _print_checked(found: CheckedSoFar, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [("events", f"{found.events:,}, up to {', '.join(found.positions) or 'the beginning'}")]
    rows += [
        (e.projection, _verdict(e, found.stopped.get(e.projection))) for e in found.projections
    ]
    print_fields(rows)
    for each in found.projections:
        if each.difference is not None:
            _print_difference(each)


def _verdict(each: Compared, stopped: Stopped | None) -> str:
    if each.difference is None:
        verdict = f"equal: {each.rows:,} rows, SHA-256 {each.live_sha256}"
    else:
        verdict = f"differs: SHA-256 {each.live_sha256} serves, {each.rebuilt_sha256} is right"
    if stopped is None:
        return verdict
    reason = f"({stopped.reason}); what follows was not compared"
    return f"stopped at {stopped.at} {reason}; up to there {verdict}"


def _print_difference(each: Compared) -> None:
    assert each.difference is not None  # noqa: S101 - the caller looked
    nothing = "no further row"
    print_fields(
        [
            ("first difference", f"{each.projection}, table {each.difference.table}"),
            ("  serves", _row(each.difference.live) or nothing),
            ("  is right", _row(each.difference.rebuilt) or nothing),
        ]
    )


def _row(values: Sequence[object] | None) -> str:
    return "" if values is None else msgspec.json.encode(values).decode()
