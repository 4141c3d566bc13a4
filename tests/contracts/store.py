"""What every store must do. A subclass brings the store; nothing here knows which one it is."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from ledger.codec import Meta, Undecodable, decode_meta
from ledger.commands import (
    CancelTask,
    Command,
    CompleteTask,
    FailAttempt,
    ReleaseTask,
    ReportProgress,
    RetryTask,
    StartTask,
    SubmitTask,
)
from ledger.decide import decide
from ledger.events import ErrorKind, Priority, TaskCanceled
from ledger.evolve import fold
from ledger.identity import derived_id
from ledger.memory_store import MemoryStore
from ledger.placement import Queue, queue_of
from ledger.redis_store import RedisStore
from ledger.retry_policy import RetryPolicy
from ledger.store import (
    Append,
    Conflict,
    Delivery,
    Extent,
    Full,
    Outcome,
    Position,
    Store,
    Written,
)
from ledger.system.commands import SetLimit
from ledger.system.events import LimitScope
from ledger.system.transact import transact_system
from ledger.task import Task
from ledger.transact import apply, transact
from ledger.workers import WorkerReport, WorkerState
from tests.given import OTHER_TRACE, T0, TRACE, a_submission
from tests.places import assert_quiescent, place_of, places_of

AnyStore = MemoryStore | RedisStore
OpenStore = Callable[[int], Awaitable[AnyStore]]

QUEUES = [Queue("document_processing", priority) for priority in Priority]
NORMAL = Queue("document_processing", Priority.NORMAL)
META = Meta()
RESULT = msgspec.Raw(b'{"chunks": 12}')
AT_ONCE = RetryPolicy(base_ms=0)
LONG_MS = 600_000
SIGNAL_MS = 10_000
"""How long a test waits for a signal that should come at once."""

_numbers = itertools.count()


def new_id() -> str:
    return derived_id("tests", str(next(_numbers)))


async def submit(store: Store, **fields: Any) -> Task:
    """A task of its own."""
    task_id = fields.pop("task_id", None) or new_id()
    return (await transact(store, task_id, SubmitTask(a_submission(**fields)))).task


async def send(store: Store, task: Task, command: Command) -> Task:
    return (await transact(store, task.id, command)).task


async def start(store: Store, task: Task, lease_ms: int = LONG_MS) -> Task:
    return await send(store, task, StartTask(task.state.attempt + 1, "w1", lease_ms))


async def append(
    store: Store, task_id: str, before: Task | None, command: Command, queue_max: int = 0
) -> Outcome:
    """One append as it is, without transact's second tries."""
    now = store.now_ms()
    events = decide(command, before, now)
    after = apply(task_id, before, events, now)
    return await store.append(Append(before, after, events, Meta(), queue_max))


async def claim(store: Store, count: int, queues: Sequence[Queue] = QUEUES) -> list[Task]:
    """Ready tasks, all of which must be readable."""
    claimed = await store.claim(0, queues, count, [])
    return [c.task for c in claimed if c.task is not None or pytest.fail(c.fault)]


async def take_one(store: Store, enough: asyncio.Event) -> list[Delivery]:
    """Wait for a ready task as an idle worker does, until there is `enough`."""
    while not enough.is_set():
        found = await store.wait_ready(0, QUEUES, 50)
        if found:
            return found
    return []


async def stale(store: Store, wanted: int, count: int = 100) -> list[str]:
    """The ids of `wanted` claims that nobody started, asked for until they are there."""
    found: list[str] = []
    async with asyncio.timeout(SIGNAL_MS / 1000):
        while len(found) < wanted:
            # What was handed out in this very loop is stale again before the others are found.
            ids = [c.delivery.task_id for c in await store.claim_stale(0, QUEUES, count, 1)]
            found += [task_id for task_id in ids if task_id not in found]
            await asyncio.sleep(0)
    return found


def a_report(worker_id: str = "w1", **others: Any) -> WorkerReport:
    """What a worker says of itself, in which only what a test is about has to be named."""
    fields: dict[str, Any] = {
        "host": "h1",
        "pid": 7,
        "task_types": ("document_processing",),
        "concurrency": 4,
        "lease_ms": LONG_MS,
        "started_at": 1_000,
    }
    return WorkerReport(worker_id, **{**fields, **others})


class StoreContract:
    """A subclass provides `open_store`, and two ways to spoil a snapshot."""

    @pytest.fixture
    async def store(self, open_store: OpenStore) -> AnyStore:
        return await open_store(1)

    async def lose(self, store: Any, task: Task) -> None:
        """Make the task's snapshot vanish."""
        raise NotImplementedError

    async def damage(self, store: Any, task: Task) -> None:
        """Make the task's snapshot unreadable."""
        raise NotImplementedError

    # -- append -------------------------------------------------------------------------------

    async def test_an_append_can_be_read_back(self, store: AnyStore):
        task_id = new_id()
        done = await transact(store, task_id, SubmitTask(a_submission(payload=b'{"a" : 1.0}')))

        assert done.position == await store.last_position(0)
        assert await store.load(task_id) == done.task
        assert done.task.version == 1

    async def test_a_step_of_two_events_is_written_whole(self, store: AnyStore):
        task = await start(store, await submit(store))

        done = await transact(store, task.id, FailAttempt(1, "boom", ErrorKind.RETRYABLE))

        recorded = await store.history(task.id)
        assert [r.type for r in recorded[2:]] == ["AttemptFailed", "RetryScheduled"]
        assert [r.version for r in recorded] == [1, 2, 3, 4]
        assert recorded[-1].position == done.position
        assert await store.load(task.id) == done.task

    async def test_an_append_upon_another_version_writes_nothing(self, store: AnyStore):
        first = await submit(store)
        now = await start(store, first)

        outcomes = [
            await append(store, first.id, None, SubmitTask(first.submission)),
            await append(store, first.id, first, CancelTask()),
        ]

        assert outcomes == [Conflict(2), Conflict(2)]
        assert await store.load(first.id) == now
        assert len(await store.history(first.id)) == 2

    async def test_an_append_upon_a_task_that_is_not_there_writes_nothing(self, store: AnyStore):
        elsewhere = await submit(store)
        lost = msgspec.structs.replace(elsewhere, id=new_id())

        assert await append(store, lost.id, lost, CancelTask()) == Conflict(0)
        assert await store.load(lost.id) is None

    async def test_one_conflict_leaves_its_neighbours_alone(self, store: AnyStore):
        taken, *ids = (new_id() for _ in range(5))
        await submit(store, task_id=taken)

        outcomes = await asyncio.gather(
            *(
                append(store, task_id, None, SubmitTask(a_submission()))
                for task_id in (*ids[:2], taken, *ids[2:])
            )
        )

        assert outcomes[2] == Conflict(1)
        written = [o for o in outcomes if isinstance(o, Written)]
        assert len(written) == len(set(written)) == 4
        assert [r.version for i in ids for r in await store.history(i)] == [1, 1, 1, 1]

    async def test_steps_that_are_appended_together_each_have_their_outcome(
        self, open_store: OpenStore
    ):
        store = await open_store(3)
        tasks = [await submit(store) for _ in range(300)]
        moved_on = await send(store, tasks[7], CancelTask())
        steps = [
            Append(
                task, apply(task.id, task, (TaskCanceled("all"),), T0), (TaskCanceled("all"),), META
            )
            for task in tasks
        ]

        outcomes = await store.append_all(steps)

        assert outcomes[7] == Conflict(2)
        assert await store.load(moved_on.id) == moved_on
        for index in (0, 8, 299):
            [*_, last] = await store.history(tasks[index].id)
            assert (outcomes[index], last.data) == (Written(last.position), b'{"reason":"all"}')
        assert await store.append_all([]) == []

    async def test_of_many_appends_upon_one_version_one_is_written(self, store: AnyStore):
        task = await submit(store)

        outcomes = await asyncio.gather(
            *(append(store, task.id, task, CancelTask(str(i))) for i in range(20))
        )

        assert sorted(map(str, outcomes))[:19] == [str(Conflict(2))] * 19
        assert len(await store.history(task.id)) == 2

    async def test_many_writers_of_one_task_all_get_through(self, store: AnyStore):
        task = await start(store, await submit(store))

        await asyncio.gather(
            *(send(store, task, ReportProgress(i, f"step {i}")) for i in range(1, 9))
        )

        recorded = await store.history(task.id)
        assert [r.version for r in recorded] == list(range(1, 11))
        assert fold(task.id, [(r.event(), r.at) for r in recorded]) == await store.load(task.id)

    async def test_a_full_queue_refuses_and_others_do_not(self, store: AnyStore):
        for _ in range(2):
            await submit(store)
        refused, other = new_id(), new_id()

        outcomes = [
            await append(store, refused, None, SubmitTask(a_submission()), queue_max=2),
            await append(
                store, other, None, SubmitTask(a_submission(priority=Priority.LOW)), queue_max=2
            ),
        ]

        assert outcomes[0] == Full()
        assert isinstance(outcomes[1], Written)
        assert await store.load(refused) is None
        assert await store.history(refused) == []

    async def test_a_full_queue_has_room_when_one_was_started(self, store: AnyStore):
        first, _ = await submit(store), await submit(store)
        await start(store, first)

        outcome = await append(store, new_id(), None, SubmitTask(a_submission()), queue_max=2)

        assert isinstance(outcome, Written)

    # -- places -------------------------------------------------------------------------------

    async def test_after_every_step_a_task_is_in_its_place_and_in_no_other(self, store: AnyStore):
        task = await submit(store, max_retries=1, schedule_for=store.now_ms() - 1)
        life: list[Command] = [
            ReleaseTask(),
            StartTask(1, "w1", LONG_MS),
            ReportProgress(40, "parsing", 1),
            FailAttempt(1, "boom", ErrorKind.RETRYABLE, policy=AT_ONCE),
            ReleaseTask(),
            StartTask(2, "w1", LONG_MS),
            FailAttempt(2, "boom", ErrorKind.RETRYABLE),
            RetryTask(),
            CancelTask(),
            RetryTask(),
            StartTask(3, "w1", LONG_MS),
            CancelTask(),
            RetryTask(),
            StartTask(4, "w1", LONG_MS),
            CompleteTask(4, RESULT),
        ]
        for command in life:
            expected = place_of(task)
            assert await places_of(store) == ({task.id: expected} if expected else {})
            task = await send(store, task, command)
        await assert_quiescent(store)

    async def test_a_started_task_is_in_no_queue(self, store: AnyStore):
        await submit(store)
        [task] = await claim(store, 10)

        await start(store, task)

        assert await places_of(store) == {task.id: ["lease:1"]}
        assert await claim(store, 10) == []
        assert await store.claim_stale(0, QUEUES, 10, 1) == []

    async def test_a_canceled_task_is_not_handed_out(self, store: AnyStore):
        canceled, kept = await submit(store), await submit(store)

        await send(store, canceled, CancelTask())

        assert await claim(store, 10) == [kept]

    async def test_a_claim_that_is_canceled_before_its_start_is_forgotten(self, store: AnyStore):
        task = await submit(store)
        await claim(store, 1)

        await send(store, task, CancelTask())

        await assert_quiescent(store)
        assert await store.claim_stale(0, QUEUES, 10, 1) == []

    async def test_a_scheduled_task_is_handed_out_when_it_was_released(self, store: AnyStore):
        task = await submit(store, schedule_for=store.now_ms() - 1)

        assert await claim(store, 10) == []
        assert (await store.overdue(0, 10)).due == (task.id,)

        released = await send(store, task, ReleaseTask())

        assert (await store.overdue(0, 10)).due == ()
        assert await claim(store, 10) == [released]

    # -- claim --------------------------------------------------------------------------------

    async def test_the_most_urgent_come_first_and_in_each_queue_the_oldest(self, store: AnyStore):
        low = [await submit(store, priority=Priority.LOW) for _ in range(2)]
        critical = [await submit(store, priority=Priority.CRITICAL) for _ in range(2)]
        normal = [await submit(store) for _ in range(2)]

        assert await claim(store, 10) == [*critical, *normal, *low]

    async def test_no_more_are_claimed_than_asked_for(self, store: AnyStore):
        tasks = [await submit(store, priority=p) for p in Priority for _ in range(2)]

        assert [t.id for n in (3, 1, 9) for t in await claim(store, n)] == [t.id for t in tasks]

    async def test_only_the_queues_asked_for_are_served(self, store: AnyStore):
        await submit(store, task_type="health_check")
        high = await submit(store, priority=Priority.HIGH)

        assert await claim(store, 10, [Queue("document_processing", Priority.HIGH)]) == [high]

    async def test_nobody_gets_what_another_got(self, store: AnyStore):
        submitted = {(await submit(store)).id for _ in range(30)}

        rounds = await asyncio.gather(*(claim(store, 4) for _ in range(10)))

        got = [task.id for claimed in rounds for task in claimed]
        assert len(got) == 30
        assert set(got) == submitted

    async def test_delivered_entries_are_among_the_claimed(self, store: AnyStore):
        await store.claim(0, QUEUES, 1, [])
        tasks = [await submit(store) for _ in range(3)]

        delivered = await take_one(store, asyncio.Event())
        claimed = await store.claim(0, QUEUES, 2, delivered)

        assert [d.task_id for d in delivered] == [tasks[0].id]
        assert [c.task for c in claimed] == tasks[:2]
        assert [c.delivery.queue for c in claimed] == [NORMAL, NORMAL]

    async def test_what_was_delivered_and_then_taken_up_by_others_is_not_claimed(
        self, store: AnyStore
    ):
        await claim(store, 1)  # makes the groups
        task = await submit(store)
        delivered = await take_one(store, asyncio.Event())
        failed = await send(
            store, await start(store, task), FailAttempt(1, "", ErrorKind.RETRYABLE)
        )
        await transact(store, task.id, ReleaseTask(), now_ms=failed.state.waiting_until)

        held = await store.claim(0, QUEUES, 1, delivered)

        assert [d.task_id for d in delivered] == [task.id]
        assert [c.delivery.entry for c in held] != [d.entry for d in delivered]

    async def test_a_claim_that_nobody_starts_is_handed_out_again(self, store: AnyStore):
        tasks = [await submit(store) for _ in range(3)]
        claimed = await claim(store, 3)
        await start(store, claimed[1])

        again = await stale(store, 2)

        assert sorted(again) == sorted([tasks[0].id, tasks[2].id])

    async def test_a_fresh_claim_is_left_to_its_claimer(self, store: AnyStore):
        await submit(store)
        await claim(store, 1)

        assert await store.claim_stale(0, QUEUES, 10, LONG_MS) == []

    async def test_many_stale_claims_are_handed_out_by_and_by(self, store: AnyStore):
        submitted = {
            (await submit(store, priority=priority)).id
            for priority in (Priority.HIGH, Priority.NORMAL)
            for _ in range(5)
        }
        await claim(store, 10)

        found: set[str] = set()
        async with asyncio.timeout(SIGNAL_MS / 1000):
            while found != submitted:
                some = await store.claim_stale(0, QUEUES, 2, 1)
                assert len(some) <= 2
                found |= {c.delivery.task_id for c in some}
                await asyncio.sleep(0)

    async def test_a_claim_that_is_given_back_is_handed_out_at_once(self, store: AnyStore):
        first, second = await submit(store), await submit(store)
        [claimed] = await store.claim(0, QUEUES, 1, [])

        await store.release(0, [claimed.delivery])

        assert claimed.task == first
        assert await claim(store, 10) == [second, first]
        assert await stale(store, 2) == [second.id, first.id]

    async def test_a_claim_that_is_given_back_wakes_who_waits(self, store: AnyStore):
        task = await submit(store)
        [claimed] = await store.claim(0, QUEUES, 10, [])
        taking = asyncio.create_task(take_one(store, asyncio.Event()))
        await asyncio.sleep(0)

        await store.release(0, [claimed.delivery])

        [delivery] = await taking
        assert delivery.task_id == task.id
        assert delivery.entry != claimed.delivery.entry

    async def test_a_claim_that_is_given_back_waits_where_its_position_says(self, store: AnyStore):
        tasks = [await submit(store) for _ in range(3)]
        [claimed] = await store.claim(0, QUEUES, 1, [])

        await store.release(0, [claimed.delivery])

        assert [await store.queue_position(task) for task in tasks] == [3, 1, 2]

    async def test_a_claim_that_was_given_back_can_be_started_and_canceled(self, store: AnyStore):
        for command in (StartTask(1, "w", LONG_MS), CancelTask()):
            task = await submit(store)
            [claimed] = await store.claim(0, QUEUES, 1, [])
            await store.release(0, [claimed.delivery])
            await transact(store, task.id, command)

        assert await claim(store, 10) == []
        assert await stale(store, 0) == []

    async def test_a_claim_whose_task_moved_on_is_not_given_back(self, store: AnyStore):
        started, canceled = await submit(store), await submit(store)
        claims = await store.claim(0, QUEUES, 2, [])
        await start(store, started)
        await transact(store, canceled.id, CancelTask())

        await store.release(0, [claim.delivery for claim in claims])

        assert await claim(store, 10) == []

    async def test_a_claim_that_is_given_back_waits_behind_a_limit_that_came_meanwhile(
        self, store: AnyStore
    ):
        first, second = await submit(store), await submit(store)
        [given_back, _] = await store.claim(0, QUEUES, 2, [])
        limit = SetLimit(LimitScope.TYPE, NORMAL.task_type, 1)
        await store.spread_limits((await transact_system(store, limit, META)).system)

        await store.release(0, [given_back.delivery])

        assert await store.is_held(first)
        assert await claim(store, 10) == []
        await send(store, second, CancelTask())
        assert await claim(store, 10) == [first]

    async def test_a_claim_is_given_back_once(self, store: AnyStore):
        task = await submit(store)
        [claimed] = await store.claim(0, QUEUES, 1, [])

        for _ in range(2):
            await store.release(0, [claimed.delivery])

        assert await claim(store, 10) == [task]

    async def test_a_dropped_entry_is_not_handed_out_again(self, store: AnyStore):
        await submit(store)
        [claimed] = await store.claim(0, QUEUES, 1, [])

        await store.drop(claimed.delivery)

        await assert_quiescent(store)

    # -- what cannot be served ----------------------------------------------------------------

    async def test_an_entry_whose_task_is_gone_is_reported_beside_the_others(self, store: AnyStore):
        gone, kept = await submit(store), await submit(store)
        await self.lose(store, gone)

        claimed = await store.claim(0, QUEUES, 10, [])

        assert [c.task for c in claimed] == [None, kept]
        assert claimed[0].delivery.task_id == gone.id
        assert claimed[0].fault == "there is no such task"

    async def test_an_entry_whose_task_is_garbage_is_reported_beside_the_others(
        self, store: AnyStore
    ):
        broken, kept = await submit(store), await submit(store)
        await self.damage(store, broken)

        claimed = await store.claim(0, QUEUES, 10, [])

        assert [c.task for c in claimed] == [None, kept]
        assert broken.id in claimed[0].fault
        with pytest.raises(Undecodable, match=broken.id):
            await store.load(broken.id)

    async def test_an_entry_set_aside_is_handed_out_no_more(self, store: AnyStore):
        broken = await submit(store)
        await self.damage(store, broken)
        [claimed] = await store.claim(0, QUEUES, 10, [])

        await store.set_aside(claimed.delivery, claimed.fault)

        assert await store.claim(0, QUEUES, 10, []) == []
        assert await store.claim_stale(0, QUEUES, 10, 1) == []
        await assert_quiescent(store)

    # -- leases -------------------------------------------------------------------------------

    async def test_renewing_tells_which_leases_hold_no_longer(self, store: AnyStore):
        held = await start(store, await submit(store))
        canceled = await start(store, await submit(store))
        await send(store, canceled, CancelTask())
        unknown = new_id()

        gone = await store.renew(0, [(held.id, 1), (canceled.id, 1), (unknown, 7)], LONG_MS)

        assert gone == [(canceled.id, 1), (unknown, 7)]

    async def test_a_late_worker_cannot_renew_the_next_attempt(self, store: AnyStore):
        task = await start(store, await submit(store))
        failed = FailAttempt(1, "worker gone", ErrorKind.WORKER_LOST, policy=AT_ONCE)
        for command in (failed, ReleaseTask(), StartTask(2, "w2", LONG_MS)):
            task = await send(store, task, command)

        assert await store.renew(0, [(task.id, 1)], LONG_MS) == [(task.id, 1)]
        assert await store.renew(0, [(task.id, 2)], LONG_MS) == []

    async def test_nothing_to_renew_is_nothing_gone(self, store: AnyStore):
        assert await store.renew(0, [], LONG_MS) == []

    async def test_a_lease_that_ran_out_is_overdue_until_it_is_renewed(self, store: AnyStore):
        lost = await start(store, await submit(store), lease_ms=0)
        await start(store, await submit(store))

        assert (await store.overdue(0, 10)).expired == ((lost.id, 1),)
        await store.renew(0, [(lost.id, 1)], LONG_MS)
        assert (await store.overdue(0, 10)).expired == ()

    async def test_a_lease_can_be_looked_at_while_it_holds(self, store: AnyStore):
        before, waiting = store.now_ms(), await submit(store)
        running = await start(store, waiting, lease_ms=60_000)

        until = await store.lease_until(running)

        assert until is not None
        assert before + 60_000 - 10 <= until <= store.now_ms() + 60_000 + 10
        assert await store.lease_until(waiting) is None
        assert await store.lease_until(await send(store, running, CancelTask())) is None

    # -- workers ------------------------------------------------------------------------------

    async def test_a_worker_is_seen_as_it_last_announced_itself(self, store: AnyStore):
        before = store.now_ms()
        busy = a_report(state=WorkerState.BUSY, running=2, task_ids=("a", "b"), succeeded=3)
        await store.announce(a_report())
        await store.announce(busy)

        [worker] = await store.workers()

        assert (worker.report, worker.state) == (busy, WorkerState.BUSY)
        assert before - 10 <= worker.last_heartbeat <= store.now_ms() + 10

    async def test_a_worker_silent_for_longer_than_its_lease_is_lost(self, store: AnyStore):
        for report in (
            a_report("lost", lease_ms=0),
            a_report("second", started_at=5),
            a_report("first", started_at=4),
        ):
            await store.announce(report)

        workers = await store.workers()
        async with asyncio.timeout(SIGNAL_MS / 1000):
            while workers[-1].state is not WorkerState.LOST:
                await asyncio.sleep(0)
                workers = await store.workers()

        assert [w.report.id for w in workers] == ["first", "second", "lost"]
        assert [w.takes_tasks for w in workers] == [True, True, False]

    async def test_a_lost_worker_that_is_heard_again_is_there_again(self, store: AnyStore):
        await store.announce(a_report(lease_ms=0))
        await store.announce(a_report())

        assert [w.state for w in await store.workers()] == [WorkerState.IDLE]

    async def test_a_worker_that_retired_is_not_seen(self, store: AnyStore):
        await store.announce(a_report("stays"))
        await store.announce(a_report("goes"))

        await store.retire("goes")
        await store.retire("never was")

        assert [w.report.id for w in await store.workers()] == ["stays"]

    async def test_a_worker_is_forgotten_in_the_end(
        self, store: AnyStore, monkeypatch: pytest.MonkeyPatch
    ):
        await store.announce(a_report())

        for module in ("memory_store", "redis_store"):
            monkeypatch.setattr(f"ledger.{module}.LOST_KEPT_MS", 0)

        assert await store.workers() == []

    # -- time ---------------------------------------------------------------------------------

    async def test_nothing_waits_for_nothing(self, store: AnyStore):
        overdue = await store.overdue(0, 10)

        assert (overdue.due, overdue.expired, overdue.next_in_ms) == ((), (), None)

    async def test_overdue_tells_how_long_until_the_next(self, store: AnyStore):
        await submit(store, schedule_for=store.now_ms() + LONG_MS)
        await submit(store, schedule_for=store.now_ms() + 2 * LONG_MS)

        overdue = await store.overdue(0, 10)

        assert overdue.due == ()
        assert overdue.next_in_ms is not None
        assert 0 < overdue.next_in_ms <= LONG_MS + SIGNAL_MS

    async def test_a_lease_may_be_what_comes_next(self, store: AnyStore):
        await submit(store, schedule_for=store.now_ms() + 10 * LONG_MS)
        await start(store, await submit(store), lease_ms=LONG_MS)

        overdue = await store.overdue(0, 10)

        assert overdue.next_in_ms is not None
        assert 0 < overdue.next_in_ms <= LONG_MS

    async def test_overdue_tasks_come_by_and_by_the_longest_overdue_first(self, store: AnyStore):
        now = store.now_ms()
        later, sooner, soonest = [
            await submit(store, schedule_for=now - late_ms) for late_ms in (1, 5, 9)
        ]

        assert (await store.overdue(0, 2)).due == (soonest.id, sooner.id)
        await send(store, soonest, ReleaseTask())
        assert (await store.overdue(0, 2)).due == (sooner.id, later.id)

    # -- reads --------------------------------------------------------------------------------

    async def test_a_history_holds_the_tasks_own_events_oldest_first(self, store: AnyStore):
        task, other = await submit(store), await submit(store)
        await start(store, task)
        await send(store, other, CancelTask())
        meta = Meta(actor="worker", request="req-7", trace="00-ab-cd-01")
        done = await transact(store, task.id, CompleteTask(1, RESULT), meta=meta)

        recorded = await store.history(task.id)

        assert [r.type for r in recorded] == ["TaskSubmitted", "TaskStarted", "TaskCompleted"]
        assert {r.task_id for r in recorded} == {task.id}
        assert [r.prev for r in recorded] == ["", *(r.position.entry for r in recorded[:-1])]
        assert fold(task.id, [(r.event(), r.at) for r in recorded]) == done.task
        told = decode_meta(recorded[-1].meta)
        assert (told.actor, told.request, told.trace) == ("worker", "req-7", "00-ab-cd-01")

    async def test_a_task_keeps_its_trace_and_its_events_have_it(self, store: AnyStore):
        task = await submit(store, trace=TRACE)
        await start(store, task)
        await send(store, task, CancelTask())
        await send(store, task, RetryTask(OTHER_TRACE))

        loaded = await store.load(task.id)
        recorded = await store.history(task.id)

        assert loaded is not None
        assert (loaded.submission.trace, loaded.trace) == (TRACE, OTHER_TRACE)
        assert loaded == fold(task.id, [(r.event(), r.at) for r in recorded])
        traces = [decode_meta(r.meta).trace for r in recorded]
        assert traces == [TRACE, TRACE, TRACE, OTHER_TRACE]

    async def test_what_is_not_there_has_neither_snapshot_nor_history(self, store: AnyStore):
        assert await store.load(new_id()) is None
        assert await store.history(new_id()) == []

    async def test_many_loads_at_once_each_get_their_own(self, store: AnyStore):
        tasks = [await submit(store) for _ in range(5)]

        loaded = await asyncio.gather(*(store.load(t.id) for t in reversed(tasks)))

        assert loaded == tasks[::-1]

    async def test_positions_count_down_to_the_next_and_then_to_none(self, store: AnyStore):
        low = await submit(store, priority=Priority.LOW)
        normal = [await submit(store) for _ in range(2)]
        high = await submit(store, priority=Priority.HIGH)
        await submit(store, task_type="health_check", priority=Priority.CRITICAL)

        told: list[list[int]] = []
        for _ in range(5):
            asked = (store.queue_position(t) for t in (high, *normal, low))
            told.append(await asyncio.gather(*asked))
            for task in await claim(store, 1):
                await start(store, task)

        assert told == [[1, 2, 3, 4], [0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 0, 1], [0, 0, 0, 0]]

    async def test_a_write_tells_the_position_when_it_is_asked_to(self, store: AnyStore):
        await submit(store, priority=Priority.HIGH)
        await submit(store)
        later = store.now_ms() + LONG_MS
        told: list[int | None] = []
        for submission in (
            a_submission(),
            a_submission(priority=Priority.LOW),
            a_submission(schedule_for=later),
        ):
            command = SubmitTask(submission)
            written = await transact(store, new_id(), command, tell_queue_position=True)
            told.append(written.queue_position)

        unasked = await transact(store, new_id(), SubmitTask(a_submission()))
        canceled = await transact(store, unasked.task.id, CancelTask(), tell_queue_position=True)
        again = await transact(store, unasked.task.id, RetryTask(), tell_queue_position=True)

        assert told == [3, 4, None]
        assert (unasked.queue_position, canceled.queue_position) == (None, None)
        assert again.queue_position == await store.queue_position(again.task) >= 4

    async def test_a_task_that_waits_in_no_queue_has_no_position(self, store: AnyStore):
        scheduled = await submit(store, schedule_for=store.now_ms() + LONG_MS)
        running = await start(store, await submit(store))
        canceled = await send(store, await submit(store), CancelTask())
        unknown = msgspec.structs.replace(canceled, id=new_id())

        positions = [await store.queue_position(t) for t in (scheduled, running, canceled, unknown)]

        assert positions == [0, 0, 0, 0]

    async def test_canceled_tasks_ahead_never_make_a_position_too_low(self, store: AnyStore):
        ahead, _, task = [await submit(store) for _ in range(3)]

        await send(store, ahead, CancelTask())

        assert await store.queue_position(task) >= 2
        await claim(store, 1)
        assert await store.queue_position(task) == 1

    async def test_a_slow_waiter_does_not_turn_positions_back(self, store: AnyStore):
        await store.claim(0, QUEUES, 1, [])
        *_, last = [await submit(store) for _ in range(3)]
        delivered = await take_one(store, asyncio.Event())
        await claim(store, 1)

        await store.claim(0, QUEUES, 1, delivered)

        assert await store.queue_position(last) == 1

    async def test_an_empty_ledger_ends_at_nothing(self, store: AnyStore):
        assert await store.last_position(0) == Position(0, "0-0")
        assert await store.events_after(Position(0, "0-0"), 10, 1) == []

    async def test_events_are_read_on_from_any_position(self, store: AnyStore):
        for _ in range(3):
            await submit(store)

        everything = await store.events_after(Position(0, "0-0"), 10, 1)

        assert len(everything) == 3
        assert await store.events_after(Position(0, "0-0"), 2, 1) == everything[:2]
        assert await store.events_after(everything[0].position, 10, 1) == everything[1:]
        assert everything[-1].position == await store.last_position(0)

    async def test_the_extent_of_a_ledger_goes_from_the_beginning_to_the_end(self, store: AnyStore):
        nothing = Position(0, "0-0")
        empty = await store.extent(0)
        await submit(store)

        assert empty == Extent(nothing, nothing, 0)
        assert await store.extent(0) == Extent(nothing, await store.last_position(0), 1)

    async def test_what_stands_at_a_position_can_be_looked_at(self, store: AnyStore):
        task = await submit(store)
        [recorded] = await store.history(task.id)

        assert await store.event_at(recorded.position) == recorded
        assert await store.event_at(Position(0, "1-7")) is None

    async def test_a_ledger_keeps_the_epoch_that_it_was_made_with(self, store: AnyStore):
        epoch = await store.epoch()
        await submit(store)

        assert epoch != ""
        assert await store.epoch() == epoch

    async def test_a_reader_gets_the_next_event_when_it_happens(self, store: AnyStore):
        async def next_events() -> list[str]:
            while True:
                found = await store.events_after(Position(0, "0-0"), 10, 50)
                if found:
                    return [r.task_id for r in found]

        reader = asyncio.create_task(next_events())
        await asyncio.sleep(0)
        task = await submit(store)

        async with asyncio.timeout(SIGNAL_MS / 1000):
            assert await reader == [task.id]

    # -- waiting ------------------------------------------------------------------------------

    async def test_an_idle_waiter_is_woken_by_an_append(self, store: AnyStore):
        await store.claim(0, QUEUES, 1, [])
        waiter = asyncio.create_task(take_one(store, asyncio.Event()))
        await asyncio.sleep(0)

        task = await submit(store, priority=Priority.LOW)

        async with asyncio.timeout(SIGNAL_MS / 1000):
            [delivery] = await waiter
        assert (delivery.task_id, delivery.queue) == (task.id, queue_of(task))
        [claimed] = await store.claim(0, QUEUES, 1, [delivery])
        assert claimed.task == task

    async def test_one_append_wakes_one_waiter(self, store: AnyStore):
        await store.claim(0, QUEUES, 1, [])
        enough = asyncio.Event()
        waiters = [asyncio.create_task(take_one(store, enough)) for _ in range(4)]
        await asyncio.sleep(0)

        task = await submit(store)

        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        enough.set()
        found = [d.task_id for got in await asyncio.gather(*waiters) for d in got]
        assert found == [task.id]

    async def test_a_waiter_with_room_for_one_gets_one_and_nothing_is_lost(self, store: AnyStore):
        await store.claim(0, QUEUES, 1, [])
        tasks = [await submit(store, priority=priority) for priority in Priority]

        async with asyncio.timeout(SIGNAL_MS / 1000):
            delivered = await take_one(store, asyncio.Event())
        first = await store.claim(0, QUEUES, 1, delivered)
        then = await store.claim(0, QUEUES, 1, [])
        waited = await store.wait_ready(0, QUEUES, 1)
        others = await store.claim(0, QUEUES, 4, waited)

        assert (len(delivered), len(first), len(then)) == (1, 1, 1)
        assert [c.task for c in (*first, *then, *others)] == tasks

    # -- partitions ---------------------------------------------------------------------------

    async def test_each_partition_serves_its_own_tasks(self, open_store: OpenStore):
        store = await open_store(2)
        tasks = [await submit(store) for _ in range(20)]
        by_partition = [[t for t in tasks if store.partition_of(t.id) == p] for p in (0, 1)]

        for partition, own in enumerate(by_partition):
            assert own, "the ids fall into both partitions"
            claimed = await store.claim(partition, QUEUES, 20, [])
            assert [c.task for c in claimed] == own
            recorded = await store.events_after(Position(partition, "0-0"), 100, 1)
            assert [r.task_id for r in recorded] == [t.id for t in own]
            assert await store.last_position(partition) == recorded[-1].position

    async def test_a_position_is_never_lower_than_the_truth(self, open_store: OpenStore):
        """Partitions are served side by side: what waits in the others may be taken first."""
        store = await open_store(3)
        tasks = {p: [await submit(store, priority=p) for _ in range(9)] for p in Priority}
        await submit(store, task_type="health_check", priority=Priority.CRITICAL)

        told = {p: [await store.queue_position(t) for t in tasks[p]] for p in Priority}

        for number, priority in enumerate(Priority):
            more_urgent = 9 * number
            # Of a partition's own, only those ahead count; of the others, all.
            assert max(told[priority]) == more_urgent + 9
            assert all(p >= more_urgent + i + 1 for i, p in enumerate(told[priority]))

    async def test_a_write_tells_the_position_among_all_partitions(self, open_store: OpenStore):
        store = await open_store(2)
        for _ in range(5):
            await submit(store)

        command = SubmitTask(a_submission())
        written = await transact(store, new_id(), command, tell_queue_position=True)
        canceled = await transact(store, written.task.id, CancelTask(), tell_queue_position=True)

        assert (written.queue_position, canceled.queue_position) == (6, None)

    async def test_what_is_ready_is_counted_by_priority_and_partition(self, open_store: OpenStore):
        store = await open_store(2)
        normal = [await submit(store) for _ in range(4)]
        high = await submit(store, priority=Priority.HIGH)
        await submit(store, schedule_for=store.now_ms() + LONG_MS)
        await start(store, normal[0])

        waiting, none = await asyncio.gather(
            store.waiting("document_processing"), store.waiting("health_check")
        )

        ready = [store.partition_of(t.id) for t in normal[1:]]
        assert waiting[Priority.NORMAL] == (ready.count(0), ready.count(1))
        assert waiting[Priority.HIGH][store.partition_of(high.id)] == 1
        assert sum(map(sum, waiting.values())) == 4
        assert none == dict.fromkeys(Priority, (0, 0))

    async def test_tasks_of_all_partitions_are_found_by_id(self, open_store: OpenStore):
        store = await open_store(2)
        tasks = [await submit(store) for _ in range(8)]

        assert await asyncio.gather(*(store.load(t.id) for t in tasks)) == tasks
        assert [len(await store.history(t.id)) for t in tasks] == [1] * 8
