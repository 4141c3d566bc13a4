"""What an event does not say itself: the type, knowledge base and priority of its task.

Only TaskSubmitted carries them, and they never change. So they are remembered from there, for as
many tasks as fit; of others the snapshot is loaded.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ledger.codec import Undecodable
from ledger.events import Priority, TaskSubmitted
from ledger.identity import SYSTEM
from ledger.past import Past
from ledger.retention import BEGINNING
from ledger.store import Recorded, Store

KNOWN_TASKS_MAX: Final = 20_000
"""Tasks remembered: some megabytes."""

LOADS_AT_ONCE: Final = 16
"""Snapshots hold payloads of up to 1 MiB."""


class Facts(msgspec.Struct, frozen=True):
    """Of one task, for good."""

    kb_id: str
    task_type: str
    priority: Priority


class KnownTasks:
    """The facts of the tasks that something happened to lately, the least lately used forgotten."""

    def __init__(
        self, store: Store, known_max: int = KNOWN_TASKS_MAX, past: Past | None = None
    ) -> None:
        """`past`: asked for tasks that the store has not got."""
        self._store = store
        self._past = past
        self._known_max = known_max
        self._known: dict[str, Facts | None] = {}

    async def facts(self, events: Sequence[Recorded]) -> list[Facts | None]:
        """Those of each event's task; None where the task is no longer known, and for events that
        are no task's. Raises as `Store.load`."""
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
        return [found[event.task_id] for event in events]

    def _recall(self, task_id: str) -> Facts | None:
        if task_id not in self._known:
            return None
        # To the end: what is forgotten goes from the beginning.
        facts = self._known[task_id] = self._known.pop(task_id)
        return facts

    def _learn(self, submitted: Recorded) -> None:
        facts = facts_of(submitted)
        if facts is not None:
            self._known[submitted.task_id] = facts

    async def _load(self, task_id: str) -> Facts | None:
        try:
            task = await self._store.load(task_id)
            if task is None and self._past is not None:
                task = (await self._past.find(task_id, BEGINNING)).task
        except Undecodable:
            task = None
        facts = self._known[task_id] = None if task is None else _facts(task.submission)
        return facts

    def _forget(self) -> None:
        for task_id in _first(self._known, len(self._known) - self._known_max):
            del self._known[task_id]


def _first(names: Iterable[str], count: int) -> list[str]:
    return [name for name, _ in zip(names, range(count), strict=False)] if count > 0 else []


def facts_of(submitted: Recorded) -> Facts | None:
    """What a TaskSubmitted says; None for anything else."""
    try:
        event = submitted.event()
    except Undecodable:
        return None
    return _facts(event) if isinstance(event, TaskSubmitted) else None


def _facts(submission: TaskSubmitted) -> Facts:
    return Facts(submission.kb_id, submission.task_type, submission.priority)
