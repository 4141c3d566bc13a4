"""An event as a subscriber gets it, and which events it gets."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec

from consumers.known_tasks import Facts
from ledger.events import Event
from ledger.store import Position, Recorded
from ledger.subscriptions import Filters
from ledger.system.events import SystemEvent


class SubscribedEvent:
    """One event of the ledger.

    position   where it stands; what `Subscription.ack` takes
    type       its name, such as `TaskCompleted` (docs/events.md)
    task_id    whose event it is; `system` for the service as a whole
    version    1 for the task's first event, then one more each
    at         when it happened, in UTC
    kb_id, task_type
               of the task; None when it is not known any more, and for `system`
    """

    def __init__(
        self,
        recorded: Recorded,
        facts: Facts | None,
        acknowledge: Callable[[Position], Awaitable[None]],
    ) -> None:
        self.recorded = recorded
        """As it stands in the ledger: bytes."""
        self.position = recorded.position
        self.type = recorded.type
        self.task_id = recorded.task_id
        self.version = recorded.version
        self.kb_id = None if facts is None else facts.kb_id
        self.task_type = None if facts is None else facts.task_type
        self._acknowledge = acknowledge

    @cached_property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.recorded.at / 1_000, UTC)

    @cached_property
    def data(self) -> Any:
        """What the event says, as Python objects."""
        return msgspec.json.decode(self.recorded.data)

    @cached_property
    def meta(self) -> Any:
        """Who made it happen, and why: `actor`, `request`, `trace`, `commit`, where known."""
        return msgspec.json.decode(self.recorded.meta)

    @cached_property
    def event(self) -> Event | SystemEvent:
        """The same as a struct of `ledger.events`, or of `ledger.system.events`.

        Raises ledger.codec.UnknownEventType for an event of a later version.
        """
        recorded = self.recorded
        return recorded.system_event() if recorded.of_system else recorded.event()

    async def ack(self) -> None:
        """It is done: this group is not given it again. Returns once that is kept, waiting out an
        outage of the ledger's server if need be; while older events of its partition are not
        acknowledged, at once, and it is kept with them.

        Raises AckRefused when the partition is another member's by now.
        """
        await self._acknowledge(self.position)

    def __repr__(self) -> str:
        return f"<{self.type} of {self.task_id} at {self.position}>"


class Wanted:
    """The filters of a group, ready for use."""

    def __init__(self, filters: Filters) -> None:
        self._types = frozenset(filters.types)
        self._task_ids = frozenset(filters.task_ids)
        self._kb_ids = frozenset(filters.kb_ids)
        self._task_types = frozenset(filters.task_types)

    def may_be(self, event: Recorded) -> bool:
        """What the event itself says."""
        return (not self._types or event.type in self._types) and (
            not self._task_ids or event.task_id in self._task_ids
        )

    def is_of(self, facts: Facts | None) -> bool:
        """What its task says."""
        if facts is None:
            return not self._kb_ids and not self._task_types
        return (not self._kb_ids or facts.kb_id in self._kb_ids) and (
            not self._task_types or facts.task_type in self._task_types
        )
