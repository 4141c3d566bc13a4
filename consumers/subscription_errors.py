"""What a subscriber may have to deal with; each says what was wrong, where, and what to do."""

from ledger.store import Position


class SubscriptionError(Exception):
    """What a subscription raises."""


class GroupMismatch(SubscriptionError):
    """The group exists, and wants other events."""


class GroupRemoved(SubscriptionError):
    """The group was removed while this member read for it."""


class SubscriptionHalted(SubscriptionError):
    """The group does not go on in a partition until somebody seeks (`ledgerq subscriptions seek`):
    the ledger has not got what the group was reading."""


class LedgerWentBack(SubscriptionHalted):
    """The ledger lost its newest events, or is another one."""


class EventsGone(SubscriptionHalted):
    """Events that the group has not passed were taken away."""


class AckRefused(SubscriptionError):
    """The partition is another member's by now, which is given the event again. Nothing that this
    member still has of the partition can be acknowledged."""

    def __init__(self, position: Position) -> None:
        super().__init__(
            f"the event at {position} cannot be acknowledged: its partition is not this member's"
            " any more, and whoever has it now is given the event again"
        )
        self.position = position

    def __reduce__(self) -> tuple[type["AckRefused"], tuple[Position]]:
        """To go from one process to another."""
        return type(self), (self.position,)
