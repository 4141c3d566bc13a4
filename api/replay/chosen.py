"""The events of a span that are wanted, in the order in which they were written."""

import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec

from api.replay.event_json import meta_of
from api.replay.span import Span
from consumers.known_tasks import Facts, facts_of
from ledger.archive.joined import Joined
from ledger.codec import Meta
from ledger.events import TaskSubmitted
from ledger.identity import SYSTEM
from ledger.store import Position, Recorded

KNOWN_MAX: Final = 100_000
"""Tasks whose facts are remembered; of others they are read again."""

_TRACE_ID: Final = slice(3, 35)
"""Of a traceparent."""

Wanted = frozenset[str] | None
"""Values, one of which is wanted; None: any."""


class Filters(msgspec.Struct, frozen=True):
    """An event is wanted when it has one of each of these."""

    tasks: Wanted = None
    kb_ids: Wanted = None
    task_types: Wanted = None
    types: Wanted = None
    actors: Wanted = None
    traces: Wanted = None
    """By trace id, 32 hexadecimal digits."""

    @property
    def of_meta(self) -> bool:
        """Whether it matters who wrote an event, or in which trace."""
        return self.actors is not None or self.traces is not None


class Chosen:
    """`pieces` of what is wanted."""

    def __init__(self, events: Joined, span: Span, filters: Filters) -> None:
        self._events = events
        self._span = span
        self._filters = filters
        self._facts: OrderedDict[str, Facts | None] = OrderedDict()

    async def pieces(self) -> AsyncGenerator[list[Recorded]]:
        """In order. Raises as Joined. To be closed: it reads ahead."""
        async with contextlib.aclosing(in_order(self._events, self._span)) as reading:
            async for events in reading:
                wanted = await self._wanted(self._span.cut(events))
                if wanted:
                    yield wanted

    async def _wanted(self, events: list[Recorded]) -> list[Recorded]:
        filters = self._filters
        if filters.kb_ids is not None or filters.task_types is not None:
            self._learn(events)
        if filters.tasks is not None:
            events = [event for event in events if event.task_id in filters.tasks]
        if filters.types is not None:
            events = [event for event in events if event.type in filters.types]
        if filters.of_meta:
            events = [event for event in events if self._is_by(meta_of(event))]
        if filters.kb_ids is not None or filters.task_types is not None:
            events = [event for event in events if await self._is_of(event.task_id)]
        return events

    def _is_by(self, meta: Meta) -> bool:
        filters = self._filters
        return (filters.actors is None or meta.actor in filters.actors) and (
            filters.traces is None or meta.trace[_TRACE_ID] in filters.traces
        )

    def _learn(self, events: Sequence[Recorded]) -> None:
        for event in events:
            if event.type == TaskSubmitted.__name__:
                self._remember(event.task_id, facts_of(event))

    def _remember(self, task_id: str, facts: Facts | None) -> None:
        self._facts[task_id] = facts
        if len(self._facts) > KNOWN_MAX:
            self._facts.popitem(last=False)

    async def _is_of(self, task_id: str) -> bool:
        if task_id == SYSTEM:
            return False
        if task_id in self._facts:
            self._facts.move_to_end(task_id)
        else:
            history = await self._events.history(task_id)
            self._remember(task_id, facts_of(history[0]) if history else None)
        facts, filters = self._facts[task_id], self._filters
        return (
            facts is not None
            and (filters.kb_ids is None or facts.kb_id in filters.kb_ids)
            and (filters.task_types is None or facts.task_type in filters.task_types)
        )


async def in_order(events: Joined, span: Span) -> AsyncGenerator[list[Recorded]]:
    """The events of a span, of all partitions by when they were written."""
    readers = {
        partition: events.scan(start, span.ends[partition])
        for partition, start in span.starts.items()
    }
    if len(readers) == 1:
        async with contextlib.aclosing(next(iter(readers.values()))) as reading:
            async for some in reading:
                yield some
        return
    waiting: dict[int, deque[Recorded]] = {}
    try:
        while True:
            for partition, reader in list(readers.items()):
                if not waiting.get(partition):
                    some = await anext(reader, None)
                    if some is None:
                        del readers[partition]
                    else:
                        waiting[partition] = deque(some)
            if not any(waiting.values()):
                return
            # Up to where each partition is known.
            known = min(
                (_when(waiting[partition][-1].position) for partition in readers), default=None
            )
            yield sorted(
                (event for each in waiting.values() for event in _up_to(each, known)),
                key=lambda event: _when(event.position),
            )
    finally:
        for reader in readers.values():
            await reader.aclose()


def _when(position: Position) -> tuple[int, int, int]:
    return (*position.order, position.partition)


def _up_to(events: deque[Recorded], end: tuple[int, int, int] | None) -> list[Recorded]:
    found: list[Recorded] = []
    while events and (end is None or _when(events[0].position) <= end):
        found.append(events.popleft())
    return found
