"""The seam between the rules and the disk: what a store must do, in words and types.

Two stores exist, `memory_store` (the readable reference) and `redis_store`; one contract suite,
`tests/contracts/store.py`, runs on both.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, Self

import msgspec

from ledger.codec import Meta, decode_event, decode_system_event
from ledger.events import Event, Priority
from ledger.identity import SYSTEM
from ledger.placement import Queue
from ledger.system.events import LimitScope, SystemEvent
from ledger.system.state import System
from ledger.task import Task
from ledger.workers import WorkerReport, WorkerSeen

CALLBACK_HOSTS_COUNTED: Final = 1_000

_ENTRY_NUMBER_MAX: Final = (1 << 64) - 1
_ENTRY_CHARACTERS_MAX: Final = 41


class Position(NamedTuple):
    """Where an event stands in the ledger: its partition and its stream entry id.

    Written `<partition>:<ms>-<seq>`, e.g. `0:1763811000123-0`. Positions of one partition are in
    order; those of different partitions cannot be compared.
    """

    partition: int
    entry: str

    def __str__(self) -> str:
        return f"{self.partition}:{self.entry}"

    @property
    def order(self) -> tuple[int, int]:
        """Compares as the positions of one partition do."""
        ms, _, seq = self.entry.partition("-")
        return int(ms), int(seq)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, saying what was expected, for anything that is not a position."""
        partition, colon, entry = text.partition(":")
        ms, dash, seq = entry.partition("-")
        numbers = (partition, ms, seq)
        if not (colon and dash and text.isascii() and all(map(_is_entry_number, numbers))):
            raise ValueError(f"expected a position such as 0:1763811000123-0, got {text[:80]!r}")
        return cls(int(partition), f"{int(ms)}-{int(seq)}")

    @classmethod
    def at(cls, partition: int, entry: str) -> Self:
        """Raises ValueError for anything that is not the id of an entry, as Redis writes it."""
        ms, _, seq = entry.partition("-")
        if len(entry) > _ENTRY_CHARACTERS_MAX or f"{int(ms)}-{int(seq)}" != entry or "--" in entry:
            raise ValueError(f"expected the id of an entry, got {entry[:80]!r}")
        return cls(partition, entry)


def _is_entry_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= 20 and int(text) <= _ENTRY_NUMBER_MAX


def parse_positions(text: str, partitions: int) -> dict[int, Position]:
    """Positions by their partitions, from a comma-separated list of at most one for each.

    Raises ValueError, saying what was expected, for anything else.
    """
    found: dict[int, Position] = {}
    for part in text.split(","):
        position = Position.parse(part.strip())
        if position.partition >= partitions:
            raise ValueError(f"expected a partition from 0 to {partitions - 1}, got {position}")
        if position.partition in found:
            raise ValueError(f"expected one position for partition {position.partition}")
        found[position.partition] = position
    return found


def positions_text(positions: Iterable[Position]) -> str:
    """The list that `parse_positions` reads."""
    return ",".join(map(str, positions))


class Append(msgspec.Struct, frozen=True, gc=False):
    """One task's step: from `before` (None: it does not exist) through `events` to `after`."""

    before: Task | None
    after: Task
    events: tuple[Event, ...]
    meta: Meta
    queue_max: int = 0
    """Refuse to enter a ready queue in which so many wait already; 0 means no bound."""
    tell_queue_position: bool = False
    """Say in the outcome where in its ready queue the task waits, when it enters one."""
    patient: bool = False
    """It may wait a moment, at most 5 ms, for others to be written with."""


class SystemAppend(msgspec.Struct, frozen=True, gc=False):
    """A step of the service as a whole: from `before` through `events` to `after`."""

    before: System
    after: System
    events: tuple[SystemEvent, ...]
    meta: Meta


class Written(msgspec.Struct, frozen=True, gc=False):
    """The events are in the ledger; `position` is that of the last one.

    `queue_position` is as `Store.queue_position` tells it, where that was asked for; None when it
    was not, when the task entered no ready queue, or when a reply was lost on the way.
    """

    position: Position
    queue_position: int | None = None


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """Nothing was written: the task is at `version`, not where the caller thought."""

    version: int


class Full(msgspec.Struct, frozen=True, gc=False):
    """Nothing was written: the task's ready queue has reached `queue_max`."""


class Limited(msgspec.Struct, frozen=True, gc=False):
    """Nothing was written: the task is behind a limit, and cannot be started now."""


Outcome = Written | Conflict | Full | Limited


VERSION_MAX: Final = (1 << 53) - 1
"""Of an event. Whole numbers that are larger have no canonical JSON."""


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An event as it stands in the ledger. `at` is in ms, of the years 1970 to 9999; `prev` is the
    entry id of the task's previous event, empty for its first. `task_id` is SYSTEM where it belongs
    to no task."""

    position: Position
    type: str
    task_id: str
    version: int
    at: int
    data: bytes
    meta: bytes
    prev: str

    @property
    def of_system(self) -> bool:
        """Whether it belongs to the service as a whole, rather than to a task."""
        return self.task_id == SYSTEM

    def event(self) -> Event:
        """What happened to a task. Raises UnknownEventType or Undecodable."""
        return decode_event(self.type, self.data)

    def system_event(self) -> SystemEvent:
        """What happened to the service. Raises UnknownEventType or Undecodable."""
        return decode_system_event(self.type, self.data)


class Extent(msgspec.Struct, frozen=True, gc=False):
    """What a partition holds: who reads on from a position between these two misses nothing that
    was trimmed.

    `first` is `0-0` while nothing was taken away; `last` is the end of all that there ever was, and
    `added` how many entries that were.
    """

    first: Position
    last: Position
    added: int
    deleted: Position | None = None
    """The newest entry that was taken out by itself, from wherever it stood."""

    @property
    def whole_from(self) -> Position:
        """As `first`, for whoever must not miss what was taken out of the middle either."""
        return max(self.first, self.deleted or self.first, key=lambda position: position.order)


Entry = tuple[bytes, list[bytes]]
"""What lies in a partition's stream, as it lies there: the entry's id, then names and values of its
fields in turn. `ledger.script_format.read_recorded` makes a Recorded of it."""


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A ready entry handed out by a consumer group."""

    queue: Queue
    partition: int
    entry: str
    task_id: str


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """A delivery with its task; or, when there is none to be had, the reason in `fault`."""

    delivery: Delivery
    task: Task | None
    fault: str = ""


class Overdue(msgspec.Struct, frozen=True, gc=False):
    """What the clock of the ledger says: which tasks to release, and which leases ran out."""

    now_ms: int
    due: tuple[str, ...]
    expired: tuple[tuple[str, int], ...]
    """(task id, attempt)"""
    next_in_ms: int | None
    """Until the next of either; None when nothing waits."""


class DueCallback(msgspec.Struct, frozen=True, gc=False):
    """A task whose end a host is to be told of."""

    host: str
    task_id: str


class DueCallbacks(msgspec.Struct, frozen=True):
    """Callbacks that were handed out."""

    callbacks: tuple[DueCallback, ...]
    next_in_ms: int | None
    """Until more is due, as far as is known; None when nothing waits. What is due already, and was
    left because its host has no room, is not counted."""


class CallbacksWaiting(msgspec.Struct, frozen=True):
    """What became of no post so far: how many wait, how many of them are due, and for how long the
    oldest of these has been (ms). Those in hand are not due."""

    waiting: int
    due: int
    oldest_ms: int


Waiting = Mapping[Priority, tuple[int, ...]]
"""How many tasks are ready, by priority; for each partition, in their order."""


def waiting_elsewhere(waiting: Waiting, partition: int, priority: Priority) -> int:
    """Of what is ready, how much is at least as urgent as `priority`, and in other partitions."""
    order = list(Priority)
    at_least_as_urgent = order[: order.index(priority) + 1]
    return sum(sum(waiting[p]) - waiting[p][partition] for p in at_least_as_urgent)


def limit_share(limit: int, partitions: int) -> int:
    """What each partition may admit, since none knows of the others: rounded up, so that a limit
    holds exactly where it is a multiple of the partitions, and else by less than one for each."""
    return -(-limit // partitions)


class Events(Protocol):
    """What was recorded, for whoever reads it: a Store, or one together with its archive. Every
    method may raise Rejection(SERVICE_UNAVAILABLE); where there is an archive, also Incomplete and
    Damaged (`ledger.archive.reader`)."""

    @property
    def partitions(self) -> int:
        """How many partitions the ledger has."""
        ...

    async def epoch(self) -> str:
        """What tells this ledger from any other."""
        ...

    async def last_position(self, partition: int) -> Position:
        """The position of the last event; `0-0` when there is none."""
        ...

    async def entries_after(self, position: Position, count: int, wait_ms: int) -> list[Entry]:
        """The next entries of a partition, as `Store.entries_after` gives them."""
        ...

    async def events_after(self, position: Position, count: int, wait_ms: int) -> list[Recorded]:
        """The next events of a partition, as `Store.events_after` gives them."""
        ...

    async def event_at(self, position: Position) -> Recorded | None:
        """The event at a position; None when none stands there."""
        ...

    async def is_erased(self, position: Position) -> bool:
        """Whether an event stood there whose data was erased: it is gone, or is not what it was."""
        ...

    async def history(self, task_id: str) -> list[Recorded]:
        """All events of a task (or of SYSTEM), oldest first; empty when there is no such task."""
        ...


class Store(Protocol):
    """Keeps events, snapshots and places. Every method may raise Rejection with the code
    SERVICE_UNAVAILABLE when the ledger cannot be reached in time. Nothing is half done then, but
    whether a write was done is unknown: load the task, or send the same command again."""

    @property
    def partitions(self) -> int:
        """How many partitions the ledger has; fixed when it was made."""
        ...

    def partition_of(self, task_id: str) -> int:
        """The partition that a task lives in."""
        ...

    @property
    def connections_made(self) -> int:
        """How often a way to the server was made. While that has not grown, the server is the one
        that it was, with all that it had."""
        ...

    def now_ms(self) -> int:
        """The ledger's clock, in ms since the epoch."""
        ...

    async def append(self, step: Append) -> Outcome:
        """Write one task's step, whole or not at all, once however often it has to be sent."""
        ...

    async def append_all(self, steps: Sequence[Append]) -> list[Outcome | None]:
        """Write a step each of several tasks in fewer round trips than one by one. An outcome for
        each, in order, without queue positions; None for what `append` would raise for, other than
        a Rejection. When this raises, some may have been written."""
        ...

    async def load(self, task_id: str) -> Task | None:
        """The task as it is now. Raises Undecodable when its snapshot cannot be read."""
        ...

    async def history(self, task_id: str) -> list[Recorded]:
        """All events of a task (or of SYSTEM), oldest first; empty when there is no such task."""
        ...

    async def history_back(
        self, task_id: str, start: Position | None, count: int
    ) -> list[Recorded]:
        """At most `count` events of a task (or of SYSTEM), newest first, from the one at `start`
        on, which is its last one where none is given. Nothing where none stands."""
        ...

    async def load_system(self) -> System:
        """Pauses, limits and losses as they are now. Raises Undecodable."""
        ...

    async def system_version(self) -> int:
        """How many system events there are: whether something changed, told cheaply."""
        ...

    async def append_system(self, step: SystemAppend) -> Written | Conflict:
        """Write a step of the service, whole or not at all, once however often it is sent."""
        ...

    async def spread_limits(self, system: System, before: System | None = None) -> None:
        """Let every partition hold the limits of `system`, where it does not hold newer ones; each
        holds its share (`limit_share`). Where one holds those of `before`, it is given no more than
        what has changed since."""
        ...

    async def limits_held(self, partition: int) -> dict[tuple[LimitScope, str], int]:
        """The limits that a partition works by."""
        ...

    async def admitted(
        self, scope: LimitScope, names: Sequence[str], partition: int | None = None
    ) -> list[int]:
        """How many tasks count against a limit each of these would have: those that run, and those
        that are next to be taken; in one partition, or in all of them together."""
        ...

    async def recount(self, partition: int) -> int:
        """Count anew what counts against limits, where a partition's counts do not add up, and let
        what stands in line follow. Returns how many counts were put right."""
        ...

    async def is_held(self, task: Task) -> bool:
        """Whether the task waits in a backlog: it is not among those next to be taken."""
        ...

    async def queue_position(self, task: Task) -> int:
        """1 = next of its type to be taken; 0 when the task is not waiting in a queue.

        Partitions are served side by side, so what waits in the others and is at least as urgent
        counts as ahead.
        """
        ...

    async def waiting(self, task_type: str) -> Waiting:
        """How many tasks of a type are ready, those included that were claimed and not started."""
        ...

    async def claim(
        self, partition: int, queues: Sequence[Queue], count: int, delivered: Sequence[Delivery]
    ) -> list[Claimed]:
        """At most `count` ready tasks, the first queue's first; `delivered` ones are among them."""
        ...

    async def claim_stale(
        self, partition: int, queues: Sequence[Queue], count: int, idle_ms: int
    ) -> list[Claimed]:
        """Claims of others that did not become a start within `idle_ms`. Call it again to go on."""
        ...

    async def wait_ready(
        self, partition: int, queues: Sequence[Queue], timeout_ms: int
    ) -> list[Delivery]:
        """Sleep until a task is ready in one of `queues`, and take one; empty when time is up, or
        earlier. The delivery must be given to `claim`."""
        ...

    async def release(self, partition: int, deliveries: Sequence[Delivery]) -> None:
        """Give back claims that were not started: they are ready at once, at the end of their
        queues. Those whose tasks have moved on are left alone. What the store itself holds for
        claims to come is given back with them."""
        ...

    async def set_aside(self, delivery: Delivery, reason: str) -> None:
        """Take a ready entry that cannot be served out of its queue; keep it with the reason."""
        ...

    async def drop(self, delivery: Delivery) -> None:
        """Take a ready entry out of its queue whose task has moved on."""
        ...

    async def renew(
        self, partition: int, leases: Sequence[tuple[str, int]], lease_ms: int
    ) -> list[tuple[str, int]]:
        """Extend leases, given as (task id, attempt); returns those that hold no longer."""
        ...

    async def lease_until(self, task: Task) -> int | None:
        """When the lease of the task's running attempt ends, in ms; None when there is none."""
        ...

    async def announce(self, report: WorkerReport) -> None:
        """A worker's heartbeat: it is there, and this is what it does. Clears away some of those
        that have been silent for longer than LOST_KEPT_MS."""
        ...

    async def retire(self, worker_id: str) -> None:
        """The worker has come to its end, and is not lost."""
        ...

    async def workers(self) -> list[WorkerSeen]:
        """Those that announced themselves and did not retire, the longest-serving first; lost ones
        last, for LOST_KEPT_MS."""
        ...

    async def overdue(self, partition: int, count: int) -> Overdue:
        """At most `count` tasks to release and `count` leases that ran out."""
        ...

    async def take_callbacks(
        self,
        partition: int,
        count: int,
        *,
        host_max: int,
        in_hand: Mapping[str, int],
        lease_ms: int,
        settle_ms: int = 0,
    ) -> DueCallbacks:
        """At most `count` callbacks that have been due for `settle_ms`, which nobody else is given
        for `lease_ms`. `in_hand` says how many the caller has by host: no host gets more than
        `host_max` of them, and those of which least is in hand come first."""
        ...

    async def callbacks_due(self, partition: int, timeout_ms: int) -> bool:
        """Sleep until a callback may be due that was not: True, for one of those who wait. False
        when time is up, or earlier."""
        ...

    async def callbacks_waiting(self, partition: int) -> CallbacksWaiting:
        """What waits for a post; of CALLBACK_HOSTS_COUNTED hosts, if there are more."""
        ...

    async def last_position(self, partition: int) -> Position:
        """The position of the last event; `0-0` when there is none."""
        ...

    async def extent(self, partition: int) -> Extent:
        """From where to where a partition can be read."""
        ...

    async def events_after(self, position: Position, count: int, wait_ms: int) -> list[Recorded]:
        """The next events of a partition, oldest first, waiting for them up to `wait_ms`. What
        stands there and is no event of ledgerq is stepped over."""
        ...

    async def entries_after(self, position: Position, count: int, wait_ms: int) -> list[Entry]:
        """As `events_after`, for whoever reads many: nothing is made of the entries, and those that
        are no events are among them."""
        ...

    async def event_at(self, position: Position) -> Recorded | None:
        """The event at a position; None when none stands there."""
        ...

    async def is_erased(self, position: Position) -> bool:
        """Whether an event stood there that was taken out because its data was erased."""
        ...

    async def epoch(self) -> str:
        """What tells this ledger from any other: chosen by chance when it was made. Empty when the
        server has come to hold none."""
        ...
