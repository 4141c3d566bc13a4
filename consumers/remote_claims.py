"""Claims for workers elsewhere: they ask for tasks and wait, and what is claimed is handed to them
in the order in which they asked.

A `RemoteQueue` serves all who ask for the same task types, with the claims that a worker process
makes for itself (`consumers/claiming.py`): what they ask for are its slots.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

import structlog

from consumers.claiming import Claims, fault_of
from consumers.pauses import Pauses
from consumers.service import Outage, Service
from consumers.slots import Slots
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Claimed, Delivery, Store

log = structlog.get_logger("remote")

HANDED_OUT_BYTES_MAX: Final = 3 * 1024 * 1024
"""Payloads and metadata in one answer, unless the first task alone has more: clients of gRPC accept
4 MiB."""


class Asking:
    """One worker's wait for at most `count` tasks."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.answer: asyncio.Future[list[Claimed]] = asyncio.get_running_loop().create_future()


class _WatchedOutage(Outage):
    """Lets those who wait know, too."""

    def __init__(self, name: str, queue: "RemoteQueue") -> None:
        super().__init__(name)
        self._queue = queue

    def met(self, role: str, reason: str, began_s: float) -> None:
        super().met(role, reason, began_s)
        self._queue.fail(Rejection(RejectionCode.SERVICE_UNAVAILABLE, reason))


class RemoteQueue:
    """`run` until `stop`; `ask` meanwhile."""

    def __init__(
        self, store: Store, task_types: Iterable[str], *, pending_idle_ms: int, beat_s: float
    ) -> None:
        self._beat_s = beat_s
        self._asking: deque[Asking] = deque()
        self._slots = Slots(0, ())
        self._learned_at = float("-inf")
        self._asked = asyncio.Event()
        self._spawned: set[asyncio.Task[None]] = set()
        types = tuple(task_types)
        self._pauses = Pauses(store, types)
        outage = _WatchedOutage(f"remote workers of {', '.join(types)}", self)
        self._claims = Claims(
            store,
            types,
            self._pauses,
            self._slots,
            self._hand_out,
            outage,
            worker_id="remote",
            pending_idle_ms=pending_idle_ms,
            keeps_delivered=False,
        )
        self._beats = Service("pauses", self._beat, outage=outage, backoff_cap_s=beat_s)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._asking)

    async def run(self) -> None:
        """Claim for those who ask, until `stop`. What cannot be handed out is handed back."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._claims.run())
                group.create_task(self._beats.run())
        except BaseExceptionGroup as errors:
            self.fail(errors.exceptions[0])
            raise
        finally:
            await self._claims.hand_back_all()
            await asyncio.gather(*self._spawned, return_exceptions=True)

    def stop(self) -> None:
        """Claim nothing more; who waits gets nothing."""
        self._claims.stop()
        self._beats.stop()
        self._asked.set()
        for asking in self._asking:
            if not asking.answer.done():
                asking.answer.set_result([])
        self._settle()

    async def ask(self, count: int, wait_s: float) -> list[Claimed]:
        """At most `count` tasks, as soon as there is one; none when time is up. Each has to be
        started or given to `hand_back`, or `drop`.

        Raises Rejection while the ledger is out of reach.
        """
        await self._know_pauses()
        if self._claims.stopping:
            return []
        asking = Asking(count)
        self._asking.append(asking)
        self._settle()
        self._asked.set()
        try:
            async with asyncio.timeout(wait_s):
                return await asking.answer
        except TimeoutError:
            return _answer_of(asking)
        except asyncio.CancelledError:
            self.hand_back([claim.delivery for claim in _answer_of(asking)])
            raise
        finally:
            asking.answer.cancel()
            self._settle()

    def hand_back(self, deliveries: Sequence[Delivery]) -> None:
        """Let others take at once what will not be started; soon."""
        by_partition: dict[int, list[Delivery]] = {}
        for delivery in deliveries:
            by_partition.setdefault(delivery.partition, []).append(delivery)
        for partition, some in by_partition.items():
            self._spawn(self._claims.hand_back(partition, some))

    async def drop(self, delivery: Delivery) -> None:
        """Forget a claim of a task that is not to be started by anybody."""
        await self._claims.drop(delivery)

    def fail(self, error: BaseException) -> None:
        """Nobody who waits now will get anything."""
        for asking in self._asking:
            if not asking.answer.done():
                asking.answer.set_exception(error)
        self._settle()

    # -- what goes on by itself ---------------------------------------------------------------

    def _hand_out(self, claimed: Sequence[Claimed]) -> None:
        """To those who wait longest. What is left, because somebody has gone or the answers are
        full, is handed back."""
        good: deque[Claimed] = deque()
        for claim in claimed:
            fault = fault_of(claim)
            if fault:
                self._spawn(self._claims.set_aside(claim.delivery, fault))
            else:
                good.append(claim)
        for asking in self._asking:
            if good and not asking.answer.done():
                asking.answer.set_result(_as_many_as_fit(good, asking.count))
        self._settle()
        self.hand_back([claim.delivery for claim in good])

    def _settle(self) -> None:
        """Let there be as many slots as tasks are waited for."""
        self._asking = deque(asking for asking in self._asking if not asking.answer.done())
        self._slots.resize(sum(asking.count for asking in self._asking))
        if not self._asking and not self._claims.stopping:
            self._asked.clear()

    async def _know_pauses(self) -> None:
        """What was known when somebody last waited may be long out of date."""
        if asyncio.get_running_loop().time() - self._learned_at >= self._beat_s:
            await self._learn()

    async def _learn(self) -> None:
        await self._pauses.learn()
        self._learned_at = asyncio.get_running_loop().time()

    async def _beat(self) -> float:
        await self._asked.wait()
        await self._learn()
        return self._beat_s

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._spawned.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # It is stale before long, and taken again.
            log.error("claim_not_settled", exc_info=error)


def _answer_of(asking: Asking) -> list[Claimed]:
    """What was handed out in the very moment in which the wait ended."""
    answer = asking.answer
    if answer.done() and not answer.cancelled() and answer.exception() is None:
        return answer.result()
    return []


def _as_many_as_fit(claims: deque[Claimed], count: int) -> list[Claimed]:
    """The first of `claims`, taken out of it."""
    taken: list[Claimed] = []
    size = 0
    while claims and len(taken) < count:
        task = claims[0].task
        assert task is not None  # noqa: S101 - the others were set aside
        size += len(task.submission.payload) + len(task.submission.metadata)
        if taken and size > HANDED_OUT_BYTES_MAX:
            break
        taken.append(claims.popleft())
    return taken
