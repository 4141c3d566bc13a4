"""One run: processes with the product's own roles on one ledger, faults for a while, then the end.

    outcome = simulate(seed)

Everything that is drawn comes from the seed, also what the roles draw from `random`. Two runs of
one seed are the same, event by event.
"""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final, Protocol, cast

import msgspec
from msgspec.structs import replace

from consumers.scheduler import Scheduler
from consumers.worker import Worker, WorkerOptions
from ledger.memory_store import MemoryStore
from ledger.system.commands import ResumeQueue, SetLimit
from ledger.system.transact import transact_system
from ledger.task import Status
from tests.simulation.checks import OUTAGE_GRACE_S
from tests.simulation.clients import META, Client, Known
from tests.simulation.handlers import POLICY, handlers
from tests.simulation.logged import Logged
from tests.simulation.loop import Process, Stuck, VirtualLoop
from tests.simulation.network import Fault, Link, Network
from tests.simulation.operators import Operator
from tests.simulation.plan import Plan, draw_plan
from tests.simulation.watch import Violation, Watch

PATIENCE_S: Final = 120.0
"""Of virtual time: once faults have ceased, everything must have ended by then. The longest way: a
lease, three attempts that hang for 3 s and ignore their end for 5 s more, and a clock set back."""

STOP_PATIENCE_S: Final = 60.0
"""The same for the end of the roles, which let handlers finish."""

HEARTBEAT_MS: Final = 1_000
RESTART_S_MAX: Final = 1.0
PAUSE_S_MAX: Final = 8.0
OUTAGE_S_MAX: Final = 4.0
LONG_OUTAGE_S: Final = (3.5, 8.0)
"""At least, and at most: leases are of 2 or 3 s."""
CLOCK_JUMP_MS_MAX: Final = 8_000
KILL_WITHIN_CALLBACKS: Final = 200
CHECKED_STOPS: Final = 0.2
"""The part of runs in which the roles are stopped in order afterwards."""


class Outcome(msgspec.Struct):
    """What became of a run."""

    seed: int
    violations: list[Violation]
    injected: Counter[Fault]
    transitions: Counter[tuple[Status | None, str]]
    finals: Counter[str]
    tasks: int
    events: int
    acknowledgements: int
    callbacks: int
    virtual_s: float
    digest: str
    """SHA-256 of the whole ledger; empty when it was not asked for."""


class Role(Protocol):
    """A worker, or a scheduler's service."""

    async def run(self) -> None: ...
    def stop(self) -> None: ...


class World:
    """Everything there is in one run."""

    def __init__(
        self,
        seed: int,
        *,
        make_store: Callable[..., MemoryStore] = MemoryStore,
        plan: Plan | None = None,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.plan = plan or draw_plan(self.chance)
        self.loop = VirtualLoop(self.chance)
        self.loop.on_kill = self._killed
        self.network = Network(
            self.loop,
            self.chance,
            make_store,
            self.plan.partitions,
            self.plan.rates,
            self.plan.pending_idle_ms / 1000,
        )
        if trace is not None:
            write = trace
            self.network.trace = lambda what: write(f"{self.loop.time():9.4f}  {what}")
        self.watch = Watch(self.loop, self.network, self._nothing_to_do)
        self.broken: list[str] = []
        self.unfinished: list[str] = []
        self._roles: dict[Process, Role] = {}
        self._links: dict[Process, Link] = {}
        self._births: Counter[str] = Counter()
        self._seats: dict[str, Callable[[Process, Link], Role]] = {}
        self._clients_left = 0
        self._outage_began_s = 0.0
        self._ending = False
        self._idle: asyncio.Event | None = None

    # -- processes ----------------------------------------------------------------------------

    def _start(self, seat: str) -> None:
        """Begin a process; whenever it ends, another one takes its seat."""
        if self._ending:
            return
        self._births[seat] += 1
        process = Process(seat, self._births[seat])
        link = self._links[process] = Link(self.network, process)
        self.loop.start(process, self._live(process, link))

    async def _live(self, process: Process, link: Link) -> None:
        role = self._seats[process.seat](process, link)
        self._roles[process] = role
        try:
            await role.run()
        except Exception as error:
            if self.loop.is_over:
                return
            self.broken.append(f"{process.name} ended: {_told(error)}")
        if self.network.trace is not None:
            self.network.trace(f"{process.name} has ended")
        self._gone(process)

    def _worker(self, process: Process, link: Link) -> Role:
        plan = self.plan
        options = WorkerOptions(
            concurrency=plan.concurrency,
            lease_ms=plan.lease_ms,
            heartbeat_ms=HEARTBEAT_MS,
            pending_idle_ms=plan.pending_idle_ms,
            drain_timeout_ms=1_000,
            retry=POLICY,
        )
        return Worker(link.store, handlers(self.watch.ran), options, worker_id=process.name)

    def _scheduler(self, _: Process, link: Link) -> Role:
        return Scheduler(
            link.store,
            sweep_interval_ms=1_000,
            outage_grace_s=OUTAGE_GRACE_S,
            beat_s=HEARTBEAT_MS / 1000,
            retry=POLICY,
        ).service

    def _killed(self, process: Process) -> None:
        if self.network.trace is not None:
            self.network.trace(f"{process.name} is gone")
        self._gone(process)

    def _gone(self, process: Process) -> None:
        # One that is killed as it starts has none yet.
        self._links.pop(process, None)
        role = self._roles.pop(process, None)
        if isinstance(role, Client | Operator) and not role.wishes_left:
            self._clients_left -= 1
            return self._nothing_to_do()
        pause_s = self.chance.random() * RESTART_S_MAX
        self.loop.call_later(pause_s, self._start, process.seat, context=self.loop.nobody)
        return None

    # -- the course of a run ------------------------------------------------------------------

    async def run(self) -> None:
        plan = self.plan
        self._idle = asyncio.Event()
        await self._set_limits()
        self._take_seats()
        disasters = self.loop.create_task(self._disasters())
        self.loop.call_at(plan.faults_s, self._cease)
        resuming = self.loop.create_task(self._resume_all())
        if not await self._settle(plan.faults_s + PATIENCE_S):
            self.unfinished = [
                f"{task_id[:8]} is still {status}"
                for task_id, status in self.watch.unfinished.items()
            ]
        disasters.cancel()
        self._cease()
        resuming.cancel()
        await self._handlers_end()
        if self.chance.random() < CHECKED_STOPS:
            await self._stop_all()
        self._ending = True

    async def _set_limits(self) -> None:
        store = self.network.store
        for scope, name, limit in self.plan.limits:
            command = SetLimit(scope, name, limit)
            await store.spread_limits((await transact_system(store, command, META)).system)

    async def _resume_all(self) -> None:
        """Once faults have ceased, so that everything can come to its end."""
        store = self.network.store
        await asyncio.sleep(self.plan.faults_s)
        while self.plan.changes:
            for task_type in (await store.load_system()).state.paused:
                await transact_system(store, ResumeQueue(task_type), META)
                # It is no call of anybody's. By its time alone, where the clock went back, nobody
                # could tell the next pause from the one that has just ended.
                self.watch.look_at_system()
            # A pause that was asked for before may arrive later.
            await asyncio.sleep(0.5)

    def _take_seats(self) -> None:
        plan = self.plan
        for number in range(plan.workers):
            self._seats[f"worker{number}"] = self._worker
        for number in range(plan.schedulers):
            self._seats[f"scheduler{number}"] = self._scheduler
        known: list[Known] = []
        self._clients_left = plan.clients
        for number in range(plan.clients):
            client = Client(plan, self.chance, known, self.watch.acknowledged)
            self._seats[f"client{number}"] = client.on
        if plan.changes:
            self._clients_left += 1
            self._seats["operator"] = Operator(plan, self.chance, self.network).on
        for seat in self._seats:
            self._start(seat)

    def _nothing_to_do(self) -> None:
        if self._idle is not None:
            self._idle.set()

    async def _settle(self, until_s: float) -> bool:
        """Whether every wish was made, no request is on its way any more, and every task has ended
        by then."""
        assert self._idle is not None
        while self.watch.unfinished or self._clients_left or self.network.late_requests:
            self._idle.clear()
            try:
                async with asyncio.timeout_at(until_s):
                    await self._idle.wait()
            except TimeoutError:
                return False
        return True

    async def _handlers_end(self) -> None:
        """Those that nobody waits for any more are told, and end."""
        for _ in range(40):
            if not self.watch.running:
                return
            await asyncio.sleep(0.5)
        self.unfinished += (
            f"{run.process.name} still runs attempt {run.attempt} of {run.task_id[:8]}"
            for run in self.watch.running
        )

    async def _stop_all(self) -> None:
        """As SIGTERM would: every role ends in order."""
        self._ending = True
        for role in self._roles.values():
            role.stop()
        until_s = self.loop.time() + STOP_PATIENCE_S
        while self._roles and self.loop.time() < until_s:  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(0.5)
        self.unfinished += (f"{process.name} does not stop" for process in self._roles)

    # -- faults -------------------------------------------------------------------------------

    def _cease(self) -> None:
        """From now on, nothing goes wrong any more."""
        if not self.network.active:
            return
        self.network.active = False
        if self.loop.time() < self.network.outage_until_s:
            self.watch.outage(self._outage_began_s, self.loop.time())
        self.network.outage_until_s = 0.0
        if self.network.trace is not None:
            self.network.trace("-- faults cease")
        for process, link in self._links.items():
            link.offset_ms = 0
            process.kill_at = 0
            self._continue(process)

    async def _disasters(self) -> None:
        plan = self.plan
        while plan.disasters:
            await asyncio.sleep(self.chance.random() * 2 * plan.disaster_every_s)
            if not self.network.active:
                return
            kind = plan.disasters[int(self.chance.random() * len(plan.disasters))]
            self._happen(kind)

    def _happen(self, kind: Fault) -> None:
        draw, network = self.chance.random, self.network
        processes = [
            process
            for process, role in self._roles.items()
            if not process.paused and not isinstance(role, Client | Operator)
        ]
        victim = processes[int(draw() * len(processes))] if processes else None
        match kind:
            case Fault.LEDGER_CLOCK:
                network.inject(kind, None)
                network.ledger_offset_ms += int((2 * draw() - 1) * CLOCK_JUMP_MS_MAX)
            case Fault.OUTAGE:
                self._begin_outage(kind, draw() * OUTAGE_S_MAX)
            case Fault.LONG_OUTAGE:
                least_s, most_s = LONG_OUTAGE_S
                self._begin_outage(kind, least_s + draw() * (most_s - least_s))
            case _ if victim is not None:
                self._befall(kind, victim)
            case _:
                pass

    def _begin_outage(self, kind: Fault, lasts_s: float) -> None:
        network, now_s = self.network, self.loop.time()
        if now_s < network.outage_until_s:
            return  # there is one already
        network.inject(kind, None, lasts_s)
        self._outage_began_s, network.outage_until_s = now_s, now_s + lasts_s
        self.watch.outage(now_s, network.outage_until_s)

    def _befall(self, kind: Fault, process: Process) -> None:
        draw, network = self.chance.random, self.network
        match kind:
            case Fault.CRASH_AT_AWAIT:
                network.inject(kind, process)
                process.kill_at = process.callbacks + 1 + int(draw() * KILL_WITHIN_CALLBACKS)
            case Fault.PAUSE:
                lasts_s = draw() * PAUSE_S_MAX
                network.inject(kind, process, lasts_s)
                process.paused = True
                self.loop.call_later(lasts_s, self._continue, process)
            case Fault.RESTART:
                network.inject(kind, process)
                self._roles[process].stop()
            case Fault.PROCESS_CLOCK:
                network.inject(kind, process)
                self._links[process].offset_ms = int((2 * draw() - 1) * CLOCK_JUMP_MS_MAX)
            case _:
                raise AssertionError(kind)

    def _continue(self, process: Process) -> None:
        if process.paused:
            self.loop.resume(process)

    def digest(self) -> str:
        """SHA-256 of every event, in order."""
        digest = hashlib.sha256()
        for partition in self.network.store.contents:
            for recorded in partition.events:
                # A lost worker's host and process id are this very process's own.
                told = replace(recorded, data=b"") if recorded.of_system else recorded
                digest.update(msgspec.json.encode(told))
        return digest.hexdigest()


def simulate(
    seed: int,
    *,
    make_store: Callable[..., MemoryStore] = MemoryStore,
    plan: Plan | None = None,
    trace: Callable[[str], None] | None = None,
    want_digest: bool = False,
) -> Outcome:
    """Run one seed. `make_store` takes what MemoryStore takes; `trace` is told what happens."""
    state = random.getstate()
    random.seed(seed)
    try:
        world = World(seed, make_store=make_store, plan=plan, trace=trace)
        with Logged(world.network.trace, world.broken):
            try:
                world.loop.run(world.run())
            except Stuck as stuck:
                world.unfinished.append(str(stuck))
            world.watch.end(
                world.network.store, world.unfinished, [*world.broken, *world.loop.broken]
            )
    finally:
        random.setstate(state)
    return _outcome(world, want_digest=want_digest)


def _outcome(world: World, *, want_digest: bool) -> Outcome:
    watch = world.watch
    return Outcome(
        seed=world.seed,
        violations=watch.violations,
        injected=world.network.injected,
        transitions=watch.transitions,
        finals=Counter(watch.finals),
        tasks=len(watch.histories),
        events=sum(map(len, watch.histories.values())),
        acknowledgements=watch.acknowledgements,
        callbacks=world.loop.callbacks,
        virtual_s=world.loop.time(),
        digest=world.digest() if want_digest else "",
    )


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return "; ".join(map(_told, inner))
    return repr(error)
