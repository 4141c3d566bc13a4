"""GET /api/v1/tasks/{id}/explain: why a task waits, or what else is the matter with it."""

import asyncio

import msgspec

from api.describe import Answer, Group, operation
from api.errors import task_not_found
from api.estimates import Estimates
from api.exchange import Exchange
from api.reasons import Reason
from api.scalars import Count, Moment, TaskId
from api.waiting import queue_position
from api.why import Facts, LimitMet, reasons
from api.wire import moment_text, time_text
from ledger.codec import encode
from ledger.identity import is_task_id
from ledger.rejections import RejectionCode
from ledger.store import Store, limit_share
from ledger.system.events import LimitScope
from ledger.system.state import System
from ledger.task import Status, Task


class Explanation(msgspec.Struct, frozen=True):
    """Why a task is where it is; `at` is when the ledger was looked at."""

    task_id: TaskId
    status: Status
    at: Moment
    queue_position: Count
    estimated_completion: Moment | None
    reasons: list[Reason]


class Explain:
    """The endpoint: takes an Exchange and answers it, or raises."""

    def __init__(self, store: Store, estimates: Estimates) -> None:
        self._store = store
        self._estimates = estimates

    @operation(
        "explainTask",
        Group.TASKS,
        {200: Answer("What is the matter with it.", Explanation)},
        refusals=(RejectionCode.TASK_NOT_FOUND,),
    )
    async def task(self, exchange: Exchange) -> None:
        """Why a task waits, or what else is the matter with it."""
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
            time_text(await self._estimate(task, facts)),
            reasons(task, facts),
        )
        await exchange.respond(200, encode(explanation))

    async def _estimate(self, task: Task, facts: Facts) -> int | None:
        # What the estimates know of pauses and limits may be a second old.
        if facts.pause is not None and task.status is not Status.PROCESSING:
            return None
        if any(met.scope is LimitScope.KB for met in facts.held_back_by):
            return None
        return await self._estimates.of(task, facts.queue_position)

    async def _facts(self, task: Task) -> Facts:
        position, workers, waiting, lease_until, system = await asyncio.gather(
            queue_position(self._store, task),
            self._store.workers(),
            self._store.waiting(task.submission.task_type),
            self._store.lease_until(task),
            self._store.load_system(),
        )
        return Facts(
            self._store.now_ms(),
            workers,
            position,
            waiting,
            lease_until,
            system.state.paused.get(task.submission.task_type),
            await self._limits_met(task, system) if position else (),
        )

    async def _limits_met(self, task: Task, system: System) -> list[LimitMet]:
        """The limits that hold the task back; none where it is among those that were admitted."""
        submission, met = task.submission, list[LimitMet]()
        of_task = {LimitScope.TYPE: submission.task_type, LimitScope.KB: submission.kb_id}
        limits = {scope: system.state.limits(scope).get(name) for scope, name in of_task.items()}
        if not any(limits.values()) or not await self._store.is_held(task):
            return met
        partition = self._store.partition_of(task.id)
        for scope, name in of_task.items():
            limit = limits[scope]
            if limit is None:
                continue
            share = limit_share(limit, self._store.partitions)
            [admitted] = await self._store.admitted(scope, (name,), partition)
            if admitted >= share:
                met.append(LimitMet(scope, name, limit, share, admitted))
        return met
