"""Takes tasks out of the queues for a worker, as it has room for them, and gives back what it will
not start.

Loops that all wait on something: one per partition, woken by the dispatch streams, and one that
looks for claims which other workers never started.
"""

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from consumers.pauses import Pauses
from consumers.service import Outage, Service
from consumers.slots import Slots
from consumers.turns import Turns
from ledger.rejections import Rejection
from ledger.store import Claimed, Delivery, Store

log = structlog.get_logger("worker")

READY_WAIT_MS: Final = 1_000
"""How long one blocking read of the dispatch streams lasts; also how soon a stop is seen."""

PAUSED_WAIT_MS: Final = 200
"""The same while a type is paused, so that it is taken up again soon after it is resumed."""


class Claims:
    """`run` until `stop`; then `hand_back_all`."""

    def __init__(
        self,
        store: Store,
        task_types: Iterable[str],
        pauses: Pauses,
        slots: Slots,
        begin: Callable[[Sequence[Claimed]], None],
        outage: Outage,
        *,
        worker_id: str,
        pending_idle_ms: int,
        keeps_delivered: bool = True,
    ) -> None:
        """`begin` is given what was claimed, and fills slots with it before it returns.

        `keeps_delivered`: what came in as the last slot was filled waits for the next one. Else it
        is handed back, where slots may be long in coming.
        """
        self._store = store
        self._pauses = pauses
        self._slots = slots
        self._begin = begin
        self._worker_id = worker_id
        self._pending_idle_ms = pending_idle_ms
        self._keeps_delivered = keeps_delivered
        self._turns = Turns(task_types, store.partitions)
        self._delivered: dict[int, list[Delivery]] = {}
        """By blocking reads, and not claimed yet."""
        self._services = [Service("stale claims", self._claim_stale, outage=outage)]
        for partition in range(store.partitions):
            step = functools.partial(self._claim, partition)
            self._services.append(Service(f"claims of partition {partition}", step, outage=outage))

    async def run(self) -> None:
        """Claim until `stop` is called."""
        async with asyncio.TaskGroup() as group:
            for service in self._services:
                group.create_task(service.run())

    def stop(self) -> None:
        """Claim nothing more."""
        for service in self._services:
            service.stop()
        self._pauses.end()
        self._slots.end()

    @property
    def stopping(self) -> bool:
        return self._services[0].stopping

    async def _claim(self, partition: int) -> float:
        """Take as many tasks as there is room for; when there are fewer, wait for the next one."""
        await self._pauses.known()
        await self._hand_back_paused(partition)
        fair = self._turns.are_overdue(partition)
        if not self._keeps_delivered and not self._slots.any_free:
            await self.hand_back(partition, self._delivered.pop(partition, []))
        room = await self._slots.reserve(1 if fair else None)
        claimed: Sequence[Claimed] = ()
        try:
            # Only now: a type may have been paused while there was no room.
            await self._hand_back_paused(partition)
            paused = self._pauses
            queues = self._turns.out_of_order(paused) if fair else self._turns.in_order(paused)
            if queues:
                delivered = self._delivered.get(partition, [])
                claimed = await self._store.claim(partition, queues, room, delivered)
                self._delivered[partition] = []
                await self._take_up(partition, claimed)
        finally:
            self._slots.give_back(room)
        if not queues:
            await self._pauses.change(READY_WAIT_MS / 1000)
            return 0.0
        is_full = len(claimed) >= room
        self._turns.took(partition, claimed, passed_over=is_full and not fair)
        if not is_full and not self.stopping:
            wait_ms = PAUSED_WAIT_MS if self._pauses else READY_WAIT_MS
            self._delivered[partition] = await self._store.wait_ready(partition, queues, wait_ms)
        return 0.0

    async def _hand_back_paused(self, partition: int) -> None:
        """A type may have been paused while a blocking read went on: what that delivered must keep
        no place from others."""
        delivered = self._delivered.get(partition, [])
        paused = [one for one in delivered if one.queue.task_type in self._pauses]
        if paused:
            self._delivered[partition] = [one for one in delivered if one not in paused]
            await self.hand_back(partition, paused)

    async def _claim_stale(self) -> float:
        """Claims that their worker never started; it died, or was stopped, in between."""
        pause_s = self._pending_idle_ms / 1000
        await self._pauses.known()
        for partition in range(self._store.partitions):
            some = self._turns.in_order(self._pauses)
            room = await self._slots.reserve_for_stale() if some else 0
            if not room:
                break
            try:
                # Anew: a type may have been paused while there was no room.
                queues = self._turns.in_order(self._pauses)
                if not queues:
                    break
                claimed = await self._store.claim_stale(
                    partition, queues, room, self._pending_idle_ms
                )
                await self._take_up(partition, claimed)
            finally:
                self._slots.give_back(room)
            if len(claimed) == room:
                pause_s = 0.0
        return pause_s

    async def _take_up(self, partition: int, claimed: Sequence[Claimed]) -> None:
        """Begin what was claimed; a worker that was stopped meanwhile gives it back."""
        if self.stopping:
            await self.hand_back(partition, [claim.delivery for claim in claimed])
        else:
            self._begin(claimed)

    async def hand_back(self, partition: int, deliveries: Sequence[Delivery]) -> None:
        """Let others take at once what will not be started here."""
        try:
            await self._store.release(partition, deliveries)
        except Rejection as rejection:
            # It is stale before long, and taken again.
            log.info("claims_not_handed_back", worker_id=self._worker_id, reason=rejection.message)

    async def hand_back_all(self) -> None:
        """What was delivered and not claimed yet, and what the store holds for claims to come."""
        for partition in range(self._store.partitions):
            await self.hand_back(partition, self._delivered.pop(partition, []))

    async def drop(self, delivery: Delivery) -> None:
        """Forget a claim of a task that is not to be started by anybody."""
        try:
            await self._store.drop(delivery)
        except Rejection as rejection:
            # It is found again as a stale claim, and dropped then.
            log.info("claim_not_dropped", task_id=delivery.task_id, reason=rejection.message)

    async def set_aside(self, delivery: Delivery, reason: str) -> None:
        """Keep a claim that no worker can serve where an operator finds it."""
        log.error(
            "entry_set_aside",
            queue=f"{delivery.queue.task_type}:{delivery.queue.priority.value}",
            entry=delivery.entry,
            task_id=delivery.task_id,
            reason=reason,
        )
        await self._store.set_aside(delivery, reason)


def fault_of(claim: Claimed) -> str:
    """Why a claim cannot be served; empty when it can."""
    if claim.task is None:
        return claim.fault
    task_type = claim.task.submission.task_type
    if task_type != claim.delivery.queue.task_type:
        return f"the task is of another type, {task_type}"
    return ""
