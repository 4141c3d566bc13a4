"""What each event made of its task: the fold that a snapshot is, kept up event by event.

An event alone does not tell its task's progress or last error. So the states of tasks are
remembered as they are folded, for as many as fit; of others the history is read. Whoever reads the
past keeps states of his own: those of the present are further on.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from api.task_facts import Occurrence
from api.task_update import shown
from ledger.codec import Undecodable
from ledger.events import NO_JSON, TaskSubmitted
from ledger.evolve import initial_state, state_after
from ledger.store import Recorded, Store
from ledger.task import State
from ledger.transitions import IllegalTransition

STATES_MAX: Final = 10_000
TEXT_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of the messages and errors in them."""

HISTORIES_AT_ONCE: Final = 8
"""A history holds a payload and a result of up to 1 MiB each."""


class States:
    """Tasks as they stood after the version that is told with them, the oldest forgotten."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, State]] = {}
        self._bytes = 0

    def clear(self) -> None:
        self._known.clear()
        self._bytes = 0

    def get(self, task_id: str, version: int) -> State | None:
        """The state at just this version."""
        found = self._known.get(task_id)
        return found[1] if found is not None and found[0] == version else None

    def put(self, task_id: str, version: int, state: State) -> None:
        """Remember it, without its result."""
        if len(state.result):
            state = msgspec.structs.replace(state, result=NO_JSON)
        self._drop(task_id)
        self._known[task_id] = (version, state)
        self._bytes += _text_bytes(state)
        while len(self._known) > STATES_MAX or self._bytes > TEXT_BYTES_MAX:
            self._drop(next(iter(self._known)))

    def _drop(self, task_id: str) -> None:
        found = self._known.pop(task_id, None)
        if found is not None:
            self._bytes -= _text_bytes(found[1])


class TaskStates:
    """Gives occurrences their states."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def fill(self, occurrences: Sequence[Occurrence], known: States) -> None:
        """Fill in `state`, in the order of the partition. Raises as `Store.history`."""
        missing: dict[str, int] = {}
        expected: dict[str, int] = {}
        for recorded in (one.recorded for one in occurrences):
            if _needs_past(recorded) and expected.get(recorded.task_id) != recorded.version:
                before = recorded.version - 1
                if known.get(recorded.task_id, before) is None:
                    missing.setdefault(recorded.task_id, before)
            expected[recorded.task_id] = recorded.version + 1
        names = list(missing)
        for start in range(0, len(names), HISTORIES_AT_ONCE):
            wave = names[start : start + HISTORIES_AT_ONCE]
            histories = await asyncio.gather(*map(self._store.history, wave))
            for task_id, history in zip(wave, histories, strict=True):
                _remember(known, task_id, missing[task_id], history)
        for occurrence in occurrences:
            _fill(occurrence, known)


def fold(history: Iterable[Recorded]) -> tuple[State | None, int]:
    """How a task stands after its first events, and since when it is shown so (ms); events that
    nobody here understands change nothing."""
    state, since = None, 0
    for recorded in history:
        before, state = state, _after(state, recorded)
        if state is not None and (before is None or shown(before) != shown(state)):
            since = recorded.at
    return state, since


def _needs_past(recorded: Recorded) -> bool:
    return not recorded.of_system and recorded.version > 1


def _remember(known: States, task_id: str, version: int, history: Iterable[Recorded]) -> None:
    state, _ = fold(one for one in history if one.version <= version)
    if state is not None:
        known.put(task_id, version, state)


def _fill(occurrence: Occurrence, known: States) -> None:
    recorded = occurrence.recorded
    occurrence.has_state = True
    if recorded.of_system:
        return
    before = known.get(recorded.task_id, recorded.version - 1)
    after = _after(before, recorded)
    if after is None:
        return
    known.put(recorded.task_id, recorded.version, after)
    if before is None or shown(before) != shown(after):
        occurrence.state = after


def _after(state: State | None, recorded: Recorded) -> State | None:
    try:
        event = recorded.event()
        if isinstance(event, TaskSubmitted):
            return initial_state(event, recorded.at) if state is None else state
        return None if state is None else state_after(state, event, recorded.at)
    except (Undecodable, IllegalTransition):
        return state


def _text_bytes(state: State) -> int:
    return len(state.message) + len(state.error_message)
