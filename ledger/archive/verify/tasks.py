"""Whether the events of each task follow upon one another: versions, hashes, legal transitions.

What has to be remembered of a task is its last event: 60 bytes, which take some 200 in memory. Of
TASKS_IN_MEMORY tasks they are kept there, the others in a temporary file (some 100 bytes each).
"""

import sqlite3
import struct
from collections.abc import Mapping
from itertools import islice
from typing import Final, NamedTuple

from ledger.archive.verify.faults import Faults, Kind
from ledger.codec import Undecodable, UnknownEventType
from ledger.events import (
    EVENT_TYPES,
    AttemptFailed,
    Event,
    TaskCompleted,
    TaskProgressed,
    TaskStarted,
)
from ledger.identity import is_task_id
from ledger.store import Position, Recorded
from ledger.task import Status
from ledger.transitions import TRANSITIONS

TASKS_IN_MEMORY: Final = 500_000

_LAST: Final = struct.Struct(">QIB32s")
_NONE: Final = 0
_ANY: Final = 255
"""A status that is not known."""
_ANY_ATTEMPT: Final = (1 << 32) - 1

_STATUSES: Final[list[Status | None]] = [None, *Status]
_CODES: Final[Mapping[Status | None, int]] = {each: code for code, each in enumerate(_STATUSES)}
_NEXT: Final = {
    (_CODES[before], kind.__name__): _CODES[after] for (before, kind), after in TRANSITIONS.items()
}
ERASED: Final = "TaskErased"
_OF_ATTEMPT: Final = (TaskProgressed, TaskCompleted, AttemptFailed)


class Last(NamedTuple):
    """A task's last event."""

    version: int
    attempt: int
    """The task's last one; 0 before the first."""
    status: int
    hash: bytes
    """Of its leaf."""
    entry: str


class LastEvents:
    """The last events of all tasks, by the tasks' keys."""

    def __init__(self, in_memory: int = TASKS_IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._known: dict[bytes, bytes] = {}
        self._file: sqlite3.Connection | None = None

    def get(self, key: bytes) -> Last | None:
        """That of one task."""
        packed = self._known.get(key)
        if packed is None and self._file is not None:
            found = self._file.execute("SELECT last FROM tasks WHERE key = ?", (key,)).fetchone()
            packed = None if found is None else found[0]
        if packed is None:
            return None
        version, attempt, status, hashed = _LAST.unpack_from(packed)
        return Last(version, attempt, status, hashed, packed[_LAST.size :].decode())

    def put(self, key: bytes, last: Last) -> None:
        """A task has another one now."""
        known = self._known
        known.pop(key, None)  # the dict's order is that in which tasks were put last
        version, attempt, status, hashed, entry = last
        known[key] = _LAST.pack(version, attempt, status, hashed) + entry.encode()
        if len(known) > self._in_memory:
            self._spill()

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()

    def _spill(self) -> None:
        if self._file is None:
            # A temporary file, which goes with the connection.
            self._file = sqlite3.connect("", isolation_level=None)
            self._file.execute("PRAGMA journal_mode = OFF")
            self._file.execute("CREATE TABLE tasks (key BLOB PRIMARY KEY, last BLOB) WITHOUT ROWID")
        self._file.execute("BEGIN")
        oldest = list(islice(self._known.items(), len(self._known) // 2))
        self._file.executemany("INSERT OR REPLACE INTO tasks VALUES (?, ?)", oldest)
        self._file.execute("COMMIT")
        for key, _ in oldest:
            del self._known[key]


class Chains:
    """The histories of a log's tasks, event by event, in the log's order."""

    def __init__(self, faults: Faults, last: LastEvents) -> None:
        self._faults = faults
        self._last = last
        self._holes: list[tuple[tuple[int, int], tuple[int, int]]] = []
        self.tasks = 0
        """Met so far."""
        self.unknown_types: dict[str, int] = {}

    def hole(self, after: tuple[int, int], before: tuple[int, int]) -> None:
        """Of the events between two positions nothing is known: that was told already."""
        self._holes.append((after, before))

    def add(
        self, key: bytes, event: Recorded, hashed: bytes, prev: bytes | None, *, is_whole: bool
    ) -> None:
        """The next event, of the task with this key; `hashed` is the hash of its leaf. `prev` is
        what that has of the task's previous event; None: it was not sealed. `is_whole`: its data
        is what it was."""
        last = self._last.get(key)
        if last is None and not event.of_system:
            self.tasks += 1
            if not is_task_id(event.task_id):
                self._fault(Kind.FORGED, event, f"{event.task_id[:80]!r} is no task's id")
        follows = self._check_follows(event, last, prev)
        if event.of_system:
            status, attempt = _ANY, _ANY_ATTEMPT
        else:
            before = (_NONE, 0) if last is None else (last.status, last.attempt)
            if not follows:
                before = (_ANY, _ANY_ATTEMPT)
            status = self._status(event, before[0])
            attempt = self._attempt(event, before[1], is_whole=is_whole)
        self._last.put(key, Last(event.version, attempt, status, hashed, event.position.entry))

    def _check_follows(self, event: Recorded, last: Last | None, prev: bytes | None) -> bool:
        """Whether an event is its task's next one."""
        version, entry, hashed = (last.version, last.entry, last.hash) if last else (0, "", b"")
        if event.version == version + 1 and event.prev == entry and prev in (None, hashed):
            return True
        if self._is_in_hole(event.prev):
            return False
        subject = _subject(event)
        at = f"{event.position.partition}:{entry}"
        if event.version > version + 1:
            if last is None and prev == b"":
                reason = f"{subject} begins with its version {event.version}: what came before was"
                self._fault(Kind.MISSING, event, f"{reason} not sealed")
                return False
            lost = str(version + 1)
            if event.version > version + 2:
                lost += f" to {event.version - 1}"
            reason = f"before this event, version {lost} of {subject} was dropped"
            self._fault(Kind.DROPPED, event, reason)
        elif event.version <= version:
            reason = f"it is version {event.version} of {subject}, which stood at {version} already"
            self._fault(Kind.FORGED if event.version else Kind.ALTERED, event, reason)
        elif event.prev != entry:
            reason = f"it says that the event before it of {subject} stands at {event.prev or '-'}"
            self._fault(Kind.ALTERED, event, f"{reason}, which is {entry or '-'}")
        else:
            reason = f"it is not the event that version {event.version} of {subject} came after"
            self._faults.add(Kind.ALTERED, at, reason)
        return False

    def is_in_hole(self, order: tuple[int, int]) -> bool:
        """Whether what stands there is among what nothing is known of."""
        return any(after < order < before for after, before in self._holes)

    def _is_in_hole(self, entry: str) -> bool:
        if not self._holes or not entry:
            return False
        try:
            order = Position.parse(f"0:{entry}").order
        except ValueError:
            return False
        return self.is_in_hole(order)

    def _status(self, event: Recorded, before: int) -> int:
        """The status after an event."""
        if event.type not in EVENT_TYPES:
            if event.type == ERASED:
                return before
            self.unknown_types[event.type] = self.unknown_types.get(event.type, 0) + 1
            return _ANY
        after = _NEXT.get((before, event.type))
        if after is not None:
            return after
        if before != _ANY:
            status = _STATUSES[before]
            what = "no task" if status is None else f"a {status.value} task"
            self._fault(Kind.FORGED, event, f"{event.type} cannot happen to {what}")
        return _ANY

    def _attempt(self, event: Recorded, before: int, *, is_whole: bool) -> int:
        """The attempt after an event; also sees to it that its data can be read."""
        unknown = _ANY_ATTEMPT if event.type == TaskStarted.__name__ else before
        if not is_whole:
            return unknown
        try:
            found: Event = event.event()
        except UnknownEventType:
            return before if event.type == ERASED else _ANY_ATTEMPT
        except Undecodable as error:
            self._fault(Kind.FORGED, event, str(error))
            return unknown
        if isinstance(found, TaskStarted):
            if before not in (found.attempt - 1, _ANY_ATTEMPT):
                self._fault(Kind.FORGED, event, f"attempt {found.attempt} follows upon {before}")
            return found.attempt
        if isinstance(found, _OF_ATTEMPT) and before not in (found.attempt, _ANY_ATTEMPT):
            reason = f"it is of attempt {found.attempt}, while attempt {before} ran"
            self._fault(Kind.FORGED, event, reason)
        return before

    def _fault(self, kind: Kind, event: Recorded, reason: str) -> None:
        self._faults.add(kind, event.position, f"{event.type}: {reason}")


def _subject(event: Recorded) -> str:
    return "the system" if event.of_system else f"task {event.task_id}"
