"""The Store in plain dictionaries: the reference that the Redis store is compared with.

Nothing here waits, so every method is atomic. The clock and the idle wait are passed in, so that
tests and the simulation own time.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from ledger.codec import Undecodable, decode_system, decode_task, encode
from ledger.events import Priority, TaskErased, TaskSubmitted
from ledger.identity import SYSTEM, partition_of
from ledger.memory_callbacks import CallbackLines
from ledger.memory_queues import WaitingLines
from ledger.placement import (
    STAGED_MAX,
    Callback,
    Due,
    Leased,
    Nowhere,
    Place,
    Queue,
    Ready,
    placement,
    queue_of,
)
from ledger.script_format import as_entry, limit_fields
from ledger.store import (
    Append,
    CallbacksWaiting,
    Claimed,
    Conflict,
    Delivery,
    DueCallbacks,
    Entry,
    Extent,
    Full,
    Limited,
    Outcome,
    Overdue,
    Position,
    Recorded,
    SystemAppend,
    Waiting,
    Written,
    waiting_elsewhere,
)
from ledger.system.events import LimitScope
from ledger.system.state import System
from ledger.task import Status, Task
from ledger.workers import LOST_KEPT_MS, WorkerReport, WorkerSeen, in_order, seen


class Snapshot(msgspec.Struct):
    """A task as it is kept: bytes, as on a server, so that the codec is exercised too."""

    version: int
    submission: bytes
    state: bytes
    place: Place
    last: str


class Partition:
    """One partition's streams and sets."""

    def __init__(self, staged_max: int = STAGED_MAX) -> None:
        self.events: list[Recorded] = []
        self.tasks: dict[str, Snapshot] = {}
        self.queues = WaitingLines(self.next_entry, staged_max)
        self.due: dict[str, int] = {}
        self.leases: dict[tuple[str, int], int] = {}
        self.callbacks = CallbackLines()
        self.set_aside: list[tuple[Delivery, str]] = []
        self.limits_version = 0
        self.entries = 0

    def next_entry(self) -> str:
        self.entries += 1
        return f"{self.entries}-0"


class MemoryStore:
    """All of a ledger in this process; gone with it. `idle(timeout_ms)` is awaited where a server
    would block; it returns early when something was appended, or not, as it likes."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        idle: Callable[[int], Awaitable[None]],
        partitions: int = 1,
        epoch: str = "memory",
        staged_max: int = STAGED_MAX,
    ) -> None:
        self._now_ms = now_ms
        self._epoch = epoch
        self._idle = idle
        self.contents = [Partition(staged_max) for _ in range(partitions)]
        self.reports: dict[str, tuple[WorkerReport, int]] = {}
        self._system = (0, encode(System().state), "")
        """Version, state, entry of the last event."""

    @property
    def partitions(self) -> int:
        return len(self.contents)

    @property
    def connections_made(self) -> int:
        return 0

    def partition_of(self, task_id: str) -> int:
        return partition_of(task_id, self.partitions)

    def now_ms(self) -> int:
        return self._now_ms()

    async def append(self, step: Append) -> Outcome:
        number = self.partition_of(step.after.id)
        partition, task = self.contents[number], step.after
        kept = partition.tasks.get(task.id)
        version = 0 if kept is None else kept.version
        if version != (0 if step.before is None else step.before.version):
            return Conflict(version)
        place = placement(task)
        if isinstance(place, Ready) and 0 < step.queue_max <= len(
            partition.queues.line(place.queue)
        ):
            return Full()
        if isinstance(place, Leased) and partition.queues.is_behind_limit(task):
            return Limited()
        if kept is None:
            assert isinstance(step.events[0], TaskSubmitted)  # noqa: S101 - decide's first event
            kept = Snapshot(0, encode(step.events[0]), b"", Nowhere(), "")
            partition.tasks[task.id] = kept
        for event in step.events:
            kept.version += 1
            position = Position(number, partition.next_entry())
            partition.events.append(
                Recorded(
                    position,
                    type(event).__name__,
                    task.id,
                    kept.version,
                    task.state.updated_at,
                    encode(event),
                    encode(step.meta),
                    kept.last,
                )
            )
            kept.last = position.entry
        kept.state = encode(task.state)
        if isinstance(step.events[0], TaskErased):
            kept.submission = encode(task.submission)
        queue_position = None
        if place != kept.place:
            self._leave(partition, task, kept)
            self._enter(partition, task, kept, place)
            if step.tell_queue_position and isinstance(place, Ready):
                queue_position = await self.queue_position(task)
        return Written(Position(number, kept.last), queue_position)

    async def append_all(self, steps: Sequence[Append]) -> list[Outcome | None]:
        return [await self.append(step) for step in steps]

    def _leave(self, partition: Partition, task: Task, kept: Snapshot) -> None:
        queues, submission = partition.queues, task.submission
        match kept.place:
            case Ready(queue):
                to_run = task.status is Status.PROCESSING
                queues.leave(queue, task, to_run=to_run)
            case Due():
                partition.due.pop(task.id, None)
            case Leased(attempt):
                partition.leases.pop((task.id, attempt), None)
                queues.end_run(queue_of(task), submission.kb_id)
            case Callback(_, host):
                partition.callbacks.leave(host, task.id)
            case Nowhere():
                pass

    def _enter(self, partition: Partition, task: Task, kept: Snapshot, place: Place) -> None:
        before, kept.place = kept.place, place
        match place:
            case Ready(queue):
                partition.queues.enter(queue, task)
            case Due(at_ms):
                partition.due[task.id] = at_ms
            case Leased(attempt, lease_ms):
                partition.leases[task.id, attempt] = self._now_ms() + lease_ms
                submission = task.submission
                partition.queues.admit(submission.task_type, submission.kb_id, 1)
            case Callback(at_ms, host):
                if not isinstance(before, Callback):  # news: for now, whatever clock it is told by
                    at_ms = min(at_ms, self._now_ms() + 1_000)
                partition.callbacks.enter(host, task.id, at_ms)
            case Nowhere():
                pass

    async def load(self, task_id: str) -> Task | None:
        kept = self._partition(task_id).tasks.get(task_id)
        if kept is None:
            return None
        return decode_task(task_id, kept.version, kept.submission, kept.state)

    async def history(self, task_id: str) -> list[Recorded]:
        return [e for e in self._partition(task_id).events if e.task_id == task_id]

    async def history_back(
        self, task_id: str, start: Position | None, count: int
    ) -> list[Recorded]:
        found = (await self.history(task_id))[::-1]
        first = [i for i, event in enumerate(found) if start in (None, event.position)][:1]
        return [event for at in first for event in found[at : at + count]]

    async def append_system(self, step: SystemAppend) -> Written | Conflict:
        version, _, last = self._system
        if version != step.before.version:
            return Conflict(version)
        partition = self.contents[0]
        for event in step.events:
            version += 1
            position = Position(0, partition.next_entry())
            kind, at = type(event).__name__, step.after.state.updated_at
            data, meta = encode(event), encode(step.meta)
            partition.events.append(Recorded(position, kind, SYSTEM, version, at, data, meta, last))
            last = position.entry
        self._system = (version, encode(step.after.state), last)
        return Written(Position(0, last))

    async def load_system(self) -> System:
        version, state, _ = self._system
        return decode_system(version, state)

    async def system_version(self) -> int:
        return self._system[0]

    async def is_held(self, task: Task) -> bool:
        return self._partition(task.id).queues.is_held(task)

    async def queue_position(self, task: Task) -> int:
        queue = queue_of(task)
        own = self._partition(task.id).queues.position(task, queue)
        if own < 1:
            return 0
        waiting = await self.waiting(queue.task_type)
        return own + waiting_elsewhere(waiting, self.partition_of(task.id), queue.priority)

    async def waiting(self, task_type: str) -> Waiting:
        return {
            priority: tuple(len(p.queues.line(Queue(task_type, priority))) for p in self.contents)
            for priority in Priority
        }

    async def claim(
        self,
        partition: int,
        queues: Sequence[Queue],
        count: int,
        delivered: Sequence[Delivery] = (),
    ) -> list[Claimed]:
        lines = self.contents[partition].queues
        woken = {delivery.queue for delivery in delivered}
        # Its reader may have held it for long: if it is gone, others have taken it up since.
        held = [d for d in delivered if d.entry in lines.line(d.queue).ready]
        fresh = lines.take(queues, count - len(held), self._now_ms(), woken)
        return [await self._claimed(d) for d in (*held, *self._deliveries(partition, fresh))]

    async def claim_stale(
        self, partition: int, queues: Sequence[Queue], count: int, idle_ms: int
    ) -> list[Claimed]:
        found = self.contents[partition].queues.stale(queues, count, idle_ms, self._now_ms())
        return [await self._claimed(d) for d in self._deliveries(partition, found)]

    async def wait_ready(
        self, partition: int, queues: Sequence[Queue], timeout_ms: int
    ) -> list[Delivery]:
        for waited in (False, True):
            found = self.contents[partition].queues.wake(queues, self._now_ms())
            if found or waited:
                return self._deliveries(partition, found)
            await self._idle(timeout_ms)
        return []

    def _deliveries(self, partition: int, entries: Sequence[tuple[Queue, str]]) -> list[Delivery]:
        lines = self.contents[partition].queues
        return [
            Delivery(queue, partition, name, lines.line(queue).ready[name].task_id)
            for queue, name in entries
        ]

    async def _claimed(self, delivery: Delivery) -> Claimed:
        try:
            task = await self.load(delivery.task_id)
        except Undecodable as error:
            return Claimed(delivery, None, str(error))
        return Claimed(delivery, task, "" if task else "there is no such task")

    async def release(self, partition: int, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.contents[partition].queues.release(delivery.queue, delivery.entry)

    async def set_aside(self, delivery: Delivery, reason: str) -> None:
        self.contents[delivery.partition].set_aside.append((delivery, reason))
        await self.drop(delivery)

    async def drop(self, delivery: Delivery) -> None:
        self.contents[delivery.partition].queues.drop(delivery.queue, delivery.entry)

    async def renew(
        self, partition: int, leases: Sequence[tuple[str, int]], lease_ms: int
    ) -> list[tuple[str, int]]:
        held = self.contents[partition].leases
        for lease in leases:
            if lease in held:
                held[lease] = self._now_ms() + lease_ms
        return [lease for lease in leases if lease not in held]

    async def lease_until(self, task: Task) -> int | None:
        return self._partition(task.id).leases.get((task.id, task.state.attempt))

    async def announce(self, report: WorkerReport) -> None:
        self.reports[report.id] = (report, self._now_ms())
        self.reports = dict(self._remembered())

    async def retire(self, worker_id: str) -> None:
        self.reports.pop(worker_id, None)

    async def workers(self) -> list[WorkerSeen]:
        now = self._now_ms()
        return in_order(seen(*heard, now) for _, heard in self._remembered())

    def _remembered(self) -> list[tuple[str, tuple[WorkerReport, int]]]:
        since = self._now_ms() - LOST_KEPT_MS
        return [(name, heard) for name, heard in self.reports.items() if heard[1] > since]

    async def spread_limits(self, system: System, before: System | None = None) -> None:
        for partition in self.contents:
            if partition.limits_version < system.state.limits_version:
                partition.queues.change_limits(limit_fields(system, self.partitions))
                partition.limits_version = system.state.limits_version

    async def limits_held(self, partition: int) -> dict[tuple[LimitScope, str], int]:
        held: dict[tuple[LimitScope, str], int] = {}
        for field, limit in self.contents[partition].queues.limits.items():
            scope, _, name = field.partition(":")
            held[LimitScope(scope), name] = limit
        return held

    async def admitted(
        self, scope: LimitScope, names: Sequence[str], partition: int | None = None
    ) -> list[int]:
        asked = self.contents if partition is None else [self.contents[partition]]
        fields = [f"{scope.value}:{name}" for name in names]
        return [sum(p.queues.admitted[field] for p in asked) for field in fields]

    async def recount(self, partition: int) -> int:
        contents = self.contents[partition]
        running = [await self.load(task_id) for task_id, _ in contents.leases]
        owners = [(t.submission.task_type, t.submission.kb_id) for t in running if t is not None]
        return contents.queues.recount(owners)

    async def overdue(self, partition: int, count: int) -> Overdue:
        contents, now = self.contents[partition], self._now_ms()
        due = sorted((at, task_id) for task_id, at in contents.due.items())
        leases = sorted((at, lease) for lease, at in contents.leases.items())
        upcoming = [at - now for at, _ in (*due, *leases) if at > now]
        return Overdue(
            now,
            tuple(task_id for at, task_id in due if at <= now)[:count],
            tuple(lease for at, lease in leases if at <= now)[:count],
            min(upcoming, default=None),
        )

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
        lines, now = self.contents[partition].callbacks, self._now_ms()
        due = now - settle_ms
        taken = lines.take(count, host_max, in_hand, due, now + lease_ms)
        upcoming = [at for line in lines.hosts.values() for at in line.values() if at > due]
        next_in_ms = min(upcoming) + settle_ms - now if upcoming else None
        return DueCallbacks(tuple(taken), next_in_ms)

    async def callbacks_due(self, partition: int, timeout_ms: int) -> bool:
        lines = self.contents[partition].callbacks
        if not lines.news:
            await self._idle(timeout_ms)
        news, lines.news = lines.news, False
        return news

    async def callbacks_waiting(self, partition: int) -> CallbacksWaiting:
        now = self._now_ms()
        lines = self.contents[partition].callbacks.hosts.values()
        waiting = [at for line in lines for at in line.values()]
        due = [at for at in waiting if at <= now]
        return CallbacksWaiting(len(waiting), len(due), now - min(due, default=now))

    async def last_position(self, partition: int) -> Position:
        events = self.contents[partition].events
        return events[-1].position if events else Position(partition, "0-0")

    async def extent(self, partition: int) -> Extent:
        events = self.contents[partition].events
        return Extent(Position(partition, "0-0"), await self.last_position(partition), len(events))

    async def events_after(self, position: Position, count: int, wait_ms: int) -> list[Recorded]:
        for waited in (False, True):
            after = [
                e
                for e in self.contents[position.partition].events
                if e.position.order > position.order
            ]
            if after or waited:
                return after[:count]
            await self._idle(wait_ms)
        return []

    async def entries_after(self, position: Position, count: int, wait_ms: int) -> list[Entry]:
        return [as_entry(event) for event in await self.events_after(position, count, wait_ms)]

    async def event_at(self, position: Position) -> Recorded | None:
        events = self.contents[position.partition].events
        return next((event for event in events if event.position == position), None)

    async def is_erased(self, position: Position) -> bool:
        return False  # nothing is taken out here

    async def epoch(self) -> str:
        return self._epoch

    def _partition(self, task_id: str) -> Partition:
        return self.contents[self.partition_of(task_id)]
