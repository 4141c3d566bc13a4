"""Looks at the ledger after every step, and tells the checks."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ledger.codec import decode_meta
from ledger.commands import Command
from ledger.events import TaskCanceled, TaskStarted
from ledger.memory_store import MemoryStore
from ledger.store import Append, Claimed, Outcome, Recorded, Written
from ledger.task import FINISHED, Status
from ledger.transact import Committed
from ledger.transitions import STATUS_AFTER
from tests.simulation.checks import (
    ALL,
    CANCEL_HEARD_WITHIN_S,
    Check,
    Ending,
    HandlerRun,
    Seen,
)
from tests.simulation.loop import PROCESS, Process, VirtualLoop
from tests.simulation.network import Network, now


class Violation(msgspec.Struct, frozen=True):
    """A check complained."""

    check: str
    what: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.check}: {self.what} (after {self.at_s:.3f} s)"


class Watch:
    """One run's ears and eyes."""

    def __init__(self, loop: VirtualLoop, network: Network, nothing_to_do: Callable[[], None]):
        self._loop = loop
        self._network = network
        self._nothing_to_do = nothing_to_do
        self.violations: list[Violation] = []
        self.histories: defaultdict[str, list[Recorded]] = defaultdict(list)
        self.transitions: Counter[tuple[Status | None, str]] = Counter()
        self.unfinished: dict[str, Status] = {}
        """Tasks that have not ended, in the order in which they came up."""
        self.acknowledgements = 0
        self._seen = [0] * network.store.partitions
        self._status: dict[str, Status] = {}
        self._runs: dict[tuple[str, int], HandlerRun] = {}
        self._running: dict[str, int] = {}
        self._checks = [kind(self._fail_of(kind)) for kind in ALL]
        self._on_event = self._overriding("event")
        self._on_append = self._overriding("appended")
        self._on_claim = self._overriding("claimed")
        self._on_acknowledgement = self._overriding("acknowledged")
        self._on_run = self._overriding("ran")
        self._on_heard = self._overriding("heard")
        self._on_paused = self._overriding("paused")
        self._on_outage = self._overriding("outage")
        self._system_version = 0
        self._paused: dict[tuple[str, int], float] = {}
        network.on_append = self.appended
        network.on_late = nothing_to_do
        network.on_claim = self.claimed
        network.on_system = self.look_at_system

    def _fail_of(self, kind: type[Check]) -> Callable[[str], None]:
        def fail(what: str) -> None:
            self.violations.append(Violation(kind.name, what, self._loop.time()))
            if self._network.trace is not None:
                self._network.trace(f"## {kind.name}: {what}")

        return fail

    def _overriding(self, method: str) -> list[Any]:
        """The checks that care, so that the others cost nothing."""
        return [
            getattr(check, method)
            for check in self._checks
            if getattr(type(check), method) is not getattr(Check, method)
        ]

    # -- what happens -------------------------------------------------------------------------

    def appended(self, process: Process, step: Append, outcome: Outcome) -> None:
        """A step reached the ledger; whatever was said of it, what was written is looked at."""
        store = self._network.store
        self.look_at_system()
        partition = store.partition_of(step.after.id)
        events = store.contents[partition].events
        for recorded in events[self._seen[partition] :]:
            if not recorded.of_system:
                self._event(process, recorded)
        self._seen[partition] = len(events)
        if isinstance(outcome, Written):
            for tell in self._on_append:
                tell(store)
        if not self.unfinished:
            self._nothing_to_do()

    def _event(self, process: Process, recorded: Recorded) -> None:
        task_id = recorded.task_id
        meta = decode_meta(recorded.meta)
        event, at_s = recorded.event(), self._loop.time()
        seen = Seen(recorded, event, process, meta.actor, meta.trace, at_s)
        before = self._status.get(task_id)
        after = STATUS_AFTER.get(recorded.type, before)
        assert after is not None
        self._status[task_id] = after
        self.transitions[before, recorded.type] += 1
        self.histories[task_id].append(recorded)
        if after in FINISHED:
            self.unfinished.pop(task_id, None)
        else:
            self.unfinished[task_id] = after
        if isinstance(seen.event, TaskStarted):
            self._running[task_id] = seen.event.attempt
        elif isinstance(seen.event, TaskCanceled) and before is Status.PROCESSING:
            self._listen(seen, self._runs.get((task_id, self._running[task_id])))
        for tell in self._on_event:
            tell(seen)

    def _listen(self, canceled: Seen, run: HandlerRun | None) -> None:
        """Look later whether the handler that runs has heard of the cancel."""
        canceled_s = self._loop.time()

        def look() -> None:
            if run is not None and run.process.disturbed_until_s < canceled_s:
                for tell in self._on_heard:
                    tell(run, canceled)

        self._loop.call_later(CANCEL_HEARD_WITHIN_S, look, context=self._loop.nobody)

    def claimed(self, process: Process, args: tuple[Any, ...], claimed: list[Claimed]) -> None:
        """A worker claimed."""
        for tell in self._on_claim:
            tell(process, self._network.store, args, claimed)

    def look_at_system(self) -> None:
        """See what is paused, and since when."""
        store = self._network.store
        version = now(store.system_version())
        if version == self._system_version:
            return
        self._system_version = version
        at_s, before = self._loop.time(), self._paused
        paused = now(store.load_system()).state.paused
        # What was resumed and paused again between two looks is paused anew.
        self._paused = {
            (kind, pause.since): before.get((kind, pause.since), at_s)
            for kind, pause in paused.items()
        }
        for tell in self._on_paused:
            tell({kind: since_s for (kind, _), since_s in self._paused.items()})

    def outage(self, began_s: float, over_s: float) -> None:
        """The ledger is out of reach."""
        for tell in self._on_outage:
            tell(began_s, over_s)

    def acknowledged(self, command: Command, committed: Committed) -> None:
        """A client was told."""
        self.acknowledgements += 1
        if self._network.trace is not None:
            kind = type(command).__name__
            self._network.trace(f"client is told: {kind} {committed.task.id[:8]}")
        for tell in self._on_acknowledgement:
            tell(command, committed)

    def ran(self, task_id: str, attempt: int) -> HandlerRun:
        """A handler was called, in the process that calls this."""
        process = PROCESS.get()
        assert process is not None
        run = HandlerRun(task_id, attempt, process, self._loop.time())
        self._runs[task_id, attempt] = run
        if self._network.trace is not None:
            self._network.trace(f"{process.name} runs attempt {attempt} of {task_id[:8]}")
        for tell in self._on_run:
            tell(run)
        return run

    @property
    def finals(self) -> list[str]:
        """How tasks stand, by the last event of each."""
        return [str(status) for status in self._status.values()]

    @property
    def running(self) -> list[HandlerRun]:
        """Handlers that are at work."""
        return [run for run in self._runs.values() if run.is_running]

    def end(self, store: MemoryStore, unfinished: Iterable[str], broken: Iterable[str]) -> None:
        """All is over."""
        ending = Ending(store, self.histories, list(unfinished), list(broken))
        for check in self._checks:
            check.end(ending)
