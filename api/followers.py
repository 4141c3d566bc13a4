"""Who wants to hear of an event: found by the event, however many there are."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from api.event_filter import EventFilter
from api.task_facts import Occurrence

Name = TypeVar("Name")


class Followers(Generic[Name]):
    """By what they want: tasks, else knowledge bases, else anything. Each stands in one of the
    three, so a look-up brings nobody twice."""

    def __init__(self) -> None:
        self._wanted: dict[Name, EventFilter] = {}
        self._by_task: dict[str, set[Name]] = {}
        self._by_kb: dict[str, set[Name]] = {}
        self._others: set[Name] = set()

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[Name]:
        return iter(self._wanted)

    def __contains__(self, follower: Name) -> bool:
        return follower in self._wanted

    def add(self, follower: Name, wanted: EventFilter) -> None:
        """Let it hear of what is wanted, and no longer of what was wanted before."""
        before = self._wanted.get(follower)
        self._wanted[follower] = wanted
        if before is not None and before.task_id is not None and wanted.task_id is not None:
            # One of many tasks comes or goes.
            self._enter(self._by_task, wanted.task_id - before.task_id, follower)
            self._leave(self._by_task, before.task_id - wanted.task_id, follower)
            return
        if before is not None:
            self._take_out(follower, before)
        if wanted.task_id is not None:
            self._enter(self._by_task, wanted.task_id, follower)
        elif wanted.kb_id is not None:
            self._enter(self._by_kb, wanted.kb_id, follower)
        else:
            self._others.add(follower)

    def discard(self, follower: Name) -> None:
        """Let it hear of nothing any more."""
        wanted = self._wanted.pop(follower, None)
        if wanted is not None:
            self._take_out(follower, wanted)

    def of(self, occurrence: Occurrence) -> list[Name]:
        """Who wants this one."""
        kb_id = None if occurrence.facts is None else occurrence.facts.kb_id
        found = [*self._by_task.get(occurrence.recorded.task_id, ())]
        if kb_id is not None:
            found += self._by_kb.get(kb_id, ())
        found += self._others
        return [one for one in found if self._wanted[one].matches(occurrence)]

    def _take_out(self, follower: Name, wanted: EventFilter) -> None:
        if wanted.task_id is not None:
            self._leave(self._by_task, wanted.task_id, follower)
        elif wanted.kb_id is not None:
            self._leave(self._by_kb, wanted.kb_id, follower)
        else:
            self._others.discard(follower)

    @staticmethod
    def _enter(index: dict[str, set[Name]], names: frozenset[str], follower: Name) -> None:
        for name in names:
            index.setdefault(name, set()).add(follower)

    @staticmethod
    def _leave(index: dict[str, set[Name]], names: frozenset[str], follower: Name) -> None:
        for name in names:
            there = index[name]
            there.discard(follower)
            if not there:
                del index[name]
