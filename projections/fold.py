"""The fold that all projections share: from entries of the ledger to changes of tasks.

It knows tasks as they are in the table of tasks, keeps those that are not finished at hand, and
gathers changes until whoever drives it has them written.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec

from ledger.codec import Undecodable, encode
from ledger.events import TaskSubmitted
from ledger.evolve import initial_state, state_after
from ledger.identity import is_task_id
from ledger.store import Recorded
from ledger.task import FINISHED, State
from ledger.transitions import IllegalTransition, next_status
from ledger.upcast import UPCASTERS
from projections.changes import PRIORITY_NO, Change
from projections.names import Names
from projections.stats import Measures

REMEMBERED_MAX: Final = 20_000
"""Unfinished tasks kept in memory, so that most events need no look into the table."""

SELECT_MAX: Final = 500
"""Tasks that are looked up with one statement."""

_SELECT: Final = "SELECT id, kb, task_type, priority, state, version FROM tasks WHERE id IN"

_decode_state = msgspec.json.Decoder(State).decode


GO_ON_HINT: Final = (
    "upgrade ledgerq and start it again, or leave the event out with --skip-events POSITION"
)
"""What to do about an event that cannot be folded."""


class Poison(Exception):
    """An event that cannot be folded. What came before it is folded, and can be written."""

    def __init__(self, recorded: Recorded, reason: str) -> None:
        super().__init__(f"{recorded.type} at {recorded.position}: {reason}")
        self.position = recorded.position


class Known(msgspec.Struct, frozen=True):
    """What the fold has to know of a task to go on with it."""

    kb: int
    task_type: int
    priority: int
    state: State
    version: int
    submission: bytes | None = None
    """Where the task is not in the table of tasks any more, and is to come back."""


class Fold:
    """Gathers changes: `take` entries, hand `changes` to the projections, then `clear`."""

    def __init__(self, db: sqlite3.Connection, names: Names, skipped: Collection[str]) -> None:
        """`skipped`: positions of events that are to be left out."""
        self._db = db
        self._names = names
        self._skipped = frozenset(skipped)
        self._known: dict[str, Known] = {}
        self._changes: dict[str, Change] = {}
        self.measures = Measures()
        self.bytes = 0
        """A measure of what is gathered."""

    @property
    def changes(self) -> Sequence[Change]:
        return list(self._changes.values())

    def __len__(self) -> int:
        return len(self._changes)

    def look_up(self, entries: Iterable[Recorded]) -> list[str]:
        """Get at hand the tasks that these entries go on with; returns those of which the table
        knows nothing. They are to be given to `remember` before the entries are taken."""
        wanted = [
            entry.task_id
            for entry in entries
            if entry.version > 1
            and entry.task_id not in self._changes
            and entry.task_id not in self._known
            and is_task_id(entry.task_id)
        ]
        if not wanted:
            return []
        begun = {entry.task_id for entry in entries if entry.version == 1}
        missing = [task_id for task_id in dict.fromkeys(wanted) if task_id not in begun]
        for first in range(0, len(missing), SELECT_MAX):
            self._select(missing[first : first + SELECT_MAX])
        return [task_id for task_id in missing if task_id not in self._known]

    def remember(self, task_id: str, history: Iterable[Recorded]) -> None:
        """Know a task from its history, oldest first, up to where its next event goes on.

        Raises Poison.
        """
        known: Known | None = None
        for recorded in history:
            try:
                event = recorded.event()
                if known is None:
                    known = self._submitted(recorded, event)
                else:
                    state = state_after(known.state, event, recorded.at)
                    known = msgspec.structs.replace(known, state=state, version=recorded.version)
            except (Undecodable, IllegalTransition) as error:
                raise Poison(recorded, str(error)) from error
        if known is not None:
            self._known[task_id] = known

    def take(self, entries: Iterable[Recorded]) -> None:
        """Fold entries, whose tasks were looked up. Raises Poison, with those before it folded."""
        for recorded in entries:
            try:
                self._take(recorded)
            except (Undecodable, IllegalTransition, ValueError) as error:
                if str(recorded.position) not in self._skipped:
                    raise Poison(recorded, str(error)) from error
                self._step_over(recorded)

    def clear(self) -> None:
        """Begin a new batch: what was gathered is written."""
        for task_id, change in self._changes.items():
            if change.after.status in FINISHED:
                self._known.pop(task_id, None)
            else:
                self._known[task_id] = Known(
                    change.kb, change.task_type, change.priority, change.after, change.version
                )
        surplus = len(self._known) - REMEMBERED_MAX
        for task_id in list(islice(self._known, max(surplus, 0))):
            del self._known[task_id]
        self._changes = {}
        self.measures = Measures()
        self.bytes = 0

    def _take(self, recorded: Recorded) -> None:
        event, at = recorded.event(), recorded.at
        change = self._changes.get(recorded.task_id)
        if change is None:
            known = self._known.pop(recorded.task_id, None)
            if known is None:
                self._begin(recorded, self._submitted(recorded, event))
                return
            change = self._go_on(recorded.task_id, known)
        if recorded.version != change.version + 1:
            raise IllegalTransition(
                f"version {recorded.version} of a task cannot follow version {change.version}"
            )
        after = state_after(change.after, event, at)
        self.measures.take(change.task_type, change.after, event, at)
        change.after, change.version = after, recorded.version
        self.bytes += len(recorded.data)

    def _submitted(self, recorded: Recorded, event: object) -> Known:
        if not isinstance(event, TaskSubmitted):
            next_status(None, type(event))  # pyright: ignore[reportArgumentType]
            raise AssertionError("the transition table lets a life begin in one way only")
        data = encode(event) if recorded.type in UPCASTERS else recorded.data
        return Known(
            self._names.number(event.kb_id),
            self._names.number(event.task_type),
            PRIORITY_NO[event.priority],
            initial_state(event, recorded.at),
            recorded.version,
            data,
        )

    def _begin(self, recorded: Recorded, known: Known) -> None:
        if recorded.version != 1:
            raise IllegalTransition(f"a task cannot begin with version {recorded.version}")
        self._changes[recorded.task_id] = Change(
            _id_bytes(recorded.task_id), known.kb, known.task_type, known.priority, None,
            known.state, 1, False, known.submission,
        )  # fmt: skip
        self.bytes += len(recorded.data)

    def _go_on(self, task_id: str, known: Known) -> Change:
        change = self._changes[task_id] = Change(
            _id_bytes(task_id), known.kb, known.task_type, known.priority, known.state,
            known.state, known.version, known.submission is None, known.submission,
        )  # fmt: skip
        return change

    def _step_over(self, recorded: Recorded) -> None:
        """An event that was said to be left out still counts as one of its task's versions."""
        change = self._changes.get(recorded.task_id)
        known = self._known.pop(recorded.task_id, None)
        if change is None and known is not None:
            change = self._go_on(recorded.task_id, known)
        if change is not None:
            change.version = max(change.version, recorded.version)

    def _select(self, task_ids: list[str]) -> None:
        by_id = {_id_bytes(task_id): task_id for task_id in task_ids}
        marks = ",".join("?" * len(by_id))
        rows = self._db.execute(
            f"SELECT id, kb, task_type, priority, state, version FROM tasks WHERE id IN ({marks})",  # noqa: S608 - nothing but question marks
            list(by_id),
        )
        for id, kb, task_type, priority, state, version in rows:
            self._known[by_id[id]] = Known(kb, task_type, priority, _decode_state(state), version)


def histories_before(
    entries: Sequence[Recorded], histories: Mapping[str, Sequence[Recorded]]
) -> dict[str, list[Recorded]]:
    """The part of each task's history that comes before its first event among `entries`."""
    first: dict[str, int] = {}
    for entry in entries:
        first.setdefault(entry.task_id, entry.version)
    return {
        task_id: [recorded for recorded in history if recorded.version < first[task_id]]
        for task_id, history in histories.items()
    }


def _id_bytes(task_id: str) -> bytes:
    """Raises ValueError for what is no UUID."""
    found = bytes.fromhex(task_id.replace("-", ""))
    if len(found) != 16:
        raise ValueError(f"{task_id[:80]!r} is no UUID")
    return found
