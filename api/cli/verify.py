"""`ledgerq verify`"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated

import msgspec
from cyclopts import Parameter
from msgspec.structs import replace

from api.cli.archives import archive_settings, find_archive, trusted_keys
from api.cli.failures import CliError, CouldNotCheck, is_clear
from api.cli.flags import AsJson, DataDir, RedisUrl, load_settings
from api.cli.open_ledger import open_ledger
from api.cli.output import counted, print_fields, print_json, printable
from api.cli.progress import counting
from api.cli.witnessed import Seen, last_seen
from consumers.collector import collect_rarely
from ledger.archive.checkpoint import origin_of
from ledger.archive.verify.faults import Faults, Kind, LogReport, Verdict, worst
from ledger.archive.verify.log import LogCheck, Options
from ledger.archive.verify.stream import StreamCheck
from ledger.codec import Undecodable
from ledger.moments import moment_text
from ledger.objects import ObjectStore, ObjectStoreError, open_objects
from ledger.redis_archive import RedisArchive
from ledger.redis_calls import ForeignKey
from ledger.redis_store import RedisStore
from ledger.settings import Settings

EXIT_CODES = {
    Verdict.FINE: 0,
    Verdict.TAMPERED: 1,
    Verdict.INCOMPLETE: 3,
    Verdict.UNCHECKED: CouldNotCheck.exit_code,
}


class Report(msgspec.Struct, frozen=True):
    """What was found of an archive."""

    verdict: Verdict
    epoch: str
    events: int
    keys_given: bool
    """Whether it was verified by keys that were given, and not by the archive's own word."""
    with_ledger: bool
    """Whether it was compared with the ledger."""
    logs: tuple[LogReport, ...]


def verify(
    *,
    archive: Annotated[
        str | None,
        Parameter(
            help="folder or s3://bucket/prefix that holds an archive, to be verified without its"
            " ledger, unless --redis or --data-dir names that too; else the ledger's own is, beside"
            " what the ledger still has"
        ),
    ] = None,
    key: Annotated[
        tuple[str, ...],
        Parameter(
            help="a public key that you trust, from elsewhere than the archive; may be repeated."
            " @FILE: one a line. Without any, the archive's own list is believed"
        ),
    ] = (),
    witness: Annotated[
        tuple[str, ...],
        Parameter(help="public key of a witness that must have cosigned; may be repeated"),
    ] = (),
    witness_url: Annotated[
        tuple[str, ...],
        Parameter(
            help="where one of the witnesses is asked what it has seen last; may be repeated",
        ),
    ] = (),
    epoch: Annotated[
        str | None,
        Parameter(help="of the ledger, where several lie in one archive: the middle of its origin"),
    ] = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    json: AsJson = False,
) -> int:
    """Exit code 0: all is as it was sealed; 1: something was altered, dropped, reordered, truncated
    or forged; 3: something is missing; 4: it could not be checked."""
    try:
        settings = load_settings(redis_url=redis_url, data_dir=data_dir).settings
        if archive is not None:
            settings = archive_settings(settings, archive)
        offline = archive is not None and redis_url is None and data_dir is None
        options = Options(trusted_keys(key), trusted_keys(witness))
        if witness_url and not options.witnesses:
            raise CliError("--witness-url needs --witness too: the key of who answers there")
        collect_rarely()
        report = asyncio.run(_verify(settings, epoch, options, witness_url, offline=offline))
    except Exception as error:
        if isinstance(error, (ObjectStoreError, ForeignKey, Undecodable)) or is_clear(error):
            raise CouldNotCheck(str(error)) from error
        raise
    if json:
        print_json(report)
    else:
        _print(report)
    return EXIT_CODES[report.verdict]


async def _verify(
    settings: Settings,
    epoch: str | None,
    options: Options,
    urls: Sequence[str],
    *,
    offline: bool,
) -> Report:
    async with contextlib.AsyncExitStack() as stack:
        store = None if offline else await stack.enter_async_context(open_ledger(settings))
        objects = await stack.enter_async_context(_opened(settings))
        found = await find_archive(objects, epoch, options.keys, store)
        with counting("verifying", sum(found.sizes.values())) as progress:
            logs: list[LogReport] = []
            for partition in found.partitions:
                faults = Faults()
                seen = await _seen(options, urls, origin_of(found.epoch, partition), faults)
                known = replace(options, seen=tuple(each.point for each in seen))
                stream = None
                if store is not None:
                    stream = _stream(store, partition, faults)
                    known = replace(known, told=await _told_by(store, settings, partition))
                check = LogCheck(objects, found.epoch, partition, known, stream, faults, progress)
                log = await check.run()
                logs.append(replace(log, notices=(*log.notices, *_seen_when(seen))))
    return Report(
        worst([log.verdict for log in logs]),
        found.epoch,
        sum(log.size for log in logs),
        bool(options.keys),
        store is not None,
        tuple(logs),
    )


async def _seen(options: Options, urls: Sequence[str], origin: str, faults: Faults) -> list[Seen]:
    """What the witnesses have seen."""
    found: list[Seen] = []
    for url in urls:
        seen = await last_seen(url, origin, options.witnesses)
        if seen is None:
            faults.add(Kind.MISSING, url, f"it has cosigned no checkpoint of {origin}")
        else:
            found.append(seen)
    return found


def _seen_when(seen: Sequence[Seen]) -> list[str]:
    """An answer of long ago may be one that somebody kept."""
    return [
        f"{by.name} cosigned {counted(each.point.size, 'leaf', 'leaves')}"
        f" last at {moment_text(by.at_s * 1000)}"
        for each in seen
        for by in each.by
    ]


async def _told_by(store: RedisStore, settings: Settings, partition: int) -> tuple[int, bytes]:
    fence = RedisArchive(store.client, store.partitions, settings.redis_timeout_ms)
    sealed = (await fence.view(partition)).sealed
    return sealed.size, bytes.fromhex(sealed.digest)


def _stream(store: RedisStore, partition: int, faults: Faults) -> StreamCheck:
    return StreamCheck(
        partition,
        lambda position, count: store.entries_after(position, count, 0),
        lambda: store.extent(partition),
        faults,
    )


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[ObjectStore]:
    objects = open_objects(settings)
    try:
        yield objects
    finally:
        await objects.close()


def _print(report: Report) -> None:
    for log in report.logs:
        for fault in log.faults:
            print(printable(f"partition {log.partition}: {fault.line}"))
        if log.more_faults:
            print(f"partition {log.partition}: and {log.more_faults:,} more")
    rows = [("ledger", report.epoch), ("signed by", _signers(report))]
    rows += [(f"partition {log.partition}", _told(log)) for log in report.logs]
    rows += [
        ("notice", f"partition {n.partition}: {text}") for n in report.logs for text in n.notices
    ]
    is_empty = report.verdict is Verdict.FINE and not report.events
    verdict = "nothing was sealed yet" if is_empty else _VERDICTS[report.verdict]
    print_fields([*rows, ("verdict", verdict)])


_VERDICTS = {
    Verdict.FINE: "all is as it was sealed",
    Verdict.TAMPERED: "TAMPERED: it is not what was sealed",
    Verdict.INCOMPLETE: "INCOMPLETE: something is missing; the rest is as it was sealed",
    Verdict.UNCHECKED: "COULD NOT CHECK all of it; the rest is as it was sealed",
}


def _signers(report: Report) -> str:
    keys = sorted({key for log in report.logs for key in log.keys})
    if not keys:
        return "nobody"
    word = "" if report.keys_given else " (by the archive's own word: give --key to be sure)"
    return f"{', '.join(keys)}{word}"


def _told(log: LogReport) -> str:
    events, tasks = counted(log.size, "event"), counted(log.tasks, "task")
    parts = [f"{events} of {tasks}, {counted(log.checkpoints, 'checkpoint')}"]
    if log.erased_events:
        erased = counted(log.erased_events, "erased event")
        parts.append(f"{erased} of {counted(log.erased_tasks, 'task')}")
    if log.in_stream or log.not_sealed:
        parts.append(
            f"{log.in_stream:,} in the ledger too, {log.not_sealed:,} there not yet sealed"
        )
    parts += [f"cosigned by {name} up to {size:,}" for name, size in log.witnessed.items()]
    return "; ".join(parts)
