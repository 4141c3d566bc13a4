"""What of each partition may leave the ledger's server now, and what holds it back."""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from consumers.subscription_status import GroupStatus, followers, holder
from ledger.retention import TRIMMED_AGE_MS, ArchiveState, Projection, Retention
from ledger.settings import Settings
from ledger.store import Position
from ledger.subscriptions import Ends, Subscriptions, order_of
from ledger.trimming import Holder, trim_bound

ARCHIVE = "archive"
AGE = "age"
PROJECTION = "read model "
"""What holds back is called so, or as a subscription is."""


class Terms(msgspec.Struct, frozen=True):
    """How long things stay on the server, in ms; 0: for ever."""

    events_ms: int
    tasks_ms: int
    hold_ms: int
    """So old, an event is not held back for anybody."""
    young_ms: int = TRIMMED_AGE_MS
    """No event that is younger is trimmed."""


def terms_of(settings: Settings) -> Terms:
    """As the settings say."""
    return Terms(
        settings.event_retention_s * 1_000,
        settings.task_retention_s * 1_000,
        settings.subscription_hold_s * 1_000,
    )


class ProjectionStatus(msgspec.Struct, frozen=True):
    """A node's read model in one partition."""

    node: str
    told: Projection
    silent: bool
    """It was not heard of for so long that nothing waits for it."""


class Limit(msgspec.Struct, frozen=True):
    """Up to where something may go, and who does not let go of more."""

    up_to: str
    held_by: tuple[str, ...]


class PartitionRetention(msgspec.Struct, frozen=True):
    """One partition."""

    partition: int
    archive: ArchiveState
    ends: Ends
    projections: tuple[ProjectionStatus, ...]
    overdue: tuple[str, ...]
    """Whom trimming does not wait for any more."""
    trim: Limit
    """Entries before it may be trimmed."""
    evict: Limit
    """Finished tasks may be evicted whose last events are not behind it."""

    def waits_for(self, now_ms: int, kept_ms: int) -> tuple[str, ...]:
        """Whom trimming waits for, although events are old enough; nobody while it is in time."""
        by_age = f"{max(now_ms - kept_ms, 0)}-0"
        bound = self.trim.up_to
        if not kept_ms or AGE in self.trim.held_by or order_of(bound) >= order_of(self.ends.last):
            return ()
        # What is behind the bound may be young.
        return self.trim.held_by if order_of(bound) < order_of(by_age) else ()

    def held_ms(self, now_ms: int) -> int:
        """How old the oldest entry is that may not be trimmed: at least so old, the stream is."""
        if self.ends.length == 0 or order_of(self.trim.up_to) > order_of(self.ends.last):
            return 0
        oldest = max(self.trim.up_to, self.ends.first, key=order_of)
        return max(0, now_ms - order_of(oldest)[0])


class RetentionStatus(msgspec.Struct, frozen=True):
    """All of a ledger."""

    now_ms: int
    partitions: tuple[PartitionRetention, ...]
    groups: tuple[GroupStatus, ...]


async def retention_status(
    retention: Retention, subscriptions: Subscriptions, terms: Terms, now_ms: int
) -> RetentionStatus:
    """How things are now. Raises Rejection."""
    following = await followers(subscriptions, terms.hold_ms)
    found = await asyncio.gather(
        *(
            _of_partition(
                retention, subscriptions, terms, now_ms, bound.up_to, bound.held_by, bound.overdue
            )
            for bound in following.bounds
        )
    )
    return RetentionStatus(now_ms, tuple(found), following.groups)


async def _of_partition(
    retention: Retention,
    subscriptions: Subscriptions,
    terms: Terms,
    now_ms: int,
    bound: Position,
    groups: Sequence[str],
    overdue_groups: Sequence[str],
) -> PartitionRetention:
    partition = bound.partition
    told, archive, ends = await asyncio.gather(
        retention.projections(partition),
        retention.archive_state(partition),
        subscriptions.ends(partition),
    )
    projections = tuple(
        ProjectionStatus(node, one, one.at < now_ms - terms.hold_ms)
        for node, one in sorted(told.items())
    )
    oldest_held_ms = now_ms - terms.hold_ms
    holders: list[Holder] = [
        await holder(
            subscriptions,
            partition,
            PROJECTION + one.node,
            one.told.entry,
            ends.last,
            oldest_held_ms,
        )
        for one in projections
        if not one.silent
    ]
    models = trim_bound(partition, ends.last, holders, oldest_held_ms)
    sealed = {(ARCHIVE,): archive.sealed}
    passed = {models.held_by: models.up_to.entry}
    return PartitionRetention(
        partition,
        archive,
        ends,
        projections,
        (*overdue_groups, *models.overdue),
        _limit(
            terms.events_ms,
            now_ms - max(terms.events_ms, terms.young_ms),
            {**sealed, **passed, tuple(groups): bound.entry},
        ),
        _limit(terms.tasks_ms, now_ms - terms.tasks_ms, {**sealed, **passed}),
    )


def _limit(kept_ms: int, cutoff_ms: int, passed: Mapping[tuple[str, ...], str]) -> Limit:
    """The least of these, each with who has got so far. Nothing at all, where all is kept."""
    if not kept_ms:
        return Limit("0-0", (AGE,))
    cutoff = f"{max(cutoff_ms, 0)}-0"
    least = min((cutoff, *passed.values()), key=order_of)
    if order_of(least) == order_of(cutoff):
        return Limit(cutoff, (AGE,))
    names = [name for held_by, entry in passed.items() if entry == least for name in held_by]
    return Limit(least, tuple(names))
