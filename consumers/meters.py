"""What one process measures of itself, for /metrics: a few additions each time, and no lock.

Everything here is told to others through `consumers.meter_files`; what the ledger knows (tasks,
queues, attempts) is not measured again.
"""

import bisect
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

DURATION_BOUNDS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, float("inf")),
)
BATCH_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, float("inf"))
"""Upper bounds of the buckets; a value on a bound belongs below it."""

SERIES_MAX: Final = 500
"""Combinations of route, method and status that are told apart; further ones are one together."""

OTHER: Final = "other"
METHODS: Final = frozenset(("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"))
"""Callers may invent methods; those are `other`."""

Number = TypeVar("Number", int, float)

RequestKey = tuple[str, str, int]
"""Route (a template, never a path), method, status."""

OVERFLOW: Final[RequestKey] = (OTHER, OTHER, 0)


class Histogram(msgspec.Struct):
    """How many values fell under each bound, and their sum."""

    counts: list[int]
    total: float = 0.0


class Meters(msgspec.Struct, kw_only=True):
    """The measurements of one process, or of several added up."""

    requests: dict[str, Histogram] = {}
    """By route, method and status, separated by blanks."""
    calls: dict[str, Histogram] = {}
    """Of gRPC, by method and status, separated by a blank."""
    append_seconds: Histogram = msgspec.field(default_factory=lambda: empty(DURATION_BOUNDS_S))
    append_items: Histogram = msgspec.field(default_factory=lambda: empty(BATCH_BOUNDS))
    stream_clients: int = 0
    streams_dropped: int = 0
    uploads_running: int = 0
    upload_files: int = 0
    upload_bytes: int = 0
    orphans_removed: int = 0
    events_trimmed: int = 0
    tasks_evicted: int = 0
    websocket_clients: int = 0
    websockets_dropped: int = 0
    foreign_entries: int = 0
    threads_abandoned: int = 0
    callbacks_delivered: int = 0
    callbacks_failed: int = 0
    callback_seconds: Histogram = msgspec.field(default_factory=lambda: empty(DURATION_BOUNDS_S))
    events_sealed: int = 0
    seal_seconds: Histogram = msgspec.field(default_factory=lambda: empty(DURATION_BOUNDS_S))
    seals_failed: int = 0
    retentions_failed: int = 0
    checkpoints_cosigned: int = 0
    cosignings_failed: int = 0
    loop_blocks: dict[str, int] = {}
    """By the task type whose handler held up the event loop; "" where that is unknown."""
    loop_blocked_seconds: dict[str, float] = {}


class Meter:
    """Measures. `changed` is set by every measurement, for whoever keeps them; `keep` does so at
    once, from any thread."""

    def __init__(self) -> None:
        self.changed = False
        self.keep: Callable[[], None] = lambda: None
        self.meters = Meters()
        self._requests: dict[RequestKey, Histogram] = {}

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        found = self._requests.get((route, method, status))
        if found is None:
            found = self._series(route, method, status)
        found.counts[bisect.bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        found.total += seconds
        self.changed = True

    def call(self, method: str, code: str, seconds: float) -> None:
        """A gRPC call was answered; both names are among a few."""
        named = f"{method} {code}"
        found = self.meters.calls.get(named)
        if found is None:
            found = self.meters.calls[named] = empty(DURATION_BOUNDS_S)
        found.counts[bisect.bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        found.total += seconds
        self.changed = True

    def append(self, items: int, seconds: float) -> None:
        """So many steps were appended to the ledger together."""
        meters = self.meters
        meters.append_seconds.counts[bisect.bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        meters.append_seconds.total += seconds
        meters.append_items.counts[bisect.bisect_left(BATCH_BOUNDS, items)] += 1
        meters.append_items.total += items
        self.changed = True

    def stream(self, *, opened: int = 0, dropped: int = 0) -> None:
        """Clients of `/api/v1/events` came (or went, below 0), or were cut off."""
        self.meters.stream_clients += opened
        self.meters.streams_dropped += dropped
        self.changed = True

    def callback(self, *, delivered: bool, seconds: float) -> None:
        """A callback was posted, and taken or not."""
        meters = self.meters
        meters.callbacks_delivered += delivered
        meters.callbacks_failed += not delivered
        meters.callback_seconds.counts[bisect.bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        meters.callback_seconds.total += seconds
        self.changed = True

    def sealed(self, events: int, seconds: float) -> None:
        """So many events were sealed together."""
        meters = self.meters
        meters.events_sealed += events
        meters.seal_seconds.counts[bisect.bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        meters.seal_seconds.total += seconds
        self.changed = True

    def cosigned(self, done: bool) -> None:
        """A witness was asked to cosign a checkpoint."""
        self.meters.checkpoints_cosigned += done
        self.meters.cosignings_failed += not done
        self.changed = True

    def seal_failed(self) -> None:
        """Events could not be sealed, and are tried again."""
        self.meters.seals_failed += 1
        self.changed = True

    def retention_failed(self) -> None:
        """Nothing was let go of, since the archive could not be read, or has lost it."""
        self.meters.retentions_failed += 1
        self.changed = True

    def uploads(self, *, running: int = 0, files: int = 0, size: int = 0) -> None:
        """Uploads began (or ended, below 0); files were stored, so many bytes in all."""
        self.meters.uploads_running += running
        self.meters.upload_files += files
        self.meters.upload_bytes += size
        self.changed = True

    def orphans_removed(self, count: int) -> None:
        """Objects were removed that belong to no task."""
        self.meters.orphans_removed += count
        self.changed = True

    def let_go(self, *, events: int = 0, tasks: int = 0) -> None:
        """Sealed events were trimmed, finished tasks evicted."""
        self.meters.events_trimmed += events
        self.meters.tasks_evicted += tasks
        self.changed = True

    def websocket(self, *, opened: int = 0, dropped: int = 0) -> None:
        """Clients of `/ws/tasks` came (or went, below 0), or were cut off."""
        self.meters.websocket_clients += opened
        self.meters.websockets_dropped += dropped
        self.changed = True

    def foreign(self, count: int) -> None:
        """So many foreign entries were met so far."""
        if count != self.meters.foreign_entries:
            self.meters.foreign_entries = count
            self.changed = True

    def threads_abandoned(self, count: int) -> None:
        """So many threads run on, whose tasks were given up."""
        self.meters.threads_abandoned = count
        self.changed = True

    def loop_blocked(self, task_type: str) -> None:
        """A handler holds up the event loop: called by another thread, and kept at once, since the
        process may be killed for it."""
        _add_to(self.meters.loop_blocks, task_type, 1)
        self.changed = True
        self.keep()

    def loop_moves(self, task_type: str, seconds: float) -> None:
        """The event loop moves again, after so long."""
        _add_to(self.meters.loop_blocked_seconds, task_type, seconds)
        self.changed = True

    def _series(self, route: str, method: str, status: int) -> Histogram:
        key = (route, method if method in METHODS else OTHER, status)
        if key not in self._requests and len(self._requests) >= SERIES_MAX:
            key = OVERFLOW
        if key not in self._requests:
            named = " ".join(map(str, key))
            self._requests[key] = self.meters.requests[named] = empty(DURATION_BOUNDS_S)
        return self._requests[key]


def empty(bounds: tuple[float, ...]) -> Histogram:
    """Without a value yet."""
    return Histogram([0] * len(bounds))


def add(total: Meters, other: Meters, *, ended: bool) -> None:
    """Add `other` to `total`; of a process that has `ended`, neither connections nor threads
    are left."""
    for key, histogram in other.requests.items():
        _add(total.requests.setdefault(key, empty(DURATION_BOUNDS_S)), histogram)
    for key, histogram in other.calls.items():
        _add(total.calls.setdefault(key, empty(DURATION_BOUNDS_S)), histogram)
    _add(total.append_seconds, other.append_seconds)
    _add(total.append_items, other.append_items)
    _add(total.callback_seconds, other.callback_seconds)
    _add(total.seal_seconds, other.seal_seconds)
    total.events_sealed += other.events_sealed
    total.seals_failed += other.seals_failed
    total.retentions_failed += other.retentions_failed
    total.checkpoints_cosigned += other.checkpoints_cosigned
    total.cosignings_failed += other.cosignings_failed
    total.callbacks_delivered += other.callbacks_delivered
    total.callbacks_failed += other.callbacks_failed
    total.streams_dropped += other.streams_dropped
    total.stream_clients += 0 if ended else other.stream_clients
    total.uploads_running += 0 if ended else other.uploads_running
    total.upload_files += other.upload_files
    total.upload_bytes += other.upload_bytes
    total.orphans_removed += other.orphans_removed
    total.events_trimmed += other.events_trimmed
    total.tasks_evicted += other.tasks_evicted
    total.websockets_dropped += other.websockets_dropped
    total.websocket_clients += 0 if ended else other.websocket_clients
    total.threads_abandoned += 0 if ended else other.threads_abandoned
    for task_type, blocks in other.loop_blocks.items():
        _add_to(total.loop_blocks, task_type, blocks)
    for task_type, seconds in other.loop_blocked_seconds.items():
        _add_to(total.loop_blocked_seconds, task_type, seconds)
    # Each process reads all of the ledger: the one that has met most has met what the others have.
    total.foreign_entries = max(total.foreign_entries, other.foreign_entries)


def _add(total: Histogram, other: Histogram) -> None:
    total.counts = [a + b for a, b in zip(total.counts, other.counts, strict=True)]
    total.total += other.total


def _add_to(sums: dict[str, Number], key: str, more: Number) -> None:
    sums[key] = sums[key] + more if key in sums else more
