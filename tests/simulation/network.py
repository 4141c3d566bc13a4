"""What lies between the processes and the ledger: delays, errors, lost replies, clocks that jump.

Every process has a `Link`, which is a Store to it. Behind all links is one memory store, whose
methods are atomic; what can go wrong on the way there and back is drawn here, and counted.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping
from enum import StrEnum
from functools import partial
from random import Random
from typing import Any, Final, cast

from ledger.memory_store import MemoryStore
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Append, Claimed, Outcome, Store, Written
from ledger.task import Status
from tests.given import T0
from tests.simulation.loop import Process, VirtualLoop


class Fault(StrEnum):
    """What is injected."""

    ERROR = "error before the commit"
    LOST_REPLY = "reply lost after the commit"
    LATE_REQUEST = "request arrives after the caller gave up"
    SLOW = "slow call"
    STALE_CLAIM = "stale claim"
    DUPLICATE = "duplicated delivery"
    CRASH_IN_CALL = "crash in a call"
    CRASH_AT_AWAIT = "crash at any await"
    PAUSE = "process stopped and continued"
    RESTART = "orderly stop and restart"
    OUTAGE = "ledger out of reach"
    LONG_OUTAGE = "ledger out of reach for longer than a lease"
    LEDGER_CLOCK = "ledger's clock jumps"
    PROCESS_CLOCK = "a process's clock jumps"
    PAUSES = "a type is paused or resumed"
    LIMITS = "a limit is changed"


IN_CALLS: Final = (
    Fault.ERROR,
    Fault.LOST_REPLY,
    Fault.LATE_REQUEST,
    Fault.SLOW,
    Fault.STALE_CLAIM,
    Fault.DUPLICATE,
    Fault.CRASH_IN_CALL,
)
"""Those that happen to a call; the others happen to a process, or to all."""

BY_OPERATORS: Final = (Fault.PAUSES, Fault.LIMITS)
"""Those that are no faults at all, and that somebody may do at any time."""

CLAIMS: Final = frozenset({"claim", "claim_stale"})
REMEMBERED_CLAIMS: Final = 16

LATENCY_S: Final = 0.002
"""The longest way of an undisturbed call."""

AT_ONCE: Final = 0.6
"""The part of calls that take no time."""


class Over(BaseException):
    """The run has ended; whoever still calls is being disposed of."""


class Network:
    """The ledger, and how it is reached."""

    def __init__(
        self,
        loop: VirtualLoop,
        chance: Random,
        make_store: Callable[..., MemoryStore],
        partitions: int,
        rates: Mapping[Fault, float],
        pending_idle_s: float,
    ) -> None:
        """`rates`: of so many calls, the part that meets each of the faults IN_CALLS."""
        self.loop = loop
        self.chance = chance
        self.active = True
        self.ledger_offset_ms = 0
        self.outage_until_s = 0.0
        self.injected: Counter[Fault] = Counter()
        self.on_append: Callable[[Process, Append, Outcome], None] = _nobody_looks
        self.on_system: Callable[[], None] = lambda: None
        self.on_claim: Callable[[Process, tuple[Any, ...], list[Claimed]], None] = _nobody_looks
        self.trace: Callable[[str], None] | None = None
        self.late_requests = 0
        """On their way, with nobody waiting for them any more."""
        self.on_late: Callable[[], None] = lambda: None
        self.claimed: deque[Claimed] = deque(maxlen=REMEMBERED_CLAIMS)
        self.pending_idle_s = pending_idle_s
        self._rates = list(rates.items())
        self._rate = sum(rates.values())
        self._idle: list[asyncio.Future[None]] = []
        self.store = make_store(self.now_ms, self.idle, partitions)

    def now_ms(self) -> int:
        """The ledger's clock."""
        return T0 + int(self.loop.time() * 1000) + self.ledger_offset_ms

    async def idle(self, timeout_ms: int) -> None:
        """Until something becomes ready, or time is up."""
        news = self.loop.create_future()
        self._idle.append(news)
        self.loop.call_later(timeout_ms / 1000, _arrive, news)
        await news

    def wake(self) -> None:
        """Something became ready."""
        waiting, self._idle = self._idle, []
        for news in waiting:
            _arrive(news)

    def draw(self, name: str) -> Fault | None:
        """What is to happen to a call."""
        drawn = self.chance.random()
        if drawn >= self._rate:
            return None
        for fault, rate in self._rates:
            drawn -= rate
            if drawn < 0:
                in_claims_only = fault in (Fault.STALE_CLAIM, Fault.DUPLICATE)
                return fault if name in CLAIMS or not in_claims_only else None
        return None

    def inject(self, fault: Fault, process: Process | None, lasts_s: float = 0.0) -> None:
        """Count a fault, and remember of its victim until when it has an excuse."""
        self.injected[fault] += 1
        if process is not None:
            disturbed(process, self.loop.time() + lasts_s)
        if self.trace is not None:
            self.trace(f"!! {fault}" + (f", {lasts_s:.3f} s" if lasts_s else ""))

    def perform(
        self, process: Process, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Let a call take effect, now."""
        try:
            reply = now(getattr(self.store, name)(*args, **kwargs))
        except Exception as error:
            if self.trace is not None:
                self.trace(f"{process.name} {name}: {error}")
            raise
        if name == "append":
            self._appended(process, args[0], reply)
        elif name == "append_all":
            for step, outcome in zip(args[0], reply, strict=True):
                self._appended(process, step, outcome)
        elif name == "append_system":
            self.on_system()
        elif name in CLAIMS:
            self.claimed.extend(reply)
        if self.trace is not None and (reply or name not in ("renew", "wait_ready", "claim_stale")):
            self.trace(_told(process, name, args, reply))
        return reply

    def deliver_late(self, after_s: float, perform: Callable[[], Any]) -> None:
        """Let a request arrive that its sender has given up."""

        def arrive() -> None:
            self.late_requests -= 1
            perform()
            self.on_late()

        self.late_requests += 1
        self.loop.call_later(after_s, arrive, context=self.loop.nobody)

    def _appended(self, process: Process, step: Append, outcome: Outcome | None) -> None:
        if outcome is not None:
            self.on_append(process, step, outcome)
            state = step.after.state
            if state.status is Status.QUEUED and state.waiting_until is None:
                self.wake()


class Link:
    """A process's way to the ledger: `store` is what its roles are given."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._chance = network.chance.random
        self._process = process
        self.offset_ms = 0
        """How far this process's idea of the ledger's time is off."""

    @property
    def store(self) -> Store:
        return cast("Store", self)

    @property
    def partitions(self) -> int:
        return self._network.store.partitions

    def partition_of(self, task_id: str) -> int:
        return self._network.store.partition_of(task_id)

    def now_ms(self) -> int:
        return self._network.now_ms() + self.offset_ms

    def __getattr__(self, name: str) -> Any:
        """Every other method of a store is a call over the network."""
        call = partial(self._wait_ready if name == "wait_ready" else self._call, name)
        setattr(self, name, call)
        return call

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        network = self._network
        if network.loop.is_over:
            raise Over
        if network.active:
            if network.loop.time() < network.outage_until_s:
                await self._meet_outage()
            fault = network.draw(name)
            if fault is not None:
                return await self._faulty(fault, name, args, kwargs)
        await self._travel(name, args, kwargs)
        return self._answered(name, args, kwargs)

    def _answered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Perform a call whose reply will be heard."""
        reply = self._network.perform(self._process, name, args, kwargs)
        if name == "claim":
            self._network.on_claim(self._process, args, reply)
        return reply

    async def _travel(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        drawn = self._chance()
        try:
            # Most find the others in any order anyway: the loop draws who comes first.
            await asyncio.sleep(0 if drawn < AT_ONCE else drawn * LATENCY_S)
        except asyncio.CancelledError:
            # What was sent is not recalled.
            if self._process.alive and self._chance() < 0.5:
                self._network.perform(self._process, name, args, kwargs)
            raise

    async def _meet_outage(self) -> None:
        disturbed(self._process, self._network.outage_until_s)
        await asyncio.sleep(self._chance() * 0.2)
        raise unreachable("the connection was refused")

    async def _wait_ready(self, name: str, *args: Any) -> Any:
        """Blocks in the ledger; its reply can be lost too."""
        network = self._network
        if network.active and network.loop.time() < network.outage_until_s:
            await self._meet_outage()
        await asyncio.sleep(self._chance() * LATENCY_S)
        delivered = await network.store.wait_ready(*args)
        if network.trace is not None and delivered:
            network.trace(_told(self._process, name, args, delivered))
        if network.active and network.draw(name) is Fault.LOST_REPLY:
            network.inject(Fault.LOST_REPLY, self._process)
            raise unreachable("the connection was cut")
        return delivered

    async def _faulty(
        self, fault: Fault, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        network, process = self._network, self._process
        perform = partial(network.perform, process, name, args, kwargs)
        match fault:
            case Fault.LOST_REPLY:
                perform()
                await self._fail_slowly(fault, "the reply was lost")
            case Fault.LATE_REQUEST:
                after_s = self._chance() * 6
                process.late_until_s = max(process.late_until_s, network.loop.time() + after_s)
                network.deliver_late(after_s, perform)
                await self._fail_slowly(fault, "no answer in time")
            case Fault.CRASH_IN_CALL:
                network.inject(fault, process)
                if self._chance() < 0.5:
                    perform()
                network.loop.kill(process)
                await network.loop.create_future()
            case Fault.SLOW:
                wait_s = self._chance() ** 2 * 4
                network.inject(fault, process, wait_s)
                before_s = wait_s * self._chance()
                await asyncio.sleep(before_s)
                reply = self._answered(name, args, kwargs)
                await asyncio.sleep(wait_s - before_s)
                return reply
            case Fault.STALE_CLAIM:
                wait_s = network.pending_idle_s * (1 + 2 * self._chance())
                network.inject(fault, process, wait_s)
                reply = self._answered(name, args, kwargs)
                await asyncio.sleep(wait_s)
                return reply
            case Fault.DUPLICATE:
                return self._duplicated(self._answered(name, args, kwargs), args)
            case _:
                await self._fail_slowly(fault, "the connection was cut")

    async def _fail_slowly(self, fault: Fault, reason: str) -> None:
        wait_s = self._chance() ** 3 * 2
        self._network.inject(fault, self._process, wait_s)
        await asyncio.sleep(wait_s)
        raise unreachable(reason)

    def _duplicated(self, claimed: list[Claimed], args: tuple[Any, ...]) -> list[Claimed]:
        """A claim of before comes once more, to this process or another one."""
        partition, queues, count = args[:3]
        fitting = [
            claim
            for claim in self._network.claimed
            if claim.delivery.partition == partition and claim.delivery.queue in queues
        ]
        if len(claimed) >= count or not fitting:
            return claimed
        again = fitting[int(self._chance() * len(fitting))]
        self._network.inject(Fault.DUPLICATE, self._process)
        if self._network.trace is not None:
            self._network.trace(f"{self._process.name} is given again {again.delivery}")
        return [*claimed, again]


def _nobody_looks(*_: Any) -> None:
    pass


def disturbed(process: Process, until_s: float) -> None:
    """Until then, the process may be late through no fault of its own."""
    process.disturbed_until_s = max(process.disturbed_until_s, until_s)


def unreachable(reason: str) -> Rejection:
    """What a store raises when the ledger did not answer."""
    return Rejection(RejectionCode.SERVICE_UNAVAILABLE, reason)


def now(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("a call of the memory store waits for something")


def _arrive(news: "asyncio.Future[None]") -> None:
    if not news.done():
        news.set_result(None)


def _told(process: Process, name: str, args: tuple[Any, ...], reply: Any) -> str:
    if name == "append":
        return f"{process.name} append {_step(args[0])} -> {_outcome(reply)}"
    if name == "append_all":
        pairs = zip(args[0], reply, strict=True)
        return f"{process.name} append " + "; ".join(
            f"{_step(s)} -> {_outcome(o)}" for s, o in pairs
        )
    if name in CLAIMS:
        found = [
            f"{c.delivery.entry} {short(c.delivery.task_id)} {c.delivery.queue.priority.value}"
            for c in reply
        ]
        return f"{process.name} {name} of {args[2]} on {args[0]}: {', '.join(found) or 'nothing'}"
    if name == "load":
        version = None if reply is None else (reply.version, str(reply.status))
        return f"{process.name} load {short(args[0])}: {version}"
    return f"{process.name} {name}{args[:1] if name == 'wait_ready' else args} -> {reply}"


def _step(step: Append) -> str:
    before = 0 if step.before is None else step.before.version
    return f"{short(step.after.id)} v{before} {', '.join(map(_event, step.events))}"


def _event(event: Any) -> str:
    name = type(event).__name__
    attempt = getattr(event, "attempt", None)
    return name if attempt is None else f"{name}({attempt})"


def _outcome(outcome: Outcome | None) -> str:
    if isinstance(outcome, Written):
        return str(outcome.position)
    return str(outcome)


def short(task_id: str) -> str:
    """Enough of an id to follow it through a trace."""
    return task_id[:8]
