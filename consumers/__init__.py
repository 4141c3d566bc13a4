"""What users import: for workers, handlers, their context, and what they say by raising; for other
services, subscriptions to what happens."""

from typing import TYPE_CHECKING, Any

from consumers.classification import PermanentError, RetryLater
from consumers.context import Context
from consumers.files import NoSuchFile, open_file, stream_file
from consumers.handlers import handler
from ledger.retry_policy import RetryPolicy

if TYPE_CHECKING:
    from consumers.subscribed_event import SubscribedEvent
    from consumers.subscription import Subscription, subscribe
    from consumers.subscription_errors import (
        AckRefused,
        EventsGone,
        GroupMismatch,
        GroupRemoved,
        LedgerWentBack,
        SubscriptionError,
        SubscriptionHalted,
    )

__all__ = [
    "AckRefused",
    "Context",
    "EventsGone",
    "GroupMismatch",
    "GroupRemoved",
    "LedgerWentBack",
    "NoSuchFile",
    "PermanentError",
    "RetryLater",
    "RetryPolicy",
    "SubscribedEvent",
    "Subscription",
    "SubscriptionError",
    "SubscriptionHalted",
    "handler",
    "open_file",
    "stream_file",
    "subscribe",
]


def __getattr__(name: str) -> Any:
    """Subscriptions bring the ledger's client with them, which handlers can do without: it is
    imported when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'consumers' has no attribute {name!r}")
    from consumers import subscribed_event, subscription, subscription_errors

    for module in (subscription, subscription_errors, subscribed_event):
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(name)
