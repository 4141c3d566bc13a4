"""`ledgerq archiver`, and its `key`, `rotate-key` and `go-on`."""

import asyncio
from typing import Annotated

import uvloop
from cyclopts import App, Parameter

from api.cli.failures import CliError
from api.cli.flags import AsJson, DataDir, Format, KeyFile, Level, RedisUrl, load_settings
from api.cli.open_ledger import open_ledger
from api.cli.output import counted, print_json
from consumers import logs
from consumers.archiver import CANNOT_SEAL, Archiver, archiver_options
from consumers.meters import Meter
from consumers.never_sealed import NeverSealed, never_sealed
from consumers.roles import make_archiver, run_role
from consumers.sealing_start import is_some_lost
from ledger.archive import keys as key_files
from ledger.archive.checkpoint import origin_of
from ledger.archive.notes import Verifier
from ledger.archive.reader import Archive, SealedLog
from ledger.objects import open_objects
from ledger.redis_archive import RedisArchive
from ledger.redis_store import RedisStore
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.retention import FORGOTTEN
from ledger.settings import Settings
from ledger.store import Position
from ledger.subscriptions import BEGINNING, Checkpoint, order_of

app = App(
    name="archiver",
    help="Seal the ledger's events in the archive, signed, for good.",
    help_format="plaintext",
    help_epilogue="Examples:\n  ledgerq archiver --redis redis://localhost:6379/0"
    "\n  ledgerq archiver --once --data-dir .ledgerq"
    "\n  ledgerq archiver key"
    "\n  ledgerq archiver rotate-key"
    "\n  ledgerq archiver go-on 0",
    default_parameter=Parameter(negative=(), show_default=False),
    result_action="return_value",
)


@app.default
def archiver(
    *,
    once: Annotated[
        bool, Parameter(help="seal everything that there is now, and end", negative=())
    ] = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    archive_key_file: KeyFile = None,
    log_level: Level = None,
    log_format: Format = None,
) -> None:
    """It signs with the key in the data directory, where it makes one if need be. Any number of
    archivers may run, with the same keys: one at a time seals a partition."""
    flags = {name: value for name, value in locals().items() if name != "once"}
    settings = load_settings(**flags).settings
    logs.configure(settings, "archiver")
    if once:
        asyncio.run(_once(settings))
        return
    meter = Meter()
    uvloop.run(run_role(settings, make_archiver(settings, meter), meter=meter))


async def _once(settings: Settings) -> None:
    async with open_ledger(settings) as store:
        archiver = Archiver(store, open_objects(settings), archiver_options(settings))
        try:
            events = await archiver.seal_once()
        except CANNOT_SEAL as error:
            raise CliError(str(error)) from error
    print(f"{counted(events, 'event')} {'is' if events == 1 else 'are'} sealed")


@app.command(
    name="key",
    help="Print the public keys that the archive is signed with, for whoever checks it.",
    help_epilogue="Examples:\n  ledgerq archiver key\n  ledgerq archiver key --json",
)
def key(
    *,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    archive_key_file: KeyFile = None,
    json: AsJson = False,
) -> None:
    """One for each partition's log: the same key, under the log's name."""
    settings = load_settings(**{n: v for n, v in locals().items() if n != "json"}).settings
    _print_keys(settings, as_json=json)


@app.command(
    name="rotate-key",
    help="Make a new key, which signs from now on; the one before introduces it.",
    help_epilogue="Example:\n  ledgerq archiver rotate-key",
)
def rotate_key(
    *,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    archive_key_file: KeyFile = None,
    json: AsJson = False,
) -> None:
    """A running archiver takes it up with its next checkpoint. Other archivers need the new file
    too. Whoever trusts an older key comes to trust this one, since the log says which one replaced
    which."""
    settings = load_settings(**{n: v for n, v in locals().items() if n != "json"}).settings
    key_files.KeyFile(settings.archive_keys).rotate()
    _print_keys(settings, as_json=json)


@app.command(
    name="go-on",
    help="Seal a partition on that was halted, when you know what became of its ledger.",
    help_epilogue="Examples:\n  ledgerq archiver go-on 0\n  ledgerq archiver go-on 0 --drop",
)
def go_on(
    partition: Annotated[int, Parameter(help="number of the partition")],
    /,
    *,
    drop: Annotated[
        bool,
        Parameter(
            help="also where the ledger has other events than the archive, before the archive's"
            " end: they are never sealed, and trimmed when they are old enough",
            negative=(),
        ),
    ] = False,
    forget: Annotated[
        bool,
        Parameter(
            help="also where finished tasks left the server that the archive has not got: what no"
            " read model has of them is gone, and their Idempotency-Keys make new tasks",
            negative=(),
        ),
    ] = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """The archive keeps what the ledger has lost; what happened since follows upon it, and
    `ledgerq verify` tells of the rift for ever."""
    settings = load_settings(redis_url=redis_url, data_dir=data_dir).settings
    print(asyncio.run(_go_on(settings, partition, drop=drop, forget=forget)))


async def _go_on(settings: Settings, partition: int, *, drop: bool, forget: bool) -> str:
    objects = open_objects(settings)
    async with open_ledger(settings) as store:
        fence = RedisArchive(store.client, store.partitions, settings.redis_timeout_ms)
        if not 0 <= partition < store.partitions:
            raise CliError(f"expected a partition from 0 to {store.partitions - 1}")
        if not (await fence.view(partition)).halted:
            raise CliError(f"partition {partition} is not halted")
        try:
            log = await Archive(objects, await store.epoch(), store.partitions).log(partition)
            last = None if log is None else await log.leaf(log.size - 1)
            lost = NeverSealed() if log is None else await never_sealed(store, log)
        except CANNOT_SEAL as error:
            raise CliError(str(error)) from error
        finally:
            await objects.close()
        entry = BEGINNING if last is None else last.position.entry
        if lost.count and not drop:
            raise CliError(
                f"the ledger has events that the archive has not, before the archive's end at"
                f" {partition}:{entry}: {lost.count:,}, from {lost.first} to {lost.last}. They"
                " would never be sealed, and be trimmed: keep them elsewhere (read the stream, or"
                " a copy of the server's data), then say --drop"
            )
        evicted = await _evicted_once_lost(settings, store, log, Position(partition, entry))
        if evicted and not forget:
            raise CliError(
                "finished tasks left the server that were sealed behind the archive's end at"
                f" {partition}:{entry}: what no read model has of them would be gone, and their"
                " Idempotency-Keys make new tasks. Put the archive back that has them, or say"
                " --forget"
            )
        await fence.go_on(partition, entry, evicted)
    return f"partition {partition} goes on after {partition}:{entry}"


async def _evicted_once_lost(
    settings: Settings, store: RedisStore, log: SealedLog | None, end: Position
) -> str:
    """Up to where tasks were let go of, as it is to be known once those are given up of which
    neither the stream nor the archive at hand, which ends at `end`, has all; empty where there are
    none."""
    partition = end.partition
    evicted = (await store.archive_state(partition)).evicted
    fence = RedisArchive(store.client, store.partitions, settings.redis_timeout_ms)
    subscriptions = RedisSubscriptions(store.client, store.partitions, settings.redis_timeout_ms)
    told, ends = (await fence.view(partition)).sealed, await subscriptions.ends(partition)
    size = 0 if log is None else log.size
    if order_of(evicted) <= end.order:
        return ""
    if not ends.lost_after(Checkpoint(end.entry, "", 0)) and not (
        told.size > size and await is_some_lost(store, ends, end, size, told)
    ):
        return ""
    last = await store.last_position(partition)
    if last.order > end.order:
        # Of others that were let go of, the stream has the events: no key of theirs is free before
        # those are sealed again.
        return min(evicted, last.entry, key=order_of)
    return max(end.entry, FORGOTTEN, key=order_of)


def _print_keys(settings: Settings, *, as_json: bool) -> None:
    keys = key_files.KeyFile(settings.archive_keys).keys()
    epoch, partitions = asyncio.run(_ledger(settings))
    by_partition = [keys.verifiers(origin_of(epoch, p)) for p in range(partitions)]
    if as_json:
        print_json([_as_json(p, verifiers) for p, verifiers in enumerate(by_partition)])
        return
    for verifiers in by_partition:
        print(verifiers[-1].vkey)


def _as_json(partition: int, verifiers: list[Verifier]) -> dict[str, object]:
    *older, newest = [verifier.vkey for verifier in verifiers]
    return {"partition": partition, "key": newest, "replaced": older}


async def _ledger(settings: Settings) -> tuple[str, int]:
    async with open_ledger(settings) as store:
        return await store.epoch(), store.partitions
