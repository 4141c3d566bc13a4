"""Every check catches what it is there for: a store or a worker that was broken on purpose.

Seeds are tried until it complains; on the product itself none of them does (`test_runs`).
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from consumers import attempt as attempt_module
from ledger import transact as transact_module
from ledger.commands import Command, FailAttempt
from ledger.decide import decide
from ledger.events import AttemptFailed, ErrorKind, Event, RetryScheduled, TaskStarted
from ledger.memory_queues import WaitingLines
from ledger.memory_store import MemoryStore, Partition, Snapshot
from ledger.placement import Due, Leased, Queue
from ledger.rejections import Rejection, RejectionCode
from ledger.store import (
    Append,
    Claimed,
    Conflict,
    Delivery,
    Outcome,
    Overdue,
    Position,
    Store,
    Written,
)
from ledger.system.events import LimitScope
from ledger.task import Task
from ledger.transact import Committed, transact
from tests.simulation.checks import ALL
from tests.simulation.network import Fault
from tests.simulation.plan import TASK_TYPES, Plan, draw_plan
from tests.simulation.world import simulate

SEEDS_MAX = 150

CALM = replace(
    draw_plan(Random(0)),
    partitions=1,
    workers=2,
    concurrency=2,
    wishes=5,
    clients=2,
    faults_s=4.0,
    rates={},
    disasters=(),
    changes=(),
    queue_max=0,
    limits=(),
    is_crowded=False,
)
CROWDED = replace(CALM, workers=1, concurrency=1, wishes=50, is_crowded=True)


def catches(check: str, *, plan: Plan = CALM, make_store: type[MemoryStore] = MemoryStore) -> None:
    """Some seed makes the check complain."""
    for seed in range(1, SEEDS_MAX + 1):
        outcome = simulate(seed, plan=plan, make_store=make_store)
        if any(violation.check == check for violation in outcome.violations):
            return
    raise AssertionError(f"{SEEDS_MAX} runs, and {check!r} never complained")


class Forgetful(MemoryStore):
    """Says that it wrote, and did not, now and then."""

    async def append(self, step: Append) -> Outcome:
        if step.after.version % 3 == 0:
            return Written(Position(self.partition_of(step.after.id), "999-0"))
        return await super().append(step)


class Blind(MemoryStore):
    """Writes whatever it is given, whatever the task has become meanwhile."""

    async def append(self, step: Append) -> Outcome:
        outcome = await super().append(step)
        if isinstance(outcome, Conflict):
            return await super().append(replace(step, before=await self.load(step.after.id)))
        return outcome


class Skipping(MemoryStore):
    """Leaves versions out."""

    async def append(self, step: Append) -> Outcome:
        outcome = await super().append(step)
        if isinstance(outcome, Written):
            self.contents[self.partition_of(step.after.id)].tasks[step.after.id].version += 1
        return outcome


class Untraced(MemoryStore):
    """Writes events as if they were part of nothing, now and then."""

    async def append(self, step: Append) -> Outcome:
        if step.after.version % 3 == 0:
            step = replace(step, meta=replace(step.meta, trace=""))
        return await super().append(step)


class Generous(MemoryStore):
    """Gives an attempt to everybody who asks for it."""

    async def append_all(self, steps: Sequence[Append]) -> list[Outcome | None]:
        outcomes = await super().append_all(steps)
        return [
            Written(Position(0, "1-0"))
            if isinstance(outcome, Conflict) and isinstance(step.events[0], TaskStarted)
            else outcome
            for step, outcome in zip(steps, outcomes, strict=True)
        ]


class Sticky(MemoryStore):
    """Leaves due tasks where they were."""

    def _leave(self, partition: Partition, task: Task, kept: Snapshot) -> None:
        if not isinstance(kept.place, Due):
            super()._leave(partition, task, kept)


class Clinging(MemoryStore):
    """Keeps leases for ever."""

    def _leave(self, partition: Partition, task: Task, kept: Snapshot) -> None:
        if not isinstance(kept.place, Leased):
            super()._leave(partition, task, kept)


class Careless(MemoryStore):
    """Never gives a claim that got lost to anybody else."""

    async def claim_stale(
        self, partition: int, queues: Sequence[Queue], count: int, idle_ms: int
    ) -> list[Claimed]:
        return []


class Silent(MemoryStore):
    """Tells nobody that a lease is gone."""

    async def renew(
        self, partition: int, leases: Sequence[tuple[str, int]], lease_ms: int
    ) -> list[tuple[str, int]]:
        await super().renew(partition, leases, lease_ms)
        return []


class UpsideDown(MemoryStore):
    """Takes the least urgent first."""

    async def claim(
        self,
        partition: int,
        queues: Sequence[Queue],
        count: int,
        delivered: Sequence[Delivery] = (),
    ) -> list[Claimed]:
        return await super().claim(partition, queues[::-1], count, delivered)


class Faulty(MemoryStore):
    """Raises what no store may."""

    async def overdue(self, partition: int, count: int) -> Overdue:
        if self.now_ms() % 3 == 0:
            raise ValueError("broken on purpose")
        return await super().overdue(partition, count)


def test_a_store_that_forgets_is_caught():
    catches("nothing acknowledged is lost", make_store=Forgetful)


def test_a_task_that_ends_twice_is_caught():
    catches("exactly one final state", plan=disturbed_by(Fault.PAUSE), make_store=Blind)


def test_a_store_that_skips_versions_is_caught():
    catches("versions are contiguous", make_store=Skipping)


def test_a_store_that_forgets_who_began_it_all_is_caught():
    catches("events are in their task's trace", make_store=Untraced)


def test_an_illegal_transition_is_caught():
    catches("only legal transitions", plan=disturbed_by(Fault.PAUSE), make_store=Blind)


def test_a_worker_that_ignores_the_fence_is_caught(monkeypatch: pytest.MonkeyPatch):
    async def insist(store: Store, task_id: str, command: Any, **others: Any) -> Committed:
        try:
            return await transact(store, task_id, command, **others)
        except Rejection as rejection:
            if rejection.code is not RejectionCode.STALE_ATTEMPT:
                raise
            task = await store.load(task_id)
            assert task is not None
            command = replace(command, attempt=task.state.attempt)
            return await transact(store, task_id, command, meta=others["meta"], known=task)

    monkeypatch.setattr(attempt_module, "transact", insist)

    catches("no effect of an old attempt", plan=disturbed_by(Fault.PAUSE))


def test_an_attempt_that_two_workers_run_is_caught():
    plan = replace(CALM, workers=3, rates={Fault.DUPLICATE: 0.3, Fault.STALE_CLAIM: 0.1})
    catches("no two owners of an attempt", plan=plan, make_store=Generous)


def test_a_task_in_a_wrong_place_is_caught():
    catches("places equal states", make_store=Sticky)


def test_a_task_that_never_ends_is_caught():
    plan = replace(CALM, rates={Fault.LOST_REPLY: 0.3})
    catches("everything finishes once faults cease", plan=plan, make_store=Careless)


def test_a_lease_that_stays_is_caught():
    catches("leases end up empty", make_store=Clinging)


def test_a_cancel_that_no_handler_hears_of_is_caught():
    catches("a cancel is never forgotten", make_store=Silent)


def test_more_retries_than_allowed_are_caught(monkeypatch: pytest.MonkeyPatch):
    def retry_always(command: Command, task: Task | None, now: int) -> tuple[Event, ...]:
        events = decide(command, task, now)
        if not events or task is None or not isinstance(command, FailAttempt):
            return events
        if command.error_kind is ErrorKind.PERMANENT or task.state.retry_count > 5:
            return events
        failed = AttemptFailed(command.attempt, command.error_message, command.error_kind)
        return (failed, RetryScheduled(now, task.state.retry_count + 1))

    monkeypatch.setattr(transact_module, "decide", retry_always)

    catches("retries are counted")


def test_urgent_tasks_that_starve_others_are_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("consumers.turns.PASSED_OVER_MAX", 1_000)

    catches("the priority order and its bound", plan=CROWDED)


def test_a_store_that_serves_the_least_urgent_first_is_caught():
    catches("the priority order and its bound", plan=CROWDED, make_store=UpsideDown)


def test_a_limit_that_is_not_kept_is_caught(monkeypatch: pytest.MonkeyPatch):
    def has_room(lines: WaitingLines, name: str) -> bool:
        return True

    monkeypatch.setattr(WaitingLines, "_has_room", has_room)
    limits = tuple((LimitScope.TYPE, kind, 1) for kind in TASK_TYPES)

    catches("limits hold", plan=replace(CALM, limits=limits))


def test_a_limit_that_is_lowered_for_nothing_is_caught(monkeypatch: pytest.MonkeyPatch):
    def has_room(lines: WaitingLines, name: str) -> bool:
        limit = lines.limits.get(name)
        return limit is None or lines.admitted[name] < max(limit, 3)

    monkeypatch.setattr(WaitingLines, "_has_room", has_room)

    catches("limits hold", plan=replace(CALM, changes=(Fault.LIMITS,)))


def test_a_worker_that_does_not_hear_of_pauses_is_caught(monkeypatch: pytest.MonkeyPatch):
    def hear_nothing(*_: Any) -> None:
        pass

    monkeypatch.setattr("consumers.pauses.Pauses._take", hear_nothing)

    catches("a paused type is left alone", plan=replace(CALM, changes=(Fault.PAUSES,)))


def test_a_scheduler_that_knows_no_grace_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("consumers.grace.Grace.lasts", False)
    plan = replace(disturbed_by(Fault.LONG_OUTAGE), faults_s=10.0)

    catches("an outage ends no lease", plan=plan)


def test_a_role_that_breaks_is_caught():
    catches("roles stand every fault", make_store=Faulty)


def test_no_check_goes_without_such_a_test():
    here = Path(__file__).read_text()

    assert [kind.name for kind in ALL if f'catches("{kind.name}"' not in here] == []


def disturbed_by(*disasters: Fault) -> Plan:
    """Processes that things happen to, all the time."""
    return replace(CALM, disasters=disasters, disaster_every_s=0.2, lease_ms=2_000)
