"""Which events a caller wants to hear of: the filters of the live feed."""

from typing import Annotated

import msgspec
from msgspec import Meta

from api.errors import invalid
from api.scalars import AFTER_EXPECTED, POSITIONS_PATTERN, Listed, TaskId
from api.task_facts import Occurrence
from ledger.events import Priority
from ledger.identity import is_task_id
from ledger.task import Status


class UpdatesQuery(msgspec.Struct, frozen=True):
    """Where to begin, and what to leave out."""

    after: Annotated[
        str,
        Meta(
            description="The position after which to begin: that of an event, or the "
            "`Ledger-Position` of a write; several for several partitions, separated by commas "
            "(one that is not named begins now). Or `beginning`, or `now`. `Last-Event-ID` "
            "outranks it.",
            pattern=f"^(now|beginning|{POSITIONS_PATTERN})$",
            examples=["now"],
            extra={"expected": AFTER_EXPECTED},
        ),
    ] = "now"
    task_id: Annotated[
        tuple[TaskId, ...], Meta(min_length=1, description="Events of these tasks.")
    ] = ()
    kb_id: Annotated[tuple[Listed, ...], Meta(min_length=1, description="Of tasks of these.")] = ()
    task_type: Annotated[
        tuple[Listed, ...],
        # Not only types of the settings: a ledger may hold tasks of others.
        Meta(min_length=1, description="Of tasks of these types."),
    ] = ()
    status: Annotated[
        tuple[Status, ...], Meta(min_length=1, description="Events that lead to one of these.")
    ] = ()


class EventsQuery(UpdatesQuery, frozen=True):
    """The same, of single events."""

    priority: Annotated[
        tuple[Priority, ...], Meta(min_length=1, description="Of tasks of these priorities.")
    ] = ()
    worker_id: Annotated[
        tuple[Listed, ...], Meta(min_length=1, description="Events that these workers wrote.")
    ] = ()


Wanted = frozenset[str] | None
"""Values, one of which is wanted; None: any."""


class EventFilter(msgspec.Struct, frozen=True):
    """An event is wanted when each of these that is given has it.

    `status` is the one that the event leads to. `worker_id` is who made the event happen: what the
    ledger says of an attempt after its worker is lost, or what a caller does, is no worker's doing.
    """

    task_id: Wanted = None
    kb_id: Wanted = None
    task_type: Wanted = None
    status: Wanted = None
    priority: Wanted = None
    worker_id: Wanted = None

    def matches(self, occurrence: Occurrence) -> bool:
        """Whether the event is wanted."""
        facts = occurrence.facts
        return (
            (self.task_id is None or occurrence.recorded.task_id in self.task_id)
            and (self.status is None or occurrence.status in self.status)
            and (self.kb_id is None or (facts is not None and facts.kb_id in self.kb_id))
            and (
                self.task_type is None or (facts is not None and facts.task_type in self.task_type)
            )
            and (self.priority is None or (facts is not None and facts.priority in self.priority))
            and (self.worker_id is None or occurrence.actor in self.worker_id)
        )


def _any_of(values: tuple[str, ...]) -> Wanted:
    return frozenset(values) or None


def filter_of(query: UpdatesQuery) -> EventFilter:
    """The filter that is asked for. Raises ApiError (400) for what cannot be a task's id."""
    if not all(map(is_task_id, query.task_id)):
        raise invalid("task_id", "lower-case UUIDs, several separated by commas")
    of_single_events = isinstance(query, EventsQuery)
    return EventFilter(
        _any_of(query.task_id),
        _any_of(query.kb_id),
        _any_of(query.task_type),
        _any_of(query.status),
        _any_of(query.priority) if of_single_events else None,
        _any_of(query.worker_id) if of_single_events else None,
    )
