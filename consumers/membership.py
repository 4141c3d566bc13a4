"""One member of a subscription: which partitions it reads, while others come, go and die.

Each beat says that the member is there, renews its leases, and looks who else is. Every member is
due an even share of the partitions; who has more hands some over, who has fewer takes those that
nobody holds. The lease of a dead member runs out, and then nobody holds what it had.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from consumers.known_tasks import KnownTasks
from consumers.remembered import Remembered
from consumers.service import Service
from consumers.subscribed_event import SubscribedEvent, Wanted
from consumers.subscribed_partition import SubscribedPartition, Terms
from consumers.subscription_errors import GroupRemoved, SubscriptionHalted
from ledger.foreign import ForeignEntries
from ledger.past import Past
from ledger.rejections import Rejection
from ledger.store import Events, Store
from ledger.subscriptions import Group, Halted, Held, Subscriptions, share

log = structlog.get_logger("subscription")

BEAT_S: Final = 1.0
"""Between beats; four in a lease at least."""

LEAVE_TIMEOUT_S: Final = 5.0
"""At the end, up to half of it for the beat that is under way, the rest for giving back what is
held; else the leases run out."""


class Membership:
    """`start`, then `take` until `leave`."""

    def __init__(
        self,
        store: Store,
        subscriptions: Subscriptions,
        group: Group,
        member: str,
        terms: Terms,
        events: Events | None = None,
        past: Past | None = None,
    ) -> None:
        """`events`: with those of the archive, where the stream has them no more. `past`: asked for
        tasks that were evicted."""
        self._store = store
        self._events = events
        self._subscriptions = subscriptions
        self._group = group
        self._member = member
        self._terms = terms
        self._wanted = Wanted(group.filters)
        self._known = KnownTasks(store, past=past)
        self._foreign = ForeignEntries()
        self._remembered = {
            p: Remembered(store, subscriptions, p, terms.name, group.epoch, events)
            for p in range(store.partitions)
        }
        self._beat_s = min(BEAT_S, terms.lease_ms / 4_000)
        self._service = Service(f"subscription {terms.name}", self._beat)
        self._held: dict[int, SubscribedPartition] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        """What reads each of those, or hands it over."""
        self._beating: asyncio.Task[None] | None = None
        self._turn = 0
        self.failure: BaseException | None = None
        """Why it does not go on."""
        self.woken = asyncio.Event()
        """There may be something to take, or it does not go on."""

    def start(self) -> None:
        """Be there, from now on."""
        self._beating = self._task(self._service.run(), f"subscription-{self._terms.name}")

    async def leave(self) -> None:
        """Let others have what this member holds, and be there no more."""
        until_s = asyncio.get_running_loop().time() + LEAVE_TIMEOUT_S
        self._service.stop()
        beating = [self._beating] if self._beating else []
        try:
            if beating:
                # What it claims is its own before it learns of that, and has to be given back too.
                await asyncio.wait(beating, timeout=LEAVE_TIMEOUT_S / 2)
        finally:
            tasks = [*self._tasks.values(), *beating]
            for task in tasks:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        try:
            async with asyncio.timeout_at(until_s), asyncio.TaskGroup() as group:
                for one in self._held.values():
                    group.create_task(one.release())
                group.create_task(self._subscriptions.beat(self._terms.name, self._member, 0))
        except* (Rejection, TimeoutError) as errors:
            reason = str(errors.exceptions[0])
            log.warning("subscription_not_given_back", group=self._terms.name, reason=reason)
        for one in self._held.values():
            one.lose()

    # -- giving out ---------------------------------------------------------------------------

    def take(self) -> SubscribedEvent | None:
        """The next event of one of its partitions, which take turns."""
        held = tuple(self._held.values())
        for i in range(len(held)):
            event = held[(self._turn + i) % len(held)].take()
            if event is not None:
                self._turn += i + 1
                return event
        return None

    def holding(self, partition: int) -> SubscribedPartition | None:
        """The partition, if this member has it."""
        return self._held.get(partition)

    @property
    def partitions(self) -> tuple[int, ...]:
        """Those that it reads."""
        return tuple(sorted(p for p, one in self._held.items() if not one.lost))

    @property
    def waits_for_acks(self) -> bool:
        """Nothing is given out until something is acknowledged."""
        return any(one.waits_for_acks for one in self._held.values())

    # -- beats --------------------------------------------------------------------------------

    async def _beat(self) -> float:
        name = self._terms.name
        group = await self._subscriptions.group(name)
        if group is None or group.id != self._group.id:
            # Where the whole ledger is another one, there is more to say than that it is gone.
            for partition, remembered in self._remembered.items():
                await remembered.check(self._group.starts[partition])
            raise GroupRemoved(f"the subscription {name} was removed")
        members = await self._subscriptions.beat(name, self._member, self._terms.lease_ms)
        await asyncio.gather(*(one.keep() for one in self._held.values()))
        self._let_go_of_lost()
        rank = members.index(self._member) if self._member in members else len(members)
        due = share(max(len(members), rank + 1), rank, self._store.partitions)
        staying = [p for p, one in self._held.items() if not one.leaving]
        for partition in staying[due:]:
            await self._hand_over(partition)
        await self._claim(due - len(self._held), rank)
        return self._beat_s

    def _let_go_of_lost(self) -> None:
        for partition, one in list(self._held.items()):
            task = self._tasks[partition]
            if one.lost:
                task.cancel()
                if task.done():
                    del self._held[partition], self._tasks[partition]

    async def _hand_over(self, partition: int) -> None:
        one, reading = self._held[partition], self._tasks[partition]
        one.leaving = True
        reading.cancel()
        await asyncio.wait([reading])
        log.info("partition_handed_over", group=self._terms.name, partition=partition)
        self._tasks[partition] = self._task(
            one.hand_over(self._terms.lease_ms / 1_000), f"handing-over-{partition}"
        )

    async def _claim(self, count: int, rank: int) -> None:
        partitions = self._store.partitions
        # Members look for what is free in different places first.
        for i in range(partitions):
            partition = (rank + i) % partitions
            if count <= 0 or self._service.stopping:
                return
            if partition not in self._held and await self._claim_one(partition):
                count -= 1

    async def _claim_one(self, partition: int) -> bool:
        terms = self._terms
        claimed = await self._subscriptions.claim(
            partition, terms.tag, self._member, terms.lease_ms, self._group.starts[partition]
        )
        match claimed:
            case Halted(reason):
                raise SubscriptionHalted(reason)
            case Held():
                self._read(partition, claimed)
                return True
            case _:
                return False

    def _read(self, partition: int, held: Held) -> None:
        one = SubscribedPartition(
            self._store,
            self._subscriptions,
            partition,
            held,
            self._terms,
            self._wanted,
            self._known,
            self._foreign,
            self._remembered[partition],
            self.woken.set,
            self._events,
        )
        log.info("partition_taken", group=self._terms.name, partition=partition)
        self._held[partition] = one
        self._tasks[partition] = self._task(one.run(), f"subscribed-{partition}")

    # -- tasks --------------------------------------------------------------------------------

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        if self.failure is None:
            self.failure = task.exception()
        self.woken.set()
