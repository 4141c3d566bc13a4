"""Who follows the ledger, how far each is behind, and what they hold back."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ledger.store import Position
from ledger.subscriptions import (
    ForeignGroup,
    Group,
    PartitionView,
    Reading,
    Subscriptions,
    entry_after,
    order_of,
)
from ledger.trimming import Holder, TrimBound, trim_bound


class PartitionStatus(msgspec.Struct, frozen=True):
    """One group in one partition."""

    position: Position
    """Everything up to it was acknowledged."""
    lag_events: int | None
    """Entries behind it; None when the server does not know."""
    member: str
    """Who reads it; empty where nobody does, or the server does not say."""
    halted: str = ""
    """Why the group does not go on there."""


class GroupStatus(msgspec.Struct, frozen=True):
    """One group."""

    name: str
    group: Group | None
    """None: somebody made it on the streams themselves, with XGROUP."""
    members: tuple[str, ...]
    partitions: tuple[PartitionStatus, ...]
    overdue: bool
    """It is behind events so old that trimming does not wait for it."""

    @property
    def lag_events(self) -> int | None:
        """Over all partitions."""
        lags = [one.lag_events for one in self.partitions]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    @property
    def halted(self) -> str:
        """Why it does not go on in one of them."""
        return next((one.halted for one in self.partitions if one.halted), "")


class Followers(msgspec.Struct, frozen=True):
    """All groups, by name; and for each partition up to where it may be trimmed."""

    groups: tuple[GroupStatus, ...]
    bounds: tuple[TrimBound, ...]


async def followers(subscriptions: Subscriptions, hold_ms: int) -> Followers:
    """Who follows the ledger now. `hold_ms`: so old, an event is not held back for anybody.

    Raises Rejection.
    """
    partitions = range(subscriptions.partitions)
    groups = await subscriptions.groups()
    views = await asyncio.gather(*(subscriptions.view(p) for p in partitions))
    holders = await asyncio.gather(
        *(_holders(subscriptions, p, groups, views[p], hold_ms) for p in partitions)
    )
    bounds = tuple(
        trim_bound(p, views[p].ends.last, holders[p], views[p].now_ms - hold_ms) for p in partitions
    )
    overdue = {name for bound in bounds for name in bound.overdue}
    members = await asyncio.gather(*map(subscriptions.members, groups))
    found = [
        *_registered(groups, views, members, overdue),
        *_foreign(views, overdue),
    ]
    return Followers(tuple(sorted(found, key=lambda status: status.name)), bounds)


async def trim_bounds(subscriptions: Subscriptions, hold_ms: int) -> tuple[TrimBound, ...]:
    """For each partition, up to where it may be trimmed, and who holds it back. Whoever trims asks
    anew each time. Raises Rejection."""
    return (await followers(subscriptions, hold_ms)).bounds


def _reading(group: Group, name: str, partition: int, view: PartitionView) -> Reading:
    """Where the group is; before anybody read for it, where it begins."""
    return view.readings.get(group.tag(name)) or Reading(group.starts[partition])


async def _holders(
    subscriptions: Subscriptions,
    partition: int,
    groups: Mapping[str, Group],
    view: PartitionView,
    hold_ms: int,
) -> list[Holder]:
    passed = [
        (name, _reading(group, name, partition, view).checkpoint.entry, False)
        for name, group in groups.items()
    ]
    passed += [(_foreign_name(foreign), foreign.passed, True) for foreign in view.foreign]
    oldest_held_ms = view.now_ms - hold_ms
    return [
        await holder(subscriptions, partition, name, entry, view.ends.last, oldest_held_ms, foreign)
        for name, entry, foreign in passed
    ]


async def holder(
    subscriptions: Subscriptions,
    partition: int,
    name: str,
    passed: str,
    last: str,
    oldest_held_ms: int,
    foreign: bool = False,
) -> Holder:
    """Who has passed `passed`, in a partition that ends at `last`. Raises Rejection."""
    following = None
    if order_of(passed) < order_of(last):
        following = entry_after(passed)
        if order_of(passed)[0] < oldest_held_ms:
            following = await subscriptions.first_after(partition, passed)
    return Holder(name, passed, following, foreign)


def _registered(
    groups: Mapping[str, Group],
    views: Sequence[PartitionView],
    members: Sequence[Sequence[str]],
    overdue: set[str],
) -> Iterator[GroupStatus]:
    for (name, group), there in zip(groups.items(), members, strict=True):
        readings = [_reading(group, name, p, view) for p, view in enumerate(views)]
        partitions = tuple(
            PartitionStatus(
                Position(p, one.checkpoint.entry),
                views[p].ends.lag(one.checkpoint),
                one.owner,
                one.halted,
            )
            for p, one in enumerate(readings)
        )
        yield GroupStatus(name, group, tuple(there), partitions, name in overdue)


def _foreign(views: Sequence[PartitionView], overdue: set[str]) -> Iterator[GroupStatus]:
    by_name: dict[str, list[tuple[int, ForeignGroup]]] = {}
    for partition, view in enumerate(views):
        for group in view.foreign:
            by_name.setdefault(_foreign_name(group), []).append((partition, group))
    for name, found in by_name.items():
        partitions = tuple(
            PartitionStatus(
                Position(partition, group.passed),
                None if group.lag is None else group.lag + group.pending,
                "",
            )
            for partition, group in found
        )
        yield GroupStatus(name, None, (), partitions, name in overdue)


def _foreign_name(group: ForeignGroup) -> str:
    """None of ours can be called so."""
    return f"XGROUP {group.name}"
