"""What must hold, one class for each: told of every event, claim and acknowledgement, it complains.

Each keeps its own small model and trusts no other, so that one that is wrong hides nothing. None of
them looks at what the product concludes; they look at what stands in the ledger, at what clients
were told, and at what handlers ran.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from ledger.commands import CancelTask, Command, SubmitTask
from ledger.events import (
    AttemptFailed,
    ErrorKind,
    Event,
    Priority,
    RetryScheduled,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskProgressed,
    TaskRetried,
    TaskStarted,
    TaskSubmitted,
)
from ledger.evolve import evolve, initial
from ledger.memory_queues import WaitingLines
from ledger.memory_store import MemoryStore
from ledger.store import Claimed, Recorded
from ledger.task import Status, Task
from ledger.transact import Committed
from ledger.transitions import STATUS_AFTER, TRANSITIONS
from tests.places import place_of, places_in
from tests.simulation.loop import Process
from tests.simulation.network import now, short

PASSED_OVER_MAX: Final = 64
"""As docs/dispatch.md publishes it: then one is taken out of order."""

CANCEL_HEARD_WITHIN_S: Final = 1.5
"""As promised for a running handler whose worker is undisturbed."""

PAUSE_LEARNED_WITHIN_S: Final = 1.5
"""A worker asks with each heartbeat; what it has claimed by then it still starts."""

OUTAGE_GRACE_S: Final = 1.0
"""For so long after an outage the schedulers here leave leases alone."""

FELT_OUTAGE_S: Final = 2.5
"""A scheduler asks at least every second or two, and notices each outage that is longer."""

FINALS: Final = (TaskCompleted, TaskFailed, TaskCanceled)


class Seen(msgspec.Struct):
    """An event as it was written. `writer` is the process that sent it, `actor` its signature,
    `trace` as its meta has it; `at_s` by the clock of the simulation, which never jumps."""

    recorded: Recorded
    event: Event
    writer: Process
    actor: str
    trace: str
    at_s: float

    @property
    def task_id(self) -> str:
        return self.recorded.task_id

    def __str__(self) -> str:
        told = self.recorded
        return f"{told.type} v{told.version} of {short(told.task_id)} at {told.position}"


class HandlerRun(msgspec.Struct, eq=False):
    """One call of a handler."""

    task_id: str
    attempt: int
    process: Process
    began_s: float
    told_s: float | None = None
    """When it was asked to stop."""
    ended: bool = False

    @property
    def is_running(self) -> bool:
        return not self.ended and self.process.alive


class Ending(msgspec.Struct):
    """What there is when a run is over."""

    store: MemoryStore
    histories: Mapping[str, list[Recorded]]
    unfinished: list[str]
    """What still had to happen when patience ended."""
    broken: list[str]
    """Roles that ended by themselves, and errors that nobody expected."""


class Check:
    """Complains through `fail`. What it does not override does not concern it."""

    name: ClassVar[str]

    def __init__(self, fail: Callable[[str], None]) -> None:
        self.fail = fail

    def event(self, seen: Seen) -> None:
        """An event was written."""

    def appended(self, store: MemoryStore) -> None:
        """A step is over: events, snapshot and places were written."""

    def claimed(
        self, process: Process, store: MemoryStore, args: tuple[Any, ...], claimed: list[Claimed]
    ) -> None:
        """A worker claimed, and will hear of it. `args` as of Store.claim."""

    def acknowledged(self, command: Command, committed: Committed) -> None:
        """A client was told that its command was carried out."""

    def ran(self, run: HandlerRun) -> None:
        """A handler was called."""

    def heard(self, run: HandlerRun | None, canceled: Seen) -> None:
        """CANCEL_HEARD_WITHIN_S have passed since a running attempt was canceled on an undisturbed
        worker; `run` is its handler's."""

    def paused(self, task_types: Mapping[str, float]) -> None:
        """Something was paused or resumed; since when (s) each of those is that are paused now."""

    def outage(self, began_s: float, over_s: float) -> None:
        """The ledger is out of reach for everybody. Told once more where that ends earlier."""

    def end(self, ending: Ending) -> None:
        """All is over."""


class NothingLost(Check):
    """What a client was told to be done stands in the ledger, unchanged, to the end."""

    name = "nothing acknowledged is lost"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._told: list[tuple[Command, Committed]] = []

    def acknowledged(self, command: Command, committed: Committed) -> None:
        self._told.append((command, committed))

    def end(self, ending: Ending) -> None:
        for command, committed in self._told:
            task = committed.task
            history = ending.histories.get(task.id, [])
            if isinstance(command, SubmitTask) and (
                not history or history[0].event() != command.submission
            ):
                self.fail(f"the submission of {short(task.id)} was acknowledged")
            if committed.position is None:
                continue
            last = task.version
            written = [r.event() for r in history[last - len(committed.events) : last]]
            if written != list(committed.events) or history[last - 1].position != (
                committed.position
            ):
                kinds = ", ".join(type(e).__name__ for e in committed.events)
                self.fail(f"{kinds} of {short(task.id)} at {committed.position} was acknowledged")


class OneEnd(Check):
    """A task ends once, and again only after it was sent round again; in the end, it has ended."""

    name = "exactly one final state"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._ended: dict[str, str] = {}

    def event(self, seen: Seen) -> None:
        if isinstance(seen.event, TaskRetried):
            self._ended.pop(seen.task_id, None)
        elif isinstance(seen.event, FINALS):
            if seen.task_id in self._ended:
                self.fail(f"{seen} although it had ended: {self._ended[seen.task_id]}")
            self._ended[seen.task_id] = str(seen)

    def end(self, ending: Ending) -> None:
        for task_id in ending.histories:
            if task_id not in self._ended and not ending.unfinished:
                self.fail(f"{short(task_id)} never ended")


class Contiguous(Check):
    """A task's versions are 1, 2, 3 …, and each event names the one before it."""

    name = "versions are contiguous"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._last: dict[str, tuple[int, str]] = {}

    def event(self, seen: Seen) -> None:
        told = seen.recorded
        version, entry = self._last.get(told.task_id, (0, ""))
        if told.version != version + 1 or told.prev != entry:
            self.fail(f"{seen} follows version {version} at {entry or 'nothing'}")
        self._last[told.task_id] = (told.version, told.position.entry)


class OneTrace(Check):
    """Whoever writes an event, it belongs to the trace of its task, and to none where that has
    none."""

    name = "events are in their task's trace"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._first: dict[str, str] = {}
        self._now: dict[str, str] = {}

    def event(self, seen: Seen) -> None:
        task_id = seen.task_id
        if isinstance(seen.event, TaskSubmitted):
            self._first[task_id] = self._now[task_id] = seen.event.trace
        elif isinstance(seen.event, TaskRetried):
            self._now[task_id] = seen.event.trace or self._first[task_id]
        if seen.trace != self._now.get(task_id):
            self.fail(f"{seen} by {seen.actor} is in the trace {seen.trace or '(none)'}")


class LegalTransitions(Check):
    """Each event is one that the table has for the status before it."""

    name = "only legal transitions"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._status: dict[str, Status] = {}

    def event(self, seen: Seen) -> None:
        before = self._status.get(seen.task_id)
        if (before, type(seen.event)) not in TRANSITIONS:
            self.fail(f"{seen} cannot happen to {before or 'no task'}")
        after = STATUS_AFTER.get(seen.recorded.type, before)
        if after is not None:
            self._status[seen.task_id] = after


class Fenced(Check):
    """Only the attempt that runs has effects, and only its owner speaks for it."""

    name = "no effect of an old attempt"

    REAPERS: Final = frozenset({"reaper", "client"})
    """May speak of an attempt that is not theirs: to end it, or to tell how far it is."""

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._running: dict[str, tuple[int, str]] = {}

    def event(self, seen: Seen) -> None:
        event, task_id = seen.event, seen.task_id
        match event:
            case TaskStarted():
                self._running[task_id] = (event.attempt, event.worker_id)
                if event.worker_id != seen.actor:
                    self.fail(f"{seen} of {event.worker_id} was written by {seen.actor}")
            case TaskProgressed() | TaskCompleted() | AttemptFailed():
                attempt, worker = self._running.get(task_id, (0, ""))
                if event.attempt != attempt:
                    self.fail(f"{seen} of attempt {event.attempt}, while {attempt} runs")
                elif seen.actor != worker and seen.actor not in self.REAPERS:
                    self.fail(f"{seen} by {seen.actor}, while {worker} holds attempt {attempt}")
                if not isinstance(event, TaskProgressed):
                    self._running.pop(task_id, None)
            case TaskCanceled():
                self._running.pop(task_id, None)
            case _:
                pass


class OneOwner(Check):
    """An attempt is started once, by one worker, and only that worker runs its handler, once."""

    name = "no two owners of an attempt"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._owners: dict[tuple[str, int], str] = {}
        self._runs: dict[tuple[str, int], str] = {}

    def event(self, seen: Seen) -> None:
        if isinstance(seen.event, TaskStarted):
            key = (seen.task_id, seen.event.attempt)
            if key in self._owners:
                self.fail(f"{seen}: attempt {key[1]} was started by {self._owners[key]} before")
            self._owners[key] = seen.event.worker_id

    def ran(self, run: HandlerRun) -> None:
        key = (run.task_id, run.attempt)
        owner = self._owners.get(key)
        if owner != run.process.name:
            self.fail(f"{run.process.name} runs attempt {key[1]} of {short(key[0])}, {owner}'s")
        if key in self._runs:
            self.fail(f"attempt {key[1]} of {short(key[0])} runs twice")
        self._runs[key] = run.process.name


class Placed(Check):
    """After every step, each task stands in exactly the place that its state calls for."""

    name = "places equal states"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._tasks: dict[str, Task] = {}
        self._expected: dict[str, list[str]] = {}

    def event(self, seen: Seen) -> None:
        task_id, told = seen.task_id, seen.recorded
        known = self._tasks.get(task_id)
        try:
            task = after(known, seen.event, task_id, told.at)
        except Exception as error:
            self.fail(f"{seen}: {error}")
            return
        self._tasks[task_id] = task
        place = place_of(task)
        if place:
            self._expected[task_id] = place
        else:
            self._expected.pop(task_id, None)

    def appended(self, store: MemoryStore) -> None:
        found = places_in(store, pending=False)
        if found != self._expected:
            wrong = {
                short(task_id): (found.get(task_id), self._expected.get(task_id))
                for task_id in {**found, **self._expected}
                if found.get(task_id) != self._expected.get(task_id)
            }
            self.fail(f"found, and expected: {wrong}")

    def end(self, ending: Ending) -> None:
        for task_id, task in self._tasks.items():
            if now(ending.store.load(task_id)) != task:
                self.fail(f"the snapshot of {short(task_id)} is not the fold of its events")


def after(known: Task | None, event: Event, task_id: str, at: int) -> Task:
    """The task after one more event."""
    return initial(task_id, event, at) if known is None else evolve(known, event, at)


class Finishes(Check):
    """Once faults cease, everything comes to its end within bounded time."""

    name = "everything finishes once faults cease"

    def end(self, ending: Ending) -> None:
        for what in ending.unfinished:
            self.fail(what)


class LeasesEmpty(Check):
    """In the end nobody holds anything."""

    name = "leases end up empty"

    def end(self, ending: Ending) -> None:
        for partition in ending.store.contents:
            for (task_id, attempt), until in partition.leases.items():
                self.fail(f"attempt {attempt} of {short(task_id)} holds one until {until}")


class CancelKept(Check):
    """A cancel that was acknowledged holds, until somebody sends the task round again; and a
    running handler hears of it."""

    name = "a cancel is never forgotten"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._versions: list[tuple[str, int]] = []

    def acknowledged(self, command: Command, committed: Committed) -> None:
        if isinstance(command, CancelTask):
            self._versions.append((committed.task.id, committed.task.version))

    def heard(self, run: HandlerRun | None, canceled: Seen) -> None:
        if run is not None and run.is_running and run.told_s is None:
            self.fail(f"{canceled}: its handler was not told on {run.process.name}")

    def end(self, ending: Ending) -> None:
        for task_id, version in self._versions:
            history = ending.histories.get(task_id, [])
            kinds = [recorded.type for recorded in history[version - 1 : version + 1]]
            if kinds not in (["TaskCanceled"], ["TaskCanceled", "TaskRetried"]):
                self.fail(f"{short(task_id)} was canceled at version {version}; there is {kinds}")


class RetriesCounted(Check):
    """Between a submission (or a manual retry) and the end, retries count up to max_retries; only
    what a worker gave back in order, and what a handler put off, is not counted."""

    name = "retries are counted"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._max: dict[str, int] = {}
        self._count: defaultdict[str, int] = defaultdict(int)
        self._postponed: defaultdict[str, int] = defaultdict(int)
        self._failed: dict[str, AttemptFailed] = {}

    def event(self, seen: Seen) -> None:
        event, task_id = seen.event, seen.task_id
        match event:
            case TaskSubmitted():
                self._max[task_id] = event.max_retries
            case TaskRetried():
                self._count[task_id] = self._postponed[task_id] = 0
            case AttemptFailed():
                self._failed[task_id] = event
            case RetryScheduled():
                self._scheduled(seen, event)
            case TaskFailed():
                is_permanent = event.error_kind is ErrorKind.PERMANENT
                if not is_permanent and self._count[task_id] < self._max.get(task_id, 0):
                    self.fail(f"{seen} after {self._count[task_id]} of {self._max[task_id]}")
            case _:
                pass

    def _scheduled(self, seen: Seen, event: RetryScheduled) -> None:
        task_id = seen.task_id
        failed = self._failed.get(task_id)
        is_given_back = (
            failed is not None
            and failed.error_kind is ErrorKind.WORKER_LOST
            and seen.actor != "reaper"
        )
        is_put_off = event.postponements == self._postponed[task_id] + 1
        self._postponed[task_id] = event.postponements
        expected = self._count[task_id] + (0 if is_given_back or is_put_off else 1)
        if event.retry_count != expected or expected > self._max.get(task_id, 0):
            most = self._max.get(task_id)
            self.fail(f"{seen} counts {event.retry_count}, not {expected}, of {most}")
        self._count[task_id] = event.retry_count


class PriorityBound(Check):
    """A claim takes from the first of its priorities that has any, the most urgent one unless it is
    out of order; and after PASSED_OVER_MAX tasks in a row that left others waiting (and what one
    more claim takes), one is out of order."""

    name = "the priority order and its bound"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._in_a_row: dict[tuple[str, int], int] = {}

    def claimed(
        self, process: Process, store: MemoryStore, args: tuple[Any, ...], claimed: list[Claimed]
    ) -> None:
        partition: int = args[0]
        queues, count, *more = args[1:]
        delivered = {one.entry for one in more[0]} if more else set[str]()
        fresh = [c.delivery.queue.priority for c in claimed if c.delivery.entry not in delivered]
        if len(claimed) < count:
            self._count(process, partition, 0)
        if not fresh:
            return
        lines = store.contents[partition].queues
        left = [
            queue.priority
            for queue in queues
            if (line := lines.lines.get(queue)) is not None
            and (line.untaken or (line.backlog.tasks and lines.could_move_up(queue)))
        ]
        order = list(dict.fromkeys(queue.priority for queue in queues))
        if left and max(map(order.index, fresh)) > order.index(left[0]):
            self.fail(f"{process.name} took {fresh} and left {left[0]}, which came first")
        is_in_order = order[0] is Priority.CRITICAL
        self._count(process, partition, len(claimed) if left and is_in_order else 0)

    def _count(self, process: Process, partition: int, taken: int) -> None:
        """0 taken: nothing was left, or it was out of order."""
        before = self._in_a_row.get((process.name, partition), 0)
        if taken and before >= PASSED_OVER_MAX:
            self.fail(f"{process.name} took {before} tasks in a row, and then {taken} more")
        self._in_a_row[process.name, partition] = before + taken if taken else 0


class LimitsHold(Check):
    """No more tasks of a type or of a kb_id run at once than their limit lets: after it was set or
    lowered, none is admitted until fewer are in line or running. And when nothing waits or runs any
    more, nothing counts against a limit."""

    name = "limits hold"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._names: dict[str, tuple[str, str]] = {}
        self._running: dict[str, tuple[str, str]] = {}
        self._limits: dict[int, Mapping[str, int]] = {}
        self._allowed: dict[tuple[int, str], int] = {}
        """By partition and name, how many may be in line or running: the limit, or what it met."""

    def event(self, seen: Seen) -> None:
        event, task_id = seen.event, seen.task_id
        if isinstance(event, TaskSubmitted):
            self._names[task_id] = (f"type:{event.task_type}", f"kb:{event.kb_id}")
        elif isinstance(event, TaskStarted):
            self._running[task_id] = self._names.get(task_id, ("", ""))
        elif isinstance(event, (*FINALS, AttemptFailed)):
            self._running.pop(task_id, None)

    def appended(self, store: MemoryStore) -> None:
        for number, partition in enumerate(store.contents):
            limits = partition.queues.limits
            are_new = self._limits.get(number) is not limits
            self._limits[number] = limits
            for name, limit in limits.items():
                running = sum(
                    name in names and store.partition_of(task_id) == number
                    for task_id, names in self._running.items()
                )
                held = running + _in_line(partition.queues, name)
                before = held if are_new else self._allowed[number, name]
                allowed = self._allowed[number, name] = max(limit, min(before, held))
                if running > max(limit, before):
                    self.fail(
                        f"{running} of {name} run in partition {number}, of {limit}, "
                        f"{allowed} being allowed"
                    )

    def end(self, ending: Ending) -> None:
        for partition in ending.store.contents:
            if partition.queues.admitted and not ending.unfinished:
                self.fail(f"still counted: {dict(partition.queues.admitted)}")


def _in_line(queues: WaitingLines, name: str) -> int:
    return sum(
        name in (f"type:{queue.task_type}", f"kb:{entry.kb_id}")
        for queue, line in queues.lines.items()
        for entry in line.ready.values()
    )


class PausesHold(Check):
    """Once every undisturbed worker has had time to learn of it, nothing of a paused type is
    started."""

    name = "a paused type is left alone"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._paused: Mapping[str, float] = {}
        self._types: dict[str, str] = {}

    def paused(self, task_types: Mapping[str, float]) -> None:
        self._paused = task_types

    def event(self, seen: Seen) -> None:
        if isinstance(seen.event, TaskSubmitted):
            self._types[seen.task_id] = seen.event.task_type
        elif isinstance(seen.event, TaskStarted):
            kind, writer = self._types.get(seen.task_id, ""), seen.writer
            since_s = self._paused.get(kind, seen.at_s)
            excused_until_s = max(writer.disturbed_until_s, writer.late_until_s)
            if excused_until_s < since_s and seen.at_s > since_s + PAUSE_LEARNED_WITHIN_S:
                self.fail(f"{seen} by {writer.name}: {kind} is paused since {since_s:.3f} s")


class OutagesSpare(Check):
    """After an outage, workers are given time to renew their leases before any is ended."""

    name = "an outage ends no lease"

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(fail)
        self._began_s = self._over_s = float("-inf")

    def outage(self, began_s: float, over_s: float) -> None:
        self._began_s, self._over_s = began_s, over_s

    def event(self, seen: Seen) -> None:
        over_s, writer = self._over_s, seen.writer
        if (
            isinstance(seen.event, AttemptFailed)
            and seen.actor == "reaper"
            and over_s - self._began_s >= FELT_OUTAGE_S
            and over_s <= seen.at_s < over_s + OUTAGE_GRACE_S
            and max(writer.disturbed_until_s, writer.late_until_s) <= over_s
        ):
            self.fail(f"{seen}, {seen.at_s - over_s:.3f} s after an outage")


class RolesHold(Check):
    """No role ends by itself, and nothing is broken inside, whatever happens outside."""

    name = "roles stand every fault"

    def end(self, ending: Ending) -> None:
        for what in ending.broken:
            self.fail(what)


ALL: Final[tuple[type[Check], ...]] = (
    NothingLost,
    OneEnd,
    Contiguous,
    OneTrace,
    LegalTransitions,
    Fenced,
    OneOwner,
    Placed,
    Finishes,
    LeasesEmpty,
    CancelKept,
    RetriesCounted,
    PriorityBound,
    LimitsHold,
    PausesHold,
    OutagesSpare,
    RolesHold,
)
