"""Lets go of what the archive has: old events leave the streams, and finished tasks the memory.

Runs beside the archiver, under its lease. The archive's own log says what there is to let go of: a
task's last event is met when it is old enough, and the task is as it left it, or a later event of
it will be met. So each event is looked at once, and nothing is searched for.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from consumers.meters import Meter
from consumers.retention_status import (
    PartitionRetention,
    RetentionStatus,
    Terms,
    retention_status,
)
from consumers.service import Service
from ledger.archive.reader import Archive, Damaged, Incomplete, SealedLog
from ledger.archive.tiles import TILE_WIDTH
from ledger.codec import Undecodable
from ledger.identity import SYSTEM
from ledger.objects import ObjectStoreError
from ledger.redis_calls import ForeignKey
from ledger.retention import BEGINNING, Ended, Retention
from ledger.store import Position
from ledger.subscriptions import Subscriptions, entry_before, order_of

log = structlog.get_logger("trimming")

EVERY_S: Final = 5.0
"""Between looks, when there is nothing more to let go of now."""

TRIM_ENTRIES: Final = 1_000
TRIM_CALLS: Final = 20
"""Entries that go in one call, for as long as the server is held up, and calls in a row."""

CHECK_BUNDLES: Final = 40
EVICT_BUNDLES: Final = 40
"""Of 256 events each, read once more before they go, or looked at, in a row."""

RESTORED_KEPT_MS: Final = 10 * 60_000
"""A task that was put back, so that something may happen to it, goes again after so long."""

FORGOTTEN_HOLDS: Final = 4
"""A read model that was silent for so many times as long as it is waited for is forgotten."""

RESTORED_MAX: Final = 200
"""Of those, looked at in one step."""


class Clocked(Retention, Protocol):
    """A Retention that tells the time."""

    def now_ms(self) -> int: ...


class Trimming:
    """A role: `service.run()`, to be stopped whenever one likes."""

    def __init__(
        self,
        store: Clocked,
        subscriptions: Subscriptions,
        archive: Archive,
        terms: Terms,
        generation_of: Callable[[int], int | None],
        meter: Meter,
    ) -> None:
        """`generation_of`: the archiver's lease on a partition, None while it has none."""
        self._store = store
        self._subscriptions = subscriptions
        self._archive = archive
        self._terms = terms
        self._generation_of = generation_of
        self._meter = meter
        self._said: tuple[str | int, ...] = ()
        self.service = Service("trimming", self.step)

    async def step(self) -> float:
        """Let go of some; seconds until there may be more."""
        if not (self._terms.events_ms or self._terms.tasks_ms):
            return EVERY_S
        try:
            return await self._step()
        except (ForeignKey, Undecodable) as error:
            # Somebody has to mend it; sealing goes on meanwhile.
            self._say_once("retention_unreadable", reason=str(error))
            return EVERY_S

    async def _step(self) -> float:
        now_ms = self._store.now_ms()
        status = await retention_status(self._store, self._subscriptions, self._terms, now_ms)
        await self._forget_silent(status)
        more = False
        for partition in status.partitions:
            generation = self._generation_of(partition.partition)
            if generation is not None and generation == partition.archive.generation:
                more |= await self._let_go(partition, generation, now_ms)
        return 0.0 if more else EVERY_S

    async def _let_go(self, found: PartitionRetention, generation: int, now_ms: int) -> bool:
        """Whether there is more to let go of."""
        if found.archive.halted or found.archive.sealed == BEGINNING:
            return False
        try:
            sealed = await self._archive.log(found.partition)
            if sealed is None:
                raise Incomplete(f"the checkpoint of partition {found.partition}")
            more = await self._trim(found, sealed, generation)
            return await self._evict(found, sealed, generation, now_ms) or more
        except (ObjectStoreError, Damaged, Incomplete) as error:
            # What cannot be read is not relied upon.
            self._meter.retention_failed()
            self._say_once("archive_unreadable", partition=found.partition, reason=str(error))
            return False

    async def _forget_silent(self, status: RetentionStatus) -> None:
        """Those read models that nothing has waited for, for long."""
        gone_ms = status.now_ms - FORGOTTEN_HOLDS * self._terms.hold_ms
        found = {
            each.node
            for partition in status.partitions
            for each in partition.projections
            if each.silent and each.told.at < gone_ms
        }
        for node in found:
            await self._store.forget_projection(node)
            log.info("read_model_forgotten", node=node)

    def _say_once(self, event: str, **details: str | int) -> None:
        """Until something else is said."""
        said = (event, *details.values())
        if self._said != said:
            self._said = said
            log.error(event, **details)

    # -- events -------------------------------------------------------------------------------

    async def _trim(self, found: PartitionRetention, sealed: SealedLog, generation: int) -> bool:
        # The last event that is sealed stays in the stream: it says where a partition is.
        up_to = min(found.trim.up_to, sealed.checkpoint.last or BEGINNING, key=order_of)
        if order_of(found.ends.first) >= order_of(up_to):
            return False
        checked = await self._checked(found, sealed, up_to)
        for _ in range(TRIM_CALLS):
            gone = await self._store.trim(found.partition, generation, checked, TRIM_ENTRIES)
            if not gone:
                return gone is not None and checked != up_to
            self._meter.let_go(events=gone)
            await asyncio.sleep(0)
        return True

    async def _checked(self, found: PartitionRetention, sealed: SealedLog, up_to: str) -> str:
        """Read once more what is to leave the stream, or the first of it, past every cache: it was
        there when it was sealed, and may have been lost since. Up to where it is all there. Raises
        ObjectStoreError, Damaged, Incomplete."""
        partition, ours = found.partition, self._archive
        first = await sealed.index_after(Position(partition, entry_before(found.ends.first)))
        end = await sealed.index_after(Position(partition, entry_before(up_to)))
        reached = min(end, (first // TILE_WIDTH + CHECK_BUNDLES) * TILE_WIDTH)
        fresh = Archive(ours.objects, ours.epoch, ours.partitions, cache_bytes=0)
        log_now = fresh.log_at(partition, sealed.note, sealed.checkpoint)
        async for _ in log_now.events(first, reached):
            await asyncio.sleep(0)
        if reached == end:
            return up_to
        return (await log_now.leaf(reached)).position.entry

    # -- tasks --------------------------------------------------------------------------------

    async def _evict(
        self, found: PartitionRetention, sealed: SealedLog, generation: int, now_ms: int
    ) -> bool:
        if not self._terms.tasks_ms:
            return False
        await self._evict_restored(found, generation, now_ms)
        up_to = order_of(found.evict.up_to)
        if order_of(found.archive.evicted) >= up_to:
            return False
        looked = await _looked(found, sealed)
        for _ in range(EVICT_BUNDLES):
            if looked >= sealed.size:
                return False
            number, first = looked // TILE_WIDTH, looked % TILE_WIDTH
            leaves = [
                await sealed.leaf(number * TILE_WIDTH + at)
                for at in range(first, len(await sealed.entries(number)))
            ]
            old = [leaf for leaf in leaves if leaf.position.order <= up_to]
            if not old:
                return False
            looked += len(old)
            last = {
                leaf.task_id: Ended(leaf.task_id, leaf.version, leaf.position.entry)
                for leaf in old
                if leaf.task_id != SYSTEM
            }
            reached = old[-1].position.entry
            if not await self._evict_these(found, generation, reached, looked, [*last.values()]):
                return False
            if len(old) < len(leaves):
                return False
        return True

    async def _evict_these(
        self,
        found: PartitionRetention,
        generation: int,
        reached: str,
        looked: int,
        ended: Sequence[Ended],
    ) -> bool:
        """Whether the lease still holds."""
        gone = await self._store.evict(found.partition, generation, reached, looked, list(ended))
        if gone:
            self._meter.let_go(tasks=gone)
        return gone is not None

    async def _evict_restored(
        self, found: PartitionRetention, generation: int, now_ms: int
    ) -> None:
        partition, state = found.partition, found.archive
        before_ms = now_ms - RESTORED_KEPT_MS
        restored = await self._store.restored(partition, before_ms, RESTORED_MAX)
        if restored and await self._evict_these(
            found, generation, state.evicted, state.looked, restored
        ):
            await self._store.forget_restored(partition, restored)


async def _looked(found: PartitionRetention, sealed: SealedLog) -> int:
    """How many leaves were looked at: those up to where tasks were let go of. An archive that was
    begun anew, since the one before was lost, may have fewer up to there."""
    looked, evicted = found.archive.looked, found.archive.evicted
    if evicted == BEGINNING:
        return 0
    if 0 < looked <= sealed.size and (await sealed.leaf(looked - 1)).position.entry == evicted:
        return looked
    return await sealed.index_after(Position(found.partition, evicted))
