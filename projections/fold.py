"""The fold that all projections share: from entries of the ledger to changes of tasks.

It knows tasks as they are in the table of tasks, keeps those that are not finished at hand, and
gathers changes until whoever drives it has them written. A rebuild goes through here three million
times, which is why entries are taken by their fixed places, and tasks known by the bytes of their
ids.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby, islice
from typing import Any, Final

import msgspec

from ledger.codec import Undecodable, decoder_of, encode
from ledger.events import (
    CallbackDelivered,
    CallbackFailed,
    Event,
    RetryScheduled,
    TaskProgressed,
    TaskStarted,
    TaskSubmitted,
)
from ledger.evolve import initial_state, state_after
from ledger.foreign import ForeignEntries, ForeignEntry
from ledger.identity import is_task_id
from ledger.moments import LAST_MS
from ledger.script_format import read_recorded
from ledger.store import Entry, Position, Recorded
from ledger.task import FINISHED, State
from ledger.transitions import IllegalTransition, next_status
from ledger.upcast import UPCASTERS
from projections.changes import PRIORITY_NO, Change
from projections.names import Names
from projections.stats import MEASURED, Measures

REMEMBERED_MAX: Final = 20_000
"""Unfinished tasks kept in memory, so that most events need no look into the table."""

SELECT_MAX: Final = 500
"""Tasks that are looked up with one statement."""

NUMBER_END: Final = 10**15
"""Times (ms), versions and counts lie below it: ms until the year 33658. What lies beyond could be
folded, but some of it not be written, when nobody knows any more which event it came from."""

KIND, TASK, VERSION, DATA, FIELDS = 1, 3, 5, 9, 14
"""Where an event's entry has them (see script_format.EVENT_FIELDS), and how long it is."""

_SELECT: Final = "SELECT id, kb, task_type, priority, state, version FROM tasks WHERE id IN"

_decode_state = msgspec.json.Decoder(State).decode

GO_ON_HINT: Final = (
    "upgrade ledgerq and start it again, or leave the event out with --skip-events POSITION"
)
"""What to do about an event that cannot be folded."""


_SOUND: Final[dict[type[Event], Callable[[Any], bool]]] = {
    TaskSubmitted: lambda event: (
        event.schedule_for is None or -NUMBER_END < event.schedule_for < NUMBER_END
    ),
    TaskStarted: lambda event: (
        -NUMBER_END < event.attempt < NUMBER_END and -NUMBER_END < event.lease_ms < NUMBER_END
    ),
    TaskProgressed: lambda event: -NUMBER_END < event.progress < NUMBER_END,
    CallbackDelivered: lambda event: -NUMBER_END < event.attempt < NUMBER_END,
    CallbackFailed: lambda event: (
        -NUMBER_END < event.attempt < NUMBER_END
        and (event.retry_at is None or -NUMBER_END < event.retry_at < NUMBER_END)
    ),
    RetryScheduled: lambda event: (
        -NUMBER_END < event.retry_at < NUMBER_END
        and -NUMBER_END < event.retry_count < NUMBER_END
        and -NUMBER_END < event.postponements < NUMBER_END
    ),
}
"""Whether the numbers that an event brings into a task's state can be written."""

_OUT_OF_RANGE: Final = "a number or time of it is out of range"


class Poison(Exception):
    """An event that cannot be folded. What came before it is folded, and can be written."""

    def __init__(self, position: Position, kind: str, reason: str) -> None:
        super().__init__(f"{kind} at {position}: {reason}")
        self.position = position


class Missing(Exception):
    """An event of a task that the read model has let go of: `remember` its history, then go on from
    here. What came before this is folded."""

    def __init__(self, partition: int, entry: Entry) -> None:
        name, fields = entry
        super().__init__(f"{name.decode()}: the task is not in the read model")
        self.position = Position(partition, name.decode())
        self.kind = fields[KIND].decode(errors="replace")
        self.task_id = fields[TASK].decode()
        self.version = int(fields[VERSION])


class _Unfit(Exception):
    """An entry that is no event, or none that can be folded."""

    def __init__(self, entry: Entry, reason: str) -> None:
        super().__init__(reason)
        self.entry = entry


class _Unknown(Exception):
    """An event of a task that is not in the table."""

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self.entry = entry


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
    """Gathers changes: `take` entries, hand `changes` to the projections, then `clear`.

    Tasks go by their ids as they stand in the ledger, in bytes.
    """

    def __init__(self, db: sqlite3.Connection, names: Names, skipped: Collection[str]) -> None:
        """`skipped`: positions of events that are to be left out."""
        self._db = db
        self._names = names
        self._skipped = frozenset(skipped)
        self._skips = {at.partition(":")[0] for at in skipped}
        """The partitions that they lie in."""
        self._left_out: set[bytes] = set()
        """Tasks met whose submission is to be left out, and they with it."""
        self._looked_up: list[bytes] = []
        """Finished tasks that are known for this batch alone."""
        self._decoders: dict[bytes, Callable[[bytes], Event]] = {}
        self._known: dict[bytes, Known] = {}
        self._changes: dict[bytes, Change] = {}
        self._foreign = ForeignEntries()
        self.measures = Measures()
        self.bytes = 0
        """A measure of what is gathered."""

    @property
    def changes(self) -> Sequence[Change]:
        return list(self._changes.values())

    def __len__(self) -> int:
        return len(self._changes)

    def remember(self, missing: Missing, history: Iterable[Recorded]) -> None:
        """Know a task that was missing from its history, oldest first. Raises Poison."""
        task = missing.task_id.encode()
        known: Known | None = None
        for recorded in history:
            if recorded.position.order >= missing.position.order:
                break
            if str(recorded.position) in self._skipped:
                if known is None:
                    self._left_out.add(task)
                    return
                version = _stepped_over(known.version, recorded.version)
                known = msgspec.structs.replace(known, version=version)
                continue
            try:
                event = recorded.event()
                sound = _SOUND.get(type(event))
                if not 0 <= recorded.at <= LAST_MS or (sound is not None and not sound(event)):
                    raise Undecodable(_OUT_OF_RANGE)
                if known is None:
                    known = self._submitted(event, recorded.data, recorded.type, recorded.at)
                else:
                    state = state_after(known.state, event, recorded.at)
                    known = msgspec.structs.replace(known, state=state, version=recorded.version)
            except (Undecodable, IllegalTransition) as error:
                raise Poison(recorded.position, recorded.type, str(error)) from error
        if known is None or known.version != missing.version - 1:
            raise Poison(
                missing.position, missing.kind, "the ledger does not have what came before it"
            )
        self._known[task] = known
        self.bytes += len(known.submission or b"")
        if known.state.status in FINISHED:
            self._looked_up.append(task)

    def take(self, partition: int, entries: Sequence[Entry]) -> None:
        """Fold entries of one partition. Raises Poison or Missing, with those before it folded."""
        if str(partition) not in self._skips:
            self._take_run(partition, entries)
            return

        def is_skipped(entry: Entry) -> bool:
            return f"{partition}:{entry[0].decode()}" in self._skipped

        for skipped, run in groupby(entries, is_skipped):
            if not skipped:
                self._take_run(partition, list(run))
                continue
            for entry in run:
                if not self._is_of_no_task(partition, entry):
                    self._step_over(entry[1])

    def clear(self) -> None:
        """Begin a new batch: what was gathered is written."""
        for task in self._looked_up:
            self._known.pop(task, None)
        for task, change in self._changes.items():
            if change.after.status in FINISHED:
                self._known.pop(task, None)
            else:
                self._known[task] = Known(
                    change.kb, change.task_type, change.priority, change.after, change.version
                )
        surplus = len(self._known) - REMEMBERED_MAX
        for task in list(islice(self._known, max(surplus, 0))):
            del self._known[task]
        self._looked_up = []
        self._changes = {}
        self.measures = Measures()
        self.bytes = 0

    def _take_run(self, partition: int, entries: Sequence[Entry]) -> None:
        left = iter(entries)
        while True:
            try:
                self._take_all(left, entries)
                return
            except _Unfit as unfit:
                entry, reason = unfit.entry, str(unfit)
            except _Unknown as unknown:
                if self._is_of_no_task(partition, unknown.entry):
                    continue
                raise Missing(partition, unknown.entry) from None
            if self._is_of_no_task(partition, entry):
                continue
            if entry[1][TASK] in self._left_out:
                continue
            position = Position(partition, entry[0].decode())
            raise Poison(position, entry[1][KIND].decode(errors="replace"), reason)

    def _take_all(self, left: Iterable[Entry], entries: Sequence[Entry]) -> None:
        """Take those that are left of the entries. Raises _Unfit, _Unknown; those before it are
        taken, and those after it are left."""
        changes, known = self._changes, self._known
        decoders, measures, left_out = self._decoders, self.measures, self._left_out
        sounds = _SOUND
        size_bytes = 0
        entry: Entry | None = None
        try:
            for entry in left:
                fields = entry[1]
                # Fields in other places are found out where they do not fit.
                _, kind, _, task, _, version_text, _, at_text, _, data, _, _, last_name, _ = fields
                version, at = int(version_text), int(at_text)
                decode = decoders.get(kind) or self._decoder_of(kind)
                event = decode(data)
                sound = sounds.get(type(event))
                if not 0 <= at <= LAST_MS or (sound is not None and not sound(event)):
                    raise ValueError(_OUT_OF_RANGE)
                size_bytes += len(data)
                change = changes.get(task)
                if change is None:
                    if last_name != b"prev":
                        raise ValueError("its fields are not those of an event")
                    if task in left_out:
                        continue
                    if task not in known and version != 1 and is_task_id(task.decode()):
                        self._look_up(entries)
                        if task not in known:
                            raise _Unknown(entry)
                    if task not in known:
                        self._begin(task, version, event, kind, data, at)
                        continue
                    change = self._go_on(task, known.pop(task))
                if version != change.version + 1:
                    raise IllegalTransition(
                        f"version {version} of a task cannot follow version {change.version}"
                    )
                before = change.after
                change.after = state_after(before, event, at)
                change.version = version
                if kind in MEASURED:
                    measures.take(change.task_type, before, event, at)
        except (Undecodable, IllegalTransition, ValueError, OverflowError, RecursionError) as error:
            assert entry is not None  # noqa: S101 - it is one of them that failed
            raise _Unfit(entry, str(error)) from error
        finally:
            self.bytes += size_bytes

    def _look_up(self, entries: Sequence[Entry]) -> None:
        """Get at hand the tasks that these entries go on with."""
        wanted = {
            fields[TASK]
            for _, fields in entries
            if len(fields) == FIELDS
            and fields[VERSION] != b"1"
            and fields[TASK] not in self._changes
            and fields[TASK] not in self._known
            and is_task_id(fields[TASK].decode(errors="replace"))
        }
        tasks = list(wanted)
        for first in range(0, len(tasks), SELECT_MAX):
            self._select(tasks[first : first + SELECT_MAX])

    def _decoder_of(self, kind: bytes) -> Callable[[bytes], Event]:
        decode = self._decoders[kind] = decoder_of(kind)
        return decode

    def _submitted(self, event: Event, data: bytes, kind: str, at: int) -> Known:
        if not isinstance(event, TaskSubmitted):
            next_status(None, type(event))
            raise AssertionError("the transition table lets a life begin in one way only")
        return Known(
            self._names.number(event.kb_id),
            self._names.number(event.task_type),
            PRIORITY_NO[event.priority],
            initial_state(event, at),
            1,
            encode(event) if kind in UPCASTERS else data,
        )

    def _begin(
        self, task: bytes, version: int, event: Event, kind: bytes, data: bytes, at: int
    ) -> None:
        known = self._submitted(event, data, kind.decode(), at)
        if version != 1:
            raise IllegalTransition(f"a task cannot begin with version {version}")
        self._changes[task] = Change(
            _id_bytes(task), known.kb, known.task_type, known.priority, None, known.state, 1,
            False, known.submission,
        )  # fmt: skip

    def _go_on(self, task: bytes, known: Known) -> Change:
        change = self._changes[task] = Change(
            _id_bytes(task), known.kb, known.task_type, known.priority, known.state, known.state,
            known.version, known.submission is None, known.submission,
        )  # fmt: skip
        return change

    def _is_of_no_task(self, partition: int, entry: Entry) -> bool:
        try:
            return read_recorded(partition, entry).of_system
        except ForeignEntry as stranger:
            self._foreign.met(stranger)
            return True

    def _step_over(self, fields: list[bytes]) -> None:
        """An event that was said to be left out still counts as one of its task's versions."""
        task, version = fields[TASK], int(fields[VERSION])
        if task not in self._changes and task not in self._known:
            self._select([task])
        change, known = self._changes.get(task), self._known.pop(task, None)
        if change is None and known is not None:
            change = self._go_on(task, known)
        if change is not None:
            change.version = _stepped_over(change.version, version)

    def _select(self, tasks: list[bytes]) -> None:
        by_id = {_id_bytes(task): task for task in tasks}
        marks = ",".join("?" * len(by_id))
        rows = self._db.execute(f"{_SELECT} ({marks})", list(by_id))
        for id, kb, task_type, priority, state, version in rows:
            known = Known(kb, task_type, priority, _decode_state(state), version)
            self._known[by_id[id]] = known
            if known.state.status in FINISHED:
                self._looked_up.append(by_id[id])


def _stepped_over(before: int, version: int) -> int:
    """The version of a task behind an event that is left out, and says it is its `version`."""
    return max(before, version) if version < NUMBER_END else before + 1


def _id_bytes(task: bytes) -> bytes:
    """Raises ValueError for what is no task id."""
    text = task.decode()
    if not is_task_id(text):
        raise ValueError(f"{text[:80]!r} is no task id")
    return bytes.fromhex(text.replace("-", ""))
