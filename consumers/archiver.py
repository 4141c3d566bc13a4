"""The archiver seals the ledger's events in the object store, each partition for itself.

Any number of archivers may run: one at a time seals a partition, the others stand by. The object
store may be away for as long as it likes; nothing but sealing, and what waits for it, waits.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from consumers.cosigning import Cosigners, Witness, witnesses_of
from consumers.meters import Meter
from consumers.retention_status import Terms, terms_of
from consumers.same_ledger import AnotherLedger, LedgerWentBack
from consumers.sealed_partition import (
    TROUBLES,
    SealedPartition,
    SealingHalted,
    SealingOptions,
)
from consumers.sealing_trouble import SealingTrouble
from consumers.service import Outage, Service
from consumers.settling import settle_ms
from consumers.trimming import Trimming
from ledger.archive.keys import KeyFile
from ledger.archive.reader import Archive
from ledger.objects import ObjectStore
from ledger.redis_archive import RedisArchive
from ledger.redis_store import RedisStore
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.rejections import Rejection
from ledger.settings import Settings

log = structlog.get_logger("archiver")

LEAVES_KEPT_MAX: Final = 65_536
"""Tasks whose last leaves one process remembers."""

BEATS_A_LEASE: Final = 3

LEDGER_LOOK_S: Final = 1.0
"""Between looks whether a server without a ledger has one again."""

SEALED_AT_ONCE: Final = 2
"""Partitions whose events are in memory: one is written while another is read."""


CANNOT_SEAL: Final = (*TROUBLES, AnotherLedger, LedgerWentBack, SealingHalted)
"""Why events cannot be sealed now, or until somebody decides."""


class ArchiverOptions(msgspec.Struct, frozen=True):
    """What an archiver goes by."""

    key_file: Path
    sealing: SealingOptions = SealingOptions()
    terms: Terms = Terms(0, 0, 0)
    """When what is sealed leaves the server."""
    timeout_ms: int = 5_000
    witnesses: tuple[Witness, ...] = ()
    witness_timeout_ms: int = 2_000


def archiver_options(settings: Settings) -> ArchiverOptions:
    """As the settings say. Raises SettingsError for a witness whose key is none."""
    sealing = SealingOptions(
        seal_events=settings.archive_seal_events,
        seal_interval_ms=settings.archive_seal_interval_ms,
        lease_ms=settings.archive_lease_ms,
        settle_ms=settle_ms(settings),
        hold_ms=settings.subscription_hold_s * 1_000,
    )
    return ArchiverOptions(
        settings.archive_keys,
        sealing,
        terms_of(settings),
        settings.redis_timeout_ms,
        tuple(witnesses_of(settings)),
        settings.witness_timeout_ms,
    )


class Archiver:
    """A role: `run` until `stop`."""

    def __init__(
        self,
        store: RedisStore,
        objects: ObjectStore,
        options: ArchiverOptions,
        *,
        meter: Meter | None = None,
    ) -> None:
        self._store = store
        self._objects = objects
        self._key_file = KeyFile(options.key_file)
        self._options = options
        self._subscriptions = RedisSubscriptions(store.client, store.partitions, options.timeout_ms)
        self._meter = meter or Meter()
        self._cosigners = Cosigners(
            options.witnesses, options.witness_timeout_ms / 1_000, self._meter
        )
        self._outage = Outage("archiver")
        self._services: list[Service] = []
        self._partitions: list[SealedPartition] = []
        self._stopping = False

    async def run(self) -> None:
        """Raises BadKeyFile when there are no keys, and none can be made."""
        self._make_key()
        try:
            while not self._stopping:
                try:
                    await self._run()
                except* AnotherLedger as errors:
                    log.warning("ledger_replaced", reason=str(errors.exceptions[0]))
        finally:
            await self._close()

    async def _run(self) -> None:
        """On one ledger."""
        archive = self._open(await self._epoch())
        beats, trimming = self._service("lease", self._beat), self._trimming(archive)
        steps = [self._service(f"partition {p.partition}", p.step) for p in self._partitions]
        self._services = [*steps, trimming, beats]
        if self._stopping:
            return
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(each.run()) for each in (beats, trimming)]
                await asyncio.wait([group.create_task(service.run()) for service in steps])
                for task in beside:
                    task.cancel()
        finally:
            await self._release()

    async def seal_once(self) -> int:
        """Seal everything that there is now, or wait until those have who do so already; how many
        events the archive has. Raises CANNOT_SEAL, Rejection."""
        self._make_key()
        try:
            epoch = await self._store.epoch()
            if not epoch:
                raise AnotherLedger("the server holds no ledger any more")
            self._open(epoch)
            return sum(await self._seal_all())
        finally:
            await self._release()
            await self._close()

    async def _seal_all(self) -> list[int]:
        beats = self._service("lease", self._beat)
        try:
            async with asyncio.TaskGroup() as group:
                beating = group.create_task(beats.run())
                sizes = [await each.seal_all() for each in self._partitions]
                beating.cancel()
        except* (*CANNOT_SEAL, Rejection) as errors:
            raise errors.exceptions[0] from None
        return sizes

    async def _release(self) -> None:
        await asyncio.gather(*(each.release() for each in self._partitions))

    async def _close(self) -> None:
        await self._cosigners.close()
        await self._objects.close()

    def stop(self) -> None:
        """What was read and not sealed is sealed by the next one."""
        self._stopping = True
        for partition in self._partitions:
            partition.stop()
        for service in self._services:
            service.stop()

    def _open(self, epoch: str) -> Archive:
        """Be ready for all partitions of a ledger, none of which is taken yet."""
        store, options = self._store, self._options
        fence = RedisArchive(store.client, store.partitions, options.timeout_ms)
        archive = Archive(self._objects, epoch, store.partitions)
        turn, trouble = asyncio.Semaphore(SEALED_AT_ONCE), SealingTrouble()
        self._partitions = [
            SealedPartition(
                store,
                fence,
                self._subscriptions,
                archive,
                partition,
                self._key_file,
                f"{socket.gethostname()}-{os.getpid()}",
                options.sealing,
                turn=turn,
                trouble=trouble,
                meter=self._meter,
                leaves_kept=max(1_024, LEAVES_KEPT_MAX // store.partitions),
                cosigners=self._cosigners if options.witnesses else None,
            )
            for partition in range(store.partitions)
        ]
        return archive

    async def _epoch(self) -> str:
        """Of the ledger, as soon as there is one; empty when it is time to stop."""
        while not self._stopping:
            with contextlib.suppress(Rejection):  # whoever holds the connection has said so
                if epoch := await self._store.epoch():
                    return epoch
            await asyncio.sleep(LEDGER_LOOK_S)
        return ""

    def _trimming(self, archive: Archive) -> Service:
        terms, partitions = self._options.terms, self._partitions
        generations = [each.held_generation for each in partitions]
        trimming = Trimming(
            self._store,
            self._subscriptions,
            archive,
            terms,
            lambda partition: generations[partition](),
            self._meter,
        )
        return trimming.service

    def _make_key(self) -> None:
        if self._key_file.make():
            hint = "keep a copy: without it, nothing more can be added to the archive"
            log.info("archive_key_made", file=str(self._key_file.path), hint=hint)
        if exposed := self._key_file.exposed():
            log.warning("archive_key_exposed", file=str(self._key_file.path), reason=exposed)

    async def _beat(self) -> float:
        await asyncio.gather(*(each.keep() for each in self._partitions))
        return self._options.sealing.lease_ms / 1_000 / BEATS_A_LEASE

    def _service(self, name: str, step: Callable[[], Awaitable[float]]) -> Service:
        return Service(name, step, outage=self._outage)
