"""Between the Store's structs and what the scripts take and give: arguments and replies."""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, cast

import msgspec

from ledger.codec import Undecodable, decode_system, decode_task, encode
from ledger.events import Priority, TaskErased, TaskSubmitted
from ledger.foreign import ForeignEntry
from ledger.identity import SYSTEM, is_derived, is_task_id
from ledger.keys import PartitionKeys, queue_name
from ledger.moments import LAST_MS
from ledger.placement import Callback, Due, Leased, Nowhere, Queue, Ready, placement, queue_of
from ledger.store import (
    VERSION_MAX,
    Append,
    Claimed,
    Conflict,
    Delivery,
    Entry,
    Full,
    Limited,
    Outcome,
    Position,
    Recorded,
    SystemAppend,
    Written,
    limit_share,
)
from ledger.system.events import LimitScope
from ledger.system.state import INITIAL, System
from ledger.task import Task
from ledger.workers import WorkerReport

Argument = str | bytes | int

_SCOPES = frozenset(LimitScope)
_decode_report = msgspec.json.Decoder(WorkerReport).decode


PRIORITIES: Final = "".join(f"{priority.value}," for priority in Priority)
"""As the scripts want to be told them."""


class EncodedAppend(msgspec.Struct, frozen=True, gc=False):
    """An Append as the script wants it."""

    subject: str
    version: int
    """Of the subject, once it is written."""
    commit: str
    key: str
    arguments: list[Argument]
    size_bytes: int
    """Of what varies: the state and the events."""


def encode_append(
    partition: PartitionKeys, step: Append, commit: str, absent_as_of: str
) -> EncodedAppend:
    """`absent_as_of`: up to this entry, the task that begins here is known not to have been
    evicted; asked of those only whose ids may be met again."""
    after, before = step.after, step.before
    submission = after.submission
    state = encode(after.state)
    size_bytes = len(state)
    arguments: list[Argument] = [
        after.id,
        0 if before is None else before.version,
        commit,
        after.state.updated_at,
        _with_commit(encode(step.meta), commit),
        queue_name(queue_of(after)),
        submission.kb_id,
        _submission_argument(step, absent_as_of),
        state,
        *_place_arguments(before, after, step),
        len(step.events),
    ]
    for event in step.events:
        data = encode(event)
        size_bytes += len(data)
        arguments += (type(event).__name__, data)
    key = partition.task(after.id)
    return EncodedAppend(after.id, after.version, commit, key, arguments, size_bytes)


def _submission_argument(step: Append, absent_as_of: str) -> str | bytes:
    task_id = step.after.id
    match step.events[0]:
        case TaskSubmitted():
            return f"={absent_as_of}" if is_derived(task_id) else "="
        case TaskErased():
            return encode(step.after.submission)
        case _:
            return ""


def encode_system_append(
    partition: PartitionKeys, step: SystemAppend, commit: str
) -> EncodedAppend:
    """The same of the service as a whole, which waits nowhere and was never submitted."""
    after, state = step.after, encode(step.after.state)
    size_bytes = len(state)
    arguments: list[Argument] = [
        *(SYSTEM, step.before.version, commit, after.state.updated_at),
        *(_with_commit(encode(step.meta), commit), "", "", "", state),
        *("keep", 0, "", len(step.events)),
    ]
    for event in step.events:
        data = encode(event)
        size_bytes += len(data)
        arguments += (type(event).__name__, data)
    key = partition.task(SYSTEM)
    return EncodedAppend(SYSTEM, after.version, commit, key, arguments, size_bytes)


def _with_commit(meta: bytes, commit: str) -> bytes:
    """The JSON of a Meta that names a commit, from that of one that names none."""
    return b'%b%b"commit":"%b"}' % (meta[:-1], b"," if len(meta) > 2 else b"", commit.encode())


class EvictedSince(Enum):
    EVICTED_SINCE = "evicted since"


EVICTED_SINCE: Final = EvictedSince.EVICTED_SINCE
"""Nothing was written: the task may have been evicted, later than its writer knew."""


def read_outcome(partition: int, reply: bytes | int) -> Outcome | EvictedSince | None:
    """What became of an item; None when a key of it holds something foreign."""
    if isinstance(reply, bytes):
        entry, _, queue_position = reply.decode().partition(" ")
        return Written(Position(partition, entry), int(queue_position) if queue_position else None)
    match reply:
        case -2:
            return None
        case -1:
            return Full()
        case -3:
            return Limited()
        case -4:
            return EVICTED_SINCE
        case version:
            return Conflict(version)


def _place_arguments(before: Task | None, after: Task, step: Append) -> tuple[str, int, str]:
    """The new place for the script: kind, number, name."""
    place = placement(after)
    # Another status is another place; telling that first spares most appends the comparison.
    if before is not None and before.status is after.status and placement(before) == place:
        return "keep", 0, ""
    match place:
        case Nowhere():
            return "none", 0, ""
        case Leased():
            return "lease", place.lease_ms, str(place.attempt)
        case Ready():
            return "ready", step.queue_max, "tell" if step.tell_queue_position else ""
        case Due():
            return "due", place.at_ms, ""
        case Callback():
            return "callback", place.at_ms, place.host


def read_task(task_id: str, reply: tuple[bytes | None, bytes | None, bytes | None]) -> Task | None:
    version, submission, state = reply
    if version is None and submission is None and state is None:
        return None
    if version is None or not version.isdigit():
        version = version or b""
        raise Undecodable(f"the snapshot of task {task_id} has no version, but {version[:40]!r}")
    return decode_task(task_id, int(version), submission or b"", state or b"")


def read_system(version: bytes | None, state: bytes | None) -> System:
    if version is None:
        return INITIAL
    return decode_system(read_system_version(version), state or b"")


def read_system_version(version: bytes | None) -> int:
    if version is None:
        return 0
    if not version.isdigit():
        raise Undecodable(f"the snapshot of the system has no version, but {version[:40]!r}")
    return int(version)


def read_number(stored: bytes | None) -> int:
    """A count or a version; 0 for what is none, as the scripts take it."""
    return int(stored) if stored is not None and stored.isdigit() else 0


def limit_fields(system: System, partitions: int) -> dict[str, int]:
    """The limits as a partition keeps them, by the names that counters have too."""
    state = system.state
    return {
        f"{scope.value}:{name}": limit_share(limit, partitions)
        for scope in LimitScope
        for name, limit in state.limits(scope).items()
    }


def changed_limit_fields(before: System, after: System, partitions: int) -> dict[str, int | str]:
    """Of these fields, those that are not as they were; "" for one that is gone."""
    old, new = limit_fields(before, partitions), limit_fields(after, partitions)
    changed: dict[str, int | str] = {n: of for n, of in new.items() if old.get(n) != of}
    return changed | dict.fromkeys(old.keys() - new.keys(), "")


def read_limits(flat: list[bytes]) -> dict[tuple[LimitScope, str], int]:
    held: dict[tuple[LimitScope, str], int] = {}
    for field, value in _fields(flat).items():
        scope, colon, name = field.decode(errors="replace").partition(":")
        if colon and scope in _SCOPES and value.isdigit():
            held[LimitScope(scope), name] = int(value)
    return held


def read_lease(member: bytes) -> tuple[str, int]:
    task_id, _, attempt = member.decode(errors="replace").rpartition(":")
    # What is no lease of ours names no task either.
    return task_id, int(attempt) if attempt.isdecimal() else 0


def read_report(stored: bytes) -> WorkerReport:
    try:
        return _decode_report(stored)
    except ValueError as error:
        raise Undecodable(f"what a worker said of itself cannot be read: {error}") from error


def read_score(stored: bytes) -> int:
    """A time (ms) that a sorted set goes by."""
    try:
        return int(float(stored))
    except (ValueError, OverflowError) as error:
        raise Undecodable(f"{stored[:40]!r} is no time") from error


def _fields(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


EVENT_FIELDS = [b"type", b"task", b"version", b"at", b"data", b"meta", b"prev"]
"""As append.lua writes them, always in this order."""


_new_position = cast(
    "Callable[[type[Position], tuple[int, str]], Position]",
    tuple.__new__,  # pyright: ignore[reportUnknownMemberType]
)
"""As Position(…), in half the time: this is done for every event that is read."""


def read_recorded(partition: int, entry: Entry) -> Recorded:
    """An event from its stream entry. Raises ForeignEntry for an entry that is none."""
    position = _new_position(Position, (partition, entry[0].decode()))
    flat = entry[1]
    try:
        if flat[::2] != EVENT_FIELDS:
            raise ValueError(f"its fields are {flat[::2]!r:.80}")
        kind, task, version, at, data, meta, prev = flat[1::2]
        task_id = task.decode()
        if not is_task_id(task_id) and (task_id != SYSTEM or partition):
            raise ValueError(f"{task_id[:80]!r} is no task id")
        number, at_ms = int(version), int(at)
        if not (0 <= at_ms <= LAST_MS and 0 < number <= VERSION_MAX):
            raise ValueError(f"its time or version is out of range: {at[:40]!r}, {version[:40]!r}")
        return Recorded(
            position,
            kind.decode(),
            task_id,
            number,
            at_ms,
            data,
            meta,
            prev.decode(),
        )
    except ValueError as error:
        raise ForeignEntry(position, repr(error)) from error


def as_entry(event: Recorded) -> Entry:
    """An event as it lies in a stream."""
    return event.position.entry.encode(), [
        *(b"type", event.type.encode(), b"task", event.task_id.encode()),
        *(b"version", b"%d" % event.version, b"at", b"%d" % event.at),
        *(b"data", event.data, b"meta", event.meta, b"prev", event.prev.encode()),
    ]


def read_events(
    partition: int, entries: Sequence[Entry]
) -> tuple[list[Recorded], list[ForeignEntry]]:
    """The events among stream entries, and what else there was, each in the entries' order."""
    try:
        return [read_recorded(partition, entry) for entry in entries], []
    except ForeignEntry:
        return _sorted_out(partition, entries)


def _sorted_out(
    partition: int, entries: Sequence[Entry]
) -> tuple[list[Recorded], list[ForeignEntry]]:
    """As `read_events`, where something foreign is among them."""
    events: list[Recorded] = []
    foreign: list[ForeignEntry] = []
    for entry in entries:
        try:
            events.append(read_recorded(partition, entry))
        except ForeignEntry as stranger:
            foreign.append(stranger)
    return events, foreign


def read_delivery(partition: int, queue: Queue, entry: tuple[bytes, list[bytes]]) -> Delivery:
    task_id = _fields(entry[1]).get(b"task", b"").decode(errors="replace")
    return Delivery(queue, partition, entry[0].decode(), task_id)


def read_claimed(partition: int, queues: Sequence[Queue], row: list[Any]) -> Claimed:
    stream, entry, task_id, version, submission, state = row
    delivery = Delivery(
        queues[int(stream) - 1], partition, entry.decode(), task_id.decode(errors="replace")
    )
    try:
        task = read_task(delivery.task_id, (version, submission, state))
    except Undecodable as error:
        return Claimed(delivery, None, str(error))
    return Claimed(delivery, task, "there is no such task" if task is None else "")
