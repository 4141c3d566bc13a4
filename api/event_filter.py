"""Which events a caller wants to hear of: the filters of the live feed."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from api.errors import invalid
from api.task_facts import Occurrence
from ledger.events import Priority
from ledger.identity import is_task_id
from ledger.task import Status

FILTERS: Final = ("task_id", "kb_id", "task_type", "status", "priority", "worker_id")
"""Query parameters; each may be a comma-separated list."""

VALUE_CHARACTERS_MAX: Final = 255

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


def parse_filter(asked: Mapping[str, str]) -> EventFilter:
    """The filter that these query parameters are. Raises ApiError (400), naming the parameter."""
    wanted = {name: _values(name, asked[name]) for name in FILTERS if name in asked}
    _check_members("status", wanted.get("status"), Status)
    _check_members("priority", wanted.get("priority"), Priority)
    for task_id in wanted.get("task_id", ()):
        if not is_task_id(task_id):
            raise invalid("task_id", "lower-case UUIDs, separated by commas")
    return EventFilter(**wanted)


def _values(name: str, text: str) -> frozenset[str]:
    values = frozenset(text.split(","))
    if not all(1 <= len(value) <= VALUE_CHARACTERS_MAX for value in values):
        raise invalid(name, f"values of 1 to {VALUE_CHARACTERS_MAX} characters between commas")
    return values


def _check_members(name: str, values: Wanted, members: type[StrEnum]) -> None:
    known = frozenset(member.value for member in members)
    if values is not None and not values <= known:
        raise invalid(name, f"of {', '.join(members)}, one or several separated by commas")
