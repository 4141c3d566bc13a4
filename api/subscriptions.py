"""GET /api/v1/subscriptions: who follows the ledger, and how far behind each is."""

from typing import Annotated

import msgspec
from msgspec import Meta

from api.describe import Answer, Group, operation
from api.exchange import Exchange
from api.scalars import LedgerPosition, Moment
from api.wire import moment_text
from consumers.subscription_status import Followers, GroupStatus, followers
from ledger.codec import encode
from ledger.settings import Settings
from ledger.subscriptions import Filters, Subscriptions

Lag = Annotated[
    Annotated[int, Meta(ge=0)] | None,
    Meta(description="Events still to be passed; null when the server does not know."),
]


class SubscribedPartitionView(msgspec.Struct, frozen=True):
    """How far a group is in one partition."""

    partition: int
    position: Annotated[LedgerPosition, Meta(description="Everything up to it is acknowledged.")]
    lag_events: Lag
    member: Annotated[str | None, Meta(description="Who reads it; null: nobody, or unknown.")]


class FiltersView(msgspec.Struct, frozen=True):
    """What events are wanted; an empty list asks for nothing."""

    types: tuple[str, ...]
    kb_ids: tuple[str, ...]
    task_types: tuple[str, ...]
    task_ids: tuple[str, ...]


class SubscriptionView(msgspec.Struct, frozen=True):
    """One group."""

    group: str
    foreign: Annotated[
        bool, Meta(description="It was made on the streams themselves, with XGROUP.")
    ]
    created_at: Moment | None
    filters: FiltersView | None
    members: tuple[str, ...]
    lag_events: Lag
    overdue: Annotated[
        bool,
        Meta(
            description="It is behind events older than `subscription_hold_s`, for which trimming"
            " does not wait."
        ),
    ]
    halted: Annotated[str | None, Meta(description="Why it does not go on; null: it does.")]
    partitions: tuple[SubscribedPartitionView, ...]


class TrimBoundView(msgspec.Struct, frozen=True):
    """Up to where a partition may be trimmed."""

    partition: int
    up_to: Annotated[LedgerPosition, Meta(description="What stands before it may go.")]
    held_by: Annotated[tuple[str, ...], Meta(description="The groups that are furthest behind.")]


class SubscriptionList(msgspec.Struct, frozen=True):
    """Who follows the ledger."""

    subscriptions: tuple[SubscriptionView, ...]
    trimming: tuple[TrimBoundView, ...]


class SubscriptionLists:
    """The endpoint."""

    def __init__(self, subscriptions: Subscriptions, settings: Settings) -> None:
        self._subscriptions = subscriptions
        self._hold_ms = settings.subscription_hold_s * 1_000

    @operation(
        "listSubscriptions",
        Group.FEED,
        {200: Answer("The subscriptions.", SubscriptionList)},
    )
    async def subscriptions(self, exchange: Exchange) -> None:
        """List who follows the ledger.

        Subscriptions, and consumer groups that others made on the streams themselves: how far each
        is, who reads for it, and up to where it lets the ledger be trimmed.
        """
        exchange.parameters()
        found = await followers(self._subscriptions, self._hold_ms)
        await exchange.respond(200, encode(subscription_list(found)))


def subscription_list(found: Followers) -> SubscriptionList:
    """For a caller."""
    return SubscriptionList(
        tuple(map(_view, found.groups)),
        tuple(
            TrimBoundView(bound.up_to.partition, str(bound.up_to), bound.held_by)
            for bound in found.bounds
        ),
    )


def _view(status: GroupStatus) -> SubscriptionView:
    group = status.group
    return SubscriptionView(
        status.name,
        group is None,
        None if group is None else moment_text(group.created_at),
        None if group is None else _filters(group.filters),
        status.members,
        status.lag_events,
        status.overdue,
        status.halted or None,
        tuple(
            SubscribedPartitionView(
                one.position.partition, str(one.position), one.lag_events, one.member or None
            )
            for one in status.partitions
        ),
    )


def _filters(filters: Filters) -> FiltersView:
    return FiltersView(filters.types, filters.kb_ids, filters.task_types, filters.task_ids)
