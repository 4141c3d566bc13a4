"""The background roles as processes of their own: `python -m consumers.roles worker worker-2`.

Their settings come from the environment alone, where whoever starts them puts every one
(`ledger.settings_sources.to_env`). SIGTERM, SIGINT and a supervisor's word
(`consumers.signals.TOLD_TO_END`) end a role in an orderly way. The second SIGTERM or SIGINT ends it
at once, and what it was working on is taken up by others when its leases run out.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import uvloop
from msgspec.structs import replace

from consumers import logs
from consumers.collector import collect_rarely
from consumers.followers_watch import FollowersWatch
from consumers.handlers import HandlersError
from consumers.liveness import Liveness
from consumers.meter_files import MeterFile
from consumers.meters import Meter
from consumers.notifier import Notifier, NotifierOptions
from consumers.orphans import Orphans, oldest_upload
from consumers.pool import UNUSABLE, end_with_parent
from consumers.programs import NoServer, server_url
from consumers.registered import import_handlers
from consumers.scheduler import OUTAGE_GRACE_S, Scheduler
from consumers.service import Service, backoff_s
from consumers.settling import settle_ms
from consumers.signals import StopSignals
from consumers.signatures import Signer, signing_secrets
from consumers.worker import Worker, WorkerOptions
from ledger.allow_list import AllowList
from ledger.objects import open_objects
from ledger.redis_connection import ServerRefused
from ledger.redis_store import LedgerMismatch, RedisStore, StoreOptions
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.rejections import Rejection
from ledger.settings import Settings
from ledger.settings_sources import SettingsError, load, masked

if TYPE_CHECKING:
    from projections.projector import Projector

log = structlog.get_logger("roles")

SLOW_START_S: Final = 1.0
"""A server that takes longer to answer is worth a line in the log."""


class Role(Protocol):
    """What the processes here run."""

    async def run(self) -> None:
        """Work until `stop`."""
        ...

    def stop(self) -> None:
        """Come to an orderly end."""
        ...


def store_options(settings: Settings) -> StoreOptions:
    """How a process uses the ledger."""
    return StoreOptions(
        partitions=settings.partitions,
        timeout_ms=settings.redis_timeout_ms,
        batch_items_max=settings.append_batch_items_max,
        batch_bytes_max=settings.append_batch_bytes_max,
        queue_items_max=settings.append_queue_items_max,
    )


async def open_store(settings: Settings) -> RedisStore:
    """The ledger, once its server answers: waits for it as long as it takes, and says so once.

    Raises NoServer, LedgerMismatch, and SettingsError for a URL that is none.
    """
    url, options = server_url(settings), store_options(settings)
    loop = asyncio.get_running_loop()
    slow = loop.call_later(SLOW_START_S, lambda: log.info("waiting_for_redis", url=masked(url)))
    failures = 0
    try:
        while True:
            try:
                store = await RedisStore.open(url, options)
            except ValueError as error:
                raise SettingsError([f"redis_url: {error}"]) from error
            except Rejection as rejection:
                failures += 1
                if failures == 1:
                    log.warning("redis_out_of_reach", url=masked(url), reason=rejection.message)
                await asyncio.sleep(backoff_s(failures))
            else:
                if failures:
                    log.info("redis_reached", url=masked(url))
                return store
    finally:
        slow.cancel()


async def run_role(
    settings: Settings,
    make: Callable[[RedisStore], Role],
    *,
    meter: Meter | None = None,
    line: Liveness | None = None,
) -> None:
    """Open the ledger and run a role on it, until a signal says to stop. Raises as `open_store`.

    `meter` is what the role measures with; on `line` the supervisor hears that the process moves.
    """
    signals = StopSignals()
    opening = asyncio.create_task(open_store(settings))
    signals.call(opening.cancel)
    try:
        store = await opening
    except asyncio.CancelledError:
        return  # there was nothing to come to an end yet
    # Not before: one that this ledger refuses has never lived (`consumers.pool.UNUSABLE`).
    telling = asyncio.create_task((line or Liveness()).tell())
    try:
        role = make(store)
        signals.call(role.stop)
        async with measured(store, settings, meter or Meter()):
            await role.run()
    finally:
        telling.cancel()
        await store.close()


@contextlib.asynccontextmanager
async def measured(store: RedisStore, settings: Settings, meter: Meter) -> AsyncGenerator[None]:
    """Tell /metrics of what is measured within, appends above all, where this node has a data
    directory."""
    kept = _meter_file(store, settings, meter)
    if kept is None:
        yield
        return
    kept.start()
    try:
        yield
    finally:
        await kept.close()


def _meter_file(store: RedisStore, settings: Settings, meter: Meter) -> MeterFile | None:
    if not Path(settings.data_dir).is_dir():
        return None
    store.on_append = meter.append
    return MeterFile(meter, settings.metrics_folder)


def make_worker(
    settings: Settings, meter: Meter | None = None, on_leaving: Callable[[str], None] | None = None
) -> Callable[[RedisStore], Role]:
    """Raises HandlersError when the handlers' module cannot be used."""
    handlers = import_handlers(settings.handlers)
    options = WorkerOptions(
        concurrency=settings.concurrency,
        lease_ms=settings.lease_ms,
        heartbeat_ms=settings.beat_ms,
        pending_idle_ms=settings.pending_idle_ms,
        drain_timeout_ms=settings.drain_timeout_ms,
        result_bytes_max=settings.result_bytes_max,
        loop_blocked_ms=settings.loop_blocked_ms,
        max_memory_mib=settings.max_memory_mib,
        max_tasks=settings.max_tasks,
        retry=settings.retry_policy,
    )
    return lambda store: Worker(
        store,
        handlers,
        options,
        module=settings.handlers,
        meter=meter,
        on_leaving=on_leaving,
    )


class SchedulingRole:
    """A scheduler, and the sweep for broken uploads beside it, which a stop does not wait for."""

    def __init__(self, scheduler: Scheduler, orphans: Orphans) -> None:
        self._service = scheduler.service
        self._orphans = orphans.service

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            sweeping = group.create_task(self._orphans.run())
            await self._service.run()
            sweeping.cancel()

    def stop(self) -> None:
        self._service.stop()


def make_scheduler(settings: Settings, meter: Meter | None = None) -> Callable[[RedisStore], Role]:
    """Needs the ledger, and the object store."""
    objects = open_objects(settings)

    def make(store: RedisStore) -> Role:
        # Not above: no worker needs it.
        from ledger.archive.evicted import EvictedTasks
        from ledger.archive.reader import Archive

        # A file of a task that was evicted is no orphan.
        store.past = EvictedTasks(Archive(objects, "", store.partitions), store.epoch)
        subscriptions = RedisSubscriptions(
            store.client, store.partitions, settings.redis_timeout_ms
        )
        scheduler = Scheduler(
            store,
            sweep_interval_ms=settings.sweep_interval_ms,
            outage_grace_s=max(OUTAGE_GRACE_S, 3 * settings.beat_ms / 1000),
            beat_s=settings.beat_ms / 1000,
            retry=settings.retry_policy,
            followers=FollowersWatch(subscriptions, settings.subscription_hold_s * 1_000),
        )
        older_than = oldest_upload(settings)
        orphans = Orphans(store, objects, meter or Meter(), older_than=older_than)
        return SchedulingRole(scheduler, orphans)

    return make


class FollowingRole:
    """A projector with the life of a role."""

    def __init__(self, projector: "Projector") -> None:
        self._projector = projector
        self._service = Service("projector", projector.step)

    async def run(self) -> None:
        try:
            await self._service.run()
        finally:
            await self._projector.close()

    def stop(self) -> None:
        self._service.stop()
        self._projector.interrupt()


def make_projector(settings: Settings, _: Meter | None = None) -> Callable[[RedisStore], Role]:
    """Needs a folder of its own beside the ledger."""
    # Not above: no worker needs them.
    from ledger.archive.joined import Joined
    from ledger.archive.reader import Archive
    from projections.projector import Projector, ProjectorOptions

    options = ProjectorOptions(
        settings.read_model_folder,
        settings.skip_events,
        settings.read_model_retention_s * 1_000,
    )

    def make(store: RedisStore) -> Role:
        events = Joined(store, Archive(open_objects(settings), "", store.partitions))
        return FollowingRole(Projector(store, options, events, store))

    return make


def make_notifier(settings: Settings, meter: Meter | None = None) -> Callable[[RedisStore], Role]:
    """Needs keys to sign with beside the ledger. What it gives raises SettingsError when there are
    none."""
    allowed = AllowList(settings.callback_hosts)
    options = NotifierOptions(
        concurrency=settings.callback_concurrency,
        host_concurrency=settings.callback_host_concurrency,
        timeout_ms=settings.callback_timeout_ms,
        lease_ms=settings.callback_timeout_ms + 2 * settings.redis_timeout_ms,
        settle_ms=settle_ms(settings),
        policy=settings.callback_policy,
        lasts_ms=settings.callback_retry_s * 1_000,
    )

    def make(store: RedisStore) -> Role:
        signer = Signer(signing_secrets(settings))
        return Notifier(store, signer, allowed, options, meter=meter)

    return make


def make_archiver(settings: Settings, meter: Meter | None = None) -> Callable[[RedisStore], Role]:
    """Needs the object store, and keys to sign with beside the ledger. What it gives raises
    BadKeyFile when there are none and none can be made."""
    # Not above: no worker needs it.
    from consumers.archiver import Archiver, archiver_options

    objects, options = open_objects(settings), archiver_options(settings)
    return lambda store: Archiver(store, objects, options, meter=meter)


ROLES: Final[Mapping[str, Callable[[Settings, Meter], Callable[[RedisStore], Role]]]] = {
    "scheduler": make_scheduler,
    "projector": make_projector,
    "notifier": make_notifier,
    "archiver": make_archiver,
}


def run_reported(name: str, run: Callable[[Settings], object]) -> int:
    """Run a role on the settings of the environment; its exit code. `name` stands in its log.

    What makes it impossible to run is one line on standard error, and UNUSABLE.
    """
    try:
        settings = load({}, os.environ, None).settings
        logs.configure(settings, name)
        run(settings)
    except (SettingsError, HandlersError, LedgerMismatch, ServerRefused, NoServer) as error:
        sys.stderr.write(f"ledgerq {name}: {error}\n")
        return UNUSABLE
    return 0


def main() -> int:
    """`python -m consumers.roles ROLE NAME [NUMBER LIVENESS]`; the exit code. NUMBER is the
    process's own among those of its kind, the first being 1; LIVENESS the descriptor that its
    supervisor listens on."""
    _, role, name, *supervised = sys.argv
    number, line = 1, Liveness()
    if supervised:
        number, line = int(supervised[0]), Liveness(int(supervised[1]))
    end_with_parent()

    def run(settings: Settings) -> None:
        meter = Meter()
        if role == "worker":
            own = replace(settings, concurrency=settings.concurrency_of(number))
            make = make_worker(own, meter, line.leave)
        else:
            make = ROLES[role](settings, meter)
        collect_rarely()
        uvloop.run(run_role(settings, make, meter=meter, line=line))

    return run_reported(name, run)


if __name__ == "__main__":
    sys.exit(main())
