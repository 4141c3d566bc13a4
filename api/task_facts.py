"""What an event does not say itself: the type, knowledge base and priority of its task.

Only TaskSubmitted carries them, and they never change. So they are remembered from there, for as
many tasks as fit; of others the snapshot is loaded.
"""

import asyncio
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

import msgspec

from api.scalars import JsonObject, LedgerPosition, Moment, Subject, Version
from api.wire import moment_text
from ledger.codec import Undecodable, decode_meta, encode
from ledger.events import Priority, TaskSubmitted
from ledger.identity import SYSTEM
from ledger.store import Recorded, Store
from ledger.task import Status
from ledger.transitions import STATUS_AFTER

KNOWN_TASKS_MAX: Final = 20_000
"""Tasks remembered: some megabytes."""

LOADS_AT_ONCE: Final = 16
"""Snapshots hold payloads of up to 1 MiB."""

_NULL: Final = msgspec.Raw(b"null")


class Facts(msgspec.Struct, frozen=True):
    """Of one task, for good."""

    kb_id: str
    task_type: str
    priority: Priority


class Message(msgspec.Struct, frozen=True):
    """An event as the live feed tells it. `kb_id` and `task_type` are null when the task is no
    longer known, `status` for an unknown type of event; all three where the event is no task's, but
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
                _moment(recorded.at),
                _json_or_null(recorded.data),
                _json_or_null(recorded.meta),
                facts and facts.kb_id,
                facts and facts.task_type,
                self.status,
            )
        )


class TaskFacts:
    """The facts of the tasks that something happened to lately, the least lately used forgotten."""

    def __init__(self, store: Store, known_max: int = KNOWN_TASKS_MAX) -> None:
        self._store = store
        self._known_max = known_max
        self._known: dict[str, Facts | None] = {}

    async def occurrences(self, events: Sequence[Recorded]) -> list[Occurrence]:
        """The events with their tasks' facts. Raises as `Store.load`."""
        for event in events:
            if event.type == TaskSubmitted.__name__:
                self._learn(event)
        found = {event.task_id: self._recall(event.task_id) for event in events}
        unknown = [name for name in found if name not in self._known and name != SYSTEM]
        for start in range(0, len(unknown), LOADS_AT_ONCE):
            wave = unknown[start : start + LOADS_AT_ONCE]
            loaded = await asyncio.gather(*map(self._load, wave))
            found.update(zip(wave, loaded, strict=True))
        self._forget()
        return [Occurrence(event, found[event.task_id]) for event in events]

    def _recall(self, task_id: str) -> Facts | None:
        if task_id not in self._known:
            return None
        # To the end: what is forgotten goes from the beginning.
        facts = self._known[task_id] = self._known.pop(task_id)
        return facts

    def _learn(self, submitted: Recorded) -> None:
        try:
            event = submitted.event()
        except Undecodable:
            return
        if isinstance(event, TaskSubmitted):
            self._known[submitted.task_id] = _facts(event)

    async def _load(self, task_id: str) -> Facts | None:
        try:
            task = await self._store.load(task_id)
        except Undecodable:
            task = None
        facts = self._known[task_id] = None if task is None else _facts(task.submission)
        return facts

    def _forget(self) -> None:
        for task_id in _first(self._known, len(self._known) - self._known_max):
            del self._known[task_id]


def _first(names: Iterable[str], count: int) -> list[str]:
    return [name for name, _ in zip(names, range(count), strict=False)] if count > 0 else []


def _facts(submission: TaskSubmitted) -> Facts:
    return Facts(submission.kb_id, submission.task_type, submission.priority)


def _moment(ms: int) -> str:
    try:
        return moment_text(ms)
    except OverflowError:
        # An entry that others wrote in our form.
        return ""


def _json_or_null(data: bytes) -> msgspec.Raw:
    """The bytes as they are, if they can stand in JSON."""
    try:
        data.decode()
        return msgspec.json.decode(data, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return _NULL
