"""GET /api/v1/tasks/{id}/explain: why a task waits, or what else is the matter with it."""

import asyncio

import msgspec

from api.errors import task_not_found
from api.exchange import Exchange
from api.reasons import Reason
from api.waiting import queue_position
from api.why import Facts, reasons
from api.wire import moment_text
from ledger.codec import encode
from ledger.identity import is_task_id
from ledger.store import Store
from ledger.task import Status, Task


class Explanation(msgspec.Struct, frozen=True):
    """The answer; `at` is when the ledger was looked at."""

    task_id: str
    status: Status
    at: str
    queue_position: int
    reasons: list[Reason]


class Explain:
    """The endpoint: takes an Exchange and answers it, or raises."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def task(self, exchange: Exchange) -> None:
        """GET /api/v1/tasks/{id}/explain"""
        exchange.parameters()
        task_id = exchange.task_id
        task = await self._store.load(task_id) if is_task_id(task_id) else None
        if task is None:
            raise task_not_found(task_id)
        facts = await self._facts(task)
        explanation = Explanation(
            task.id,
            task.status,
            moment_text(facts.now_ms),
            facts.queue_position,
            reasons(task, facts),
        )
        await exchange.respond(200, encode(explanation))

    async def _facts(self, task: Task) -> Facts:
        position, workers, waiting, lease_until = await asyncio.gather(
            queue_position(self._store, task),
            self._store.workers(),
            self._store.waiting(task.submission.task_type),
            self._store.lease_until(task),
        )
        return Facts(self._store.now_ms(), workers, position, waiting, lease_until)
