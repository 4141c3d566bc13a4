"""How far each partition is sealed, as everybody can see who reads the ledger."""

import asyncio

import msgspec

from ledger.redis_archive import RedisArchive, Sealed
from ledger.subscriptions import Checkpoint, Subscriptions, order_of


class PartitionSealed(msgspec.Struct, frozen=True):
    """One partition."""

    partition: int
    sealed: Sealed
    lag_events: int
    """Entries behind that."""
    unsealed_s: float
    """For how long the first of these has waited."""
    owner: str
    """Who seals it; empty where nobody does."""
    halted: str
    """Why it is not sealed any further; empty where that is not so."""


async def archive_status(
    fence: RedisArchive, subscriptions: Subscriptions
) -> tuple[PartitionSealed, ...]:
    """All partitions. Raises Rejection, ForeignKey, Undecodable."""
    partitions = range(fence.partitions)
    return tuple(await asyncio.gather(*(_status(fence, subscriptions, p) for p in partitions)))


async def _status(
    fence: RedisArchive, subscriptions: Subscriptions, partition: int
) -> PartitionSealed:
    view = await fence.view(partition)
    ends = await subscriptions.ends(partition)
    sealed = view.sealed
    lag = ends.lag(Checkpoint(sealed.entry, "", sealed.passed))
    first = await subscriptions.first_after(partition, sealed.entry) if lag else None
    unsealed_ms = 0 if first is None else max(0, view.now_ms - order_of(first)[0])
    return PartitionSealed(partition, sealed, lag, unsealed_ms / 1_000, view.owner, view.halted)
