"""Events as they are told to listeners: with the type, knowledge base and priority of the task."""

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import msgspec

from api.scalars import JsonObject, LedgerPosition, Moment, Subject, Version
from api.task_update import task_update
from api.websocket import text_frame
from api.wire import moment_or_nothing
from consumers.known_tasks import Facts, KnownTasks
from ledger.codec import Undecodable, decode_meta, encode
from ledger.store import Recorded
from ledger.task import State, Status
from ledger.transitions import STATUS_AFTER

_NULL: Final = msgspec.Raw(b"null")


class Message(msgspec.Struct, frozen=True):
    """An event as the live feed tells it. `kb_id` and `task_type` are null when the task is no
    longer known, `status` for an unknown type of event and for those of callbacks, which leave the
    task as it was; all three where the event is no task's, but
    the service's own."""

    # The fields stand in the contract's order.
    position: LedgerPosition
    type: str
    task_id: Subject
    version: Version
    at: Moment
    data: JsonObject
    meta: JsonObject
    kb_id: str | None
    task_type: str | None
    status: Status | None


class Occurrence:
    """An event and what its task is: made once, told to everybody who listens."""

    def __init__(self, recorded: Recorded, facts: Facts | None) -> None:
        self.recorded = recorded
        self.facts = facts
        self.position = recorded.position
        self.order = recorded.position.order
        self.status = STATUS_AFTER.get(recorded.type)
        self.has_state = False
        self.state: State | None = None
        """What the event made of its task, once `has_state`; None when it changed nothing that a
        `TaskUpdate` shows."""

    @cached_property
    def update(self) -> bytes:
        """The TaskUpdate, as a WebSocket frame. There must be a state."""
        assert self.state is not None  # noqa: S101 - whoever asks has looked
        return text_frame(task_update(self.recorded, self.facts, self.state))

    @cached_property
    def actor(self) -> str:
        """Who made it happen; of what a worker did, the worker's id."""
        try:
            return decode_meta(self.recorded.meta).actor
        except Undecodable:
            return ""

    @cached_property
    def json(self) -> bytes:
        """The Message, as JSON."""
        recorded, facts = self.recorded, self.facts
        return encode(
            Message(
                str(recorded.position),
                recorded.type,
                recorded.task_id,
                recorded.version,
                moment_or_nothing(recorded.at),
                _json_or_null(recorded.data),
                _json_or_null(recorded.meta),
                facts and facts.kb_id,
                facts and facts.task_type,
                self.status,
            )
        )


class TaskFacts(KnownTasks):
    """Makes occurrences of events."""

    async def occurrences(self, events: Sequence[Recorded]) -> list[Occurrence]:
        """The events with their tasks' facts. Raises as `Store.load`."""
        return list(map(Occurrence, events, await self.facts(events)))


def _json_or_null(data: bytes) -> msgspec.Raw:
    """The bytes as they are, if they can stand in JSON."""
    try:
        data.decode()
        return msgspec.json.decode(data, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return _NULL
