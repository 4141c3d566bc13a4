"""Up to where a partition may be trimmed, and who holds it back."""

from collections.abc import Sequence

import msgspec

from ledger.store import Position
from ledger.subscriptions import order_of


class Holder(msgspec.Struct, frozen=True):
    """A group that has not passed everything."""

    group: str
    passed: str
    """The entry up to which it has."""
    next: str | None
    """The first entry that it has not passed, or one that is no later; None when there is none."""
    foreign: bool = False
    """Somebody made it on the stream itself, with XGROUP."""


class TrimBound(msgspec.Struct, frozen=True):
    """Everything before `up_to` may be taken away (XTRIM MINID), and what stands at it stays."""

    up_to: Position
    held_by: tuple[str, ...]
    """The groups that are furthest behind, and are waited for."""
    overdue: tuple[str, ...]
    """Groups that are not waited for: they have not passed events older than the limit."""


def trim_bound(
    partition: int, last: str, holders: Sequence[Holder], oldest_held_ms: int
) -> TrimBound:
    """Where a partition that ends at `last` may be trimmed.

    A group holds back what it has not passed, but nothing that was written before `oldest_held_ms`:
    what is older may go, and the group is overdue.
    """
    cutoff = f"{max(oldest_held_ms, 0)}-0"
    up_to, held_by, overdue = last, list[str](), list[str]()
    for holder in holders:
        if holder.next is None:
            continue
        late = order_of(holder.next) < order_of(cutoff)
        if late:
            overdue.append(holder.group)
        bound = cutoff if late else holder.passed
        if order_of(bound) < order_of(up_to):
            up_to, held_by = bound, []
        if bound == up_to and not late:
            held_by.append(holder.group)
    return TrimBound(Position(partition, up_to), tuple(held_by), tuple(overdue))
