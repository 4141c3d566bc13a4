"""One partition, sealed by one archiver for as long as it holds the fence."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from consumers.erasing import Erasing
from consumers.meters import Meter
from consumers.partition_lease import PartitionLease
from consumers.same_ledger import LedgerWentBack, Reached, SameLedger
from consumers.sealing_start import find_start
from consumers.sealing_trouble import SealingTrouble
from consumers.service import backoff_s
from ledger.archive.keys import BadKeyFile, KeyFile
from ledger.archive.reader import Archive, Damaged, Incomplete
from ledger.archive.writer import Cosigners, LogWriter, LostFence, NotSigned
from ledger.codec import Meta, Undecodable
from ledger.events import TaskErased
from ledger.foreign import ForeignEntries
from ledger.objects import ObjectStoreError
from ledger.redis_archive import RedisArchive, Sealed
from ledger.redis_calls import ForeignKey
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection
from ledger.script_format import read_events
from ledger.store import Entry, Position
from ledger.subscriptions import (
    BEGINNING,
    HALT_CHARACTERS_MAX,
    Subscriptions,
    order_of,
)
from ledger.system.commands import RecordArchiveHalted
from ledger.system.transact import transact_system
from projections.catch_up import LedgerCutShort, position_of, read_ahead

log = structlog.get_logger("archiver")

META: Final = Meta(actor="archiver")

READ_WAIT_MS: Final = 500
"""How long a read waits for events: also how soon an idle archiver notices that it should stop."""

LOOK_S: Final = 0.25
"""Between looks whether there are enough events for a checkpoint."""

STAND_BY_S: Final = 2.0
"""Between looks whether another archiver let go of the partition, or somebody lets it go on."""

PUBLISH_AGAIN_S: Final = 10.0
"""Between looks whether a writer that was slow has published an older checkpoint."""

WRITE_OF_LEASE: Final = 0.75
"""Of a lease that was just renewed, the part within which an object must be written."""

SEAL_BYTES: Final = 16 * 1024 * 1024
"""Data of so many bytes is sealed however few events that are: all of it is in memory."""

UNSEALABLE_LOGGED_MAX: Final = 100


class SealingOptions(msgspec.Struct, frozen=True):
    """When what is sealed."""

    seal_events: int = 16_384
    """A checkpoint is due when there are so many events."""
    seal_interval_ms: int = 5_000
    """Or when the first of them has waited for so long."""
    lease_ms: int = 15_000
    settle_ms: int = 0
    """Events that are younger might be lost with the server's next failure."""
    hold_ms: int = 0
    """For so long an erasure waits for subscriptions that have not come to its events."""


class _Making(msgspec.Struct, frozen=True):
    """A checkpoint that is being made, and what is sealed with it, but for the log's size."""

    events: int
    began_s: float
    sealed: Sealed


class SealingHalted(Exception):
    """A partition is not sealed any further until somebody decides."""


TROUBLES: Final = (
    ObjectStoreError,
    Incomplete,
    Damaged,
    NotSigned,
    BadKeyFile,
    ForeignKey,
    Undecodable,
)
"""What keeps a partition from being sealed until it is mended."""


class SealedPartition:
    """`step` again and again, `keep` it every now and then, and `release` it in the end."""

    def __init__(
        self,
        store: RedisStore,
        fence: RedisArchive,
        subscriptions: Subscriptions,
        archive: Archive,
        partition: int,
        key_file: KeyFile,
        owner: str,
        options: SealingOptions,
        *,
        turn: asyncio.Semaphore,
        trouble: SealingTrouble,
        meter: Meter,
        leaves_kept: int,
        cosigners: Cosigners | None = None,
    ) -> None:
        """`turn`: is held while events are in memory."""
        self.partition = partition
        self._store = store
        self._fence = fence
        self._subscriptions = subscriptions
        self._archive = archive
        self._key_file = key_file
        self._options = options
        self._turn = turn
        self._trouble = trouble
        self._meter = meter
        self._leaves_kept = leaves_kept
        self._cosigners = cosigners
        self._stopping = asyncio.Event()
        self._foreign = ForeignEntries()
        self._unsealable = 0
        self._lease = PartitionLease(fence, partition, owner, options.lease_ms)
        self._writer: LogWriter | None = None
        self._reached = Reached(BEGINNING, 0)
        self._making: _Making | None = None
        self._bytes = 0
        self._publish_again_s = 0.0
        self._same = SameLedger(store, subscriptions, partition, archive.epoch)
        self._failures = 0
        self._erasing = Erasing(store, subscriptions, archive, partition, options.hold_ms)

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping.set()

    def held_generation(self) -> int | None:
        """Of the lease; None without one."""
        return self._lease.generation

    async def step(self) -> float:
        """One round of work; seconds until there may be more. Raises Rejection while the ledger is
        out of reach."""
        try:
            pause_s = await self._step()
        except TROUBLES as error:
            await self._drop()
            self._meter.seal_failed()
            self._trouble.met(self.partition, str(error))
            self._failures += 1
            await self.release()
            # Whoever stands by, and may have what this one lacks, comes first.
            return STAND_BY_S + backoff_s(self._failures)
        except LostFence:
            self._lease.forget()
            await self._drop()
            return STAND_BY_S
        except LedgerWentBack as error:
            await self._halt(str(error))
            return STAND_BY_S
        except BaseException:
            await self._drop()
            raise
        self._failures = 0
        return pause_s

    async def keep(self) -> None:
        """Renew the lease. Raises Rejection."""
        await self._lease.keep()

    async def release(self) -> None:
        """Let others have it at once."""
        await self._lease.release()
        await self._drop()

    async def _drop(self) -> None:
        """Begin anew from the last checkpoint, the next time."""
        writer, self._writer, self._making = self._writer, None, None
        if writer is not None:
            await writer.close()

    async def seal_all(self) -> int:
        """Seal everything that there is now, or wait until another one has; how many events are
        sealed then. Raises TROUBLES, LedgerWentBack, SealingHalted, Rejection."""
        end = (await self._subscriptions.ends(self.partition)).last
        while True:
            try:
                if await self._take():
                    await self._erase_all()
                    await self._seal_on()
                    await self._erase_all()
                    writer = await self._opened()
                    await writer.publish_again(self._may_sign)
                    return writer.size
            except LostFence:
                self._lease.forget()
                await self._drop()
            except LedgerWentBack as error:
                await self._halt(str(error))
                raise
            view = await self._fence.view(self.partition)
            if view.halted:
                raise SealingHalted(f"partition {self.partition} is not sealed: {view.halted}")
            if order_of(view.sealed.entry) >= order_of(end):
                return view.sealed.size
            await self._pause(LOOK_S)

    # -- rounds -------------------------------------------------------------------------------

    async def _step(self) -> float:
        if not await self._take():
            return STAND_BY_S
        # First: of what is sealed from now on, it is known whether there is anything to erase.
        await self._erase()
        if await self._due():
            await self._seal_on()
        self._trouble.over(self.partition)
        return 0.0

    async def _erase(self) -> None:
        if self._writer is not None and self._writer.added:
            return  # it is writing
        sealed = (await self._opened()).log
        if await self._erasing.step(self._lease.held.generation, sealed):
            await self._drop()  # it has data at hand that is gone

    async def _erase_all(self) -> None:
        """What can be erased now."""
        await self._erase()
        while not self._erasing.done and not self._erasing.stuck:
            await self._erase()

    async def _take(self) -> bool:
        if self._lease.is_held:
            return True
        if not await self._lease.take():
            return False
        await self._drop()
        self._erasing.forget()
        return True

    async def _due(self) -> bool:
        """Wait for events, until it is time to seal them. False when there are none so far."""
        position = Position(self.partition, self._reached.entry)
        if not await self._store.entries_after(position, 1, READ_WAIT_MS):
            await self._check_if_need_be(await self._opened())
            await self._publish_again(await self._opened())
            return False
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._options.seal_interval_ms / 1_000
        while not self._stopping.is_set() and self._lease.is_held:
            ends = await self._subscriptions.ends(self.partition)
            left_s = due_s - loop.time()
            if left_s <= 0 or ends.added - self._reached.passed >= self._options.seal_events:
                return True
            await self._pause(min(left_s, LOOK_S))
        return False

    async def _publish_again(self, writer: LogWriter) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._publish_again_s:
            self._publish_again_s = now_s + PUBLISH_AGAIN_S
            await writer.publish_again(self._may_sign)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    # -- opening ------------------------------------------------------------------------------

    async def _opened(self) -> LogWriter:
        if self._writer is None:
            hold = self._lease.held
            writer = LogWriter(
                self._archive,
                self.partition,
                self._key_file,
                self._leaves_kept,
                self._cosigners,
                write_s=self._options.lease_ms / 1_000 * WRITE_OF_LEASE,
            )
            await writer.open()
            self._reached = await find_start(
                self._store, self._subscriptions, self.partition, writer, hold
            )
            self._writer, self._bytes = writer, 0
            await self._same.check(writer, self._reached, self._lease.accepted)
            if writer.size != hold.sealed.size:
                reached, digest = self._reached, writer.last_hash.hex()
                told = Sealed(writer.size, reached.entry, digest, reached.passed)
                # An archiver may have been killed before it told what it had sealed behind that.
                end = BEGINNING if writer.last is None else writer.last.position.entry
                await self._lease.tell_sealed(told, went_on=end != hold.accepted)
        return self._writer

    # -- is it the same ledger? ---------------------------------------------------------------

    async def _check_if_need_be(self, writer: LogWriter) -> None:
        await self._same.check_if_need_be(writer, self._reached, self._lease.accepted)

    async def _halt(self, reason: str) -> None:
        try:
            if await self._lease.halt(reason):
                command = RecordArchiveHalted(self.partition, reason[:HALT_CHARACTERS_MAX])
                await transact_system(self._store, command, META)
        except (Rejection, ForeignKey, Undecodable) as error:
            log.warning("archive_halt_unrecorded", partition=self.partition, reason=str(error))
        finally:
            await self._drop()

    # -- sealing ------------------------------------------------------------------------------

    async def _seal_on(self) -> None:
        """Seal everything up to where the partition ends now."""
        ends = await self._subscriptions.ends(self.partition)
        if self._options.settle_ms:
            await asyncio.sleep(self._options.settle_ms / 1_000)
        async with self._turn:
            start = Position(self.partition, self._reached.entry)
            reading = read_ahead(self._store, start, ends.last)
            async with contextlib.aclosing(reading):
                try:
                    async for entries in reading:
                        await self._take_in(entries)
                        if self._stopping.is_set():
                            await self._finish()
                            return
                except LedgerCutShort as error:
                    writer = await self._opened()
                    await self._same.check(writer, self._reached, self._lease.accepted)
                    log.warning("archive_read_cut_short", reason=str(error))
            await self._seal()
            await self._finish()

    async def _take_in(self, entries: Sequence[Entry]) -> None:
        """Add entries, and make checkpoints as they are due: at round numbers of leaves, so that
        tiles are whole."""
        writer, every = await self._opened(), self._options.seal_events
        while entries:
            room = every - writer.base % every - writer.added
            events, foreign = read_events(self.partition, entries[:room])
            for stranger in foreign:
                self._foreign.met(stranger)
            self._erasing.met |= TaskErased.__name__ in {event.type for event in events}
            for left_out in await writer.add(events):
                self._tell_unsealable(str(left_out))
            some = entries[:room]
            last = position_of(self.partition, some[-1]).entry
            self._reached = Reached(last, self._reached.passed + len(some))
            self._bytes += sum([len(event.data) for event in events])
            if writer.added >= every - writer.base % every or self._bytes >= SEAL_BYTES:
                await self._seal()
            entries = entries[room:]

    async def _seal(self) -> None:
        """Begin to make a checkpoint, while more may be read."""
        await self._finish()
        writer, reached = await self._opened(), self._reached
        began_s, events = asyncio.get_running_loop().time(), writer.added
        digest = writer.last_hash.hex()
        self._making = _Making(events, began_s, Sealed(0, reached.entry, digest, reached.passed))
        if events:
            self._bytes = 0
            await writer.begin(self._may_sign)

    async def _finish(self) -> None:
        """Wait for the checkpoint that is being made, and tell how far is sealed."""
        making, self._making = self._making, None
        if making is None:
            return
        writer = await self._opened()
        await writer.finish()
        if making.events:
            took_s = asyncio.get_running_loop().time() - making.began_s
            self._meter.sealed(making.events, took_s)
        sealed = replace(making.sealed, size=writer.size)
        await self._lease.tell_sealed(sealed, went_on=making.events > 0)

    async def _may_sign(self) -> None:
        """All is written. Raises LostFence, LedgerWentBack, Rejection."""
        await self._check_if_need_be(await self._opened())
        await self._lease.keep_or_raise()

    def _tell_unsealable(self, reason: str) -> None:
        self._unsealable += 1
        if self._unsealable <= UNSEALABLE_LOGGED_MAX:
            hint = "it is left out of the archive: none of ours wrote it"
            log.warning("event_unsealable", reason=reason, hint=hint)
