"""Who is next: the scripts on a real server and the memory store's queues, driven side by side.

Several kb_ids submit into few queues, whose ready streams are short, so that most tasks wait in
backlogs; limits come and go. Both sides must hand out the same tasks in the same order, tell the
same positions, and admit no more than the limits let them.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from ledger.codec import Meta
from ledger.commands import CancelTask, Command, CompleteTask, FailAttempt, StartTask, SubmitTask
from ledger.events import ErrorKind, Priority
from ledger.identity import derived_id
from ledger.keys import PartitionKeys
from ledger.memory_store import MemoryStore
from ledger.placement import Queue, Ready, placement, queue_of
from ledger.redis_store import RedisStore, StoreOptions
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Delivery
from ledger.system.commands import RemoveLimit, SetLimit
from ledger.system.events import LimitScope
from ledger.system.transact import transact_system
from ledger.task import Status, Task
from ledger.transact import Committed, transact
from tests.contracts.store import RESULT
from tests.given import T0, a_submission
from tests.places import places_of
from tests.servers import empty

Result = TypeVar("Result")
KB_IDS = ("a", "b", "ba", "é\0", "b\xff")
TYPES = ("document_processing", "health_check")
QUEUES = [Queue(kind, p) for p in (Priority.HIGH, Priority.NORMAL) for kind in TYPES]
STAGED_MAX = 2
KEYS = PartitionKeys(0)
EXAMPLES = 60
"""Fifty steps each: some twenty seconds."""

queue_lists = st.just(QUEUES) | st.lists(st.sampled_from(QUEUES), unique=True, min_size=1)


class QueuesSideBySide(RuleBasedStateMachine):
    """`tasks` are those that are not finished; `claimed` what was handed out and not started."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = MemoryStore(lambda: T0, self._no_wait, staged_max=STAGED_MAX)
        self.store = self.run(self._open())
        self.lines = self.model.contents[0].queues
        self.tasks: dict[str, Task] = {}
        self.claimed: dict[str, tuple[Delivery, Delivery]] = {}
        self.out_of_order: set[str] = set()
        """Handed back, or taken out of its queue for good."""
        self.set_aside: set[str] = set()
        """The latter: nobody can start them."""
        self.submitted = 0

    async def _open(self) -> RedisStore:
        await empty(self.url)
        store = await RedisStore.open(self.url, StoreOptions(staged_max=STAGED_MAX))
        await store.claim(0, QUEUES, 1)  # the first look at a queue makes its consumer group
        return store

    async def _no_wait(self, _timeout_ms: int) -> None:
        return

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()

    def both(self, task_id: str, command: Command) -> Task | RejectionCode:
        told: list[tuple[Committed, int | None] | RejectionCode] = []
        for store in (self.model, self.store):
            sent = transact(store, task_id, command, now_ms=T0, tell_queue_position=True)
            try:
                done = self.run(sent)
                told.append((replace(done, position=None), done.queue_position))
            except Rejection as rejection:
                told.append(rejection.code)
        model, store = told
        assert store == model
        return model if isinstance(model, RejectionCode) else model[0].task

    # -- what happens -------------------------------------------------------------------------

    @rule(
        kb_id=st.sampled_from(KB_IDS),
        queue=st.sampled_from(QUEUES),
        count=st.sampled_from([1, 1, 2, 5]),
    )
    def submit(self, kb_id: str, queue: Queue, count: int) -> None:
        for _ in range(count):
            self.submitted += 1
            task_id = derived_id("queues", str(self.submitted))
            submission = a_submission(
                kb_id=kb_id, task_type=queue.task_type, priority=queue.priority, max_retries=0
            )
            task = self.both(task_id, SubmitTask(submission))
            assert isinstance(task, Task)
            self.tasks[task_id] = task

    @rule(queues=queue_lists, count=st.integers(1, 6))
    def claim(self, queues: list[Queue], count: int) -> None:
        model = self.run(self.model.claim(0, queues, count, []))
        store = self.run(self.store.claim(0, queues, count, []))
        self._handed_out([c.delivery for c in model], [c.delivery for c in store])
        for queue in queues:
            if len(model) < count:
                assert not self._next_up(queue), "a worker with free slots was given too little"

    @rule(queue=st.sampled_from(QUEUES), count=st.integers(1, 3))
    def wake_and_claim(self, queue: Queue, count: int) -> None:
        """As an idle worker does: one entry comes by itself, and then it looks for more."""
        deliveries = [self.run(s.wait_ready(0, [queue], 1)) for s in (self.model, self.store)]
        self._handed_out(*deliveries)
        model, store = deliveries
        told = self.run(self.model.claim(0, QUEUES, count, model))
        told_by_store = self.run(self.store.claim(0, QUEUES, count, store))
        fresh, fresh_of_store = told[len(model) :], told_by_store[len(store) :]
        self._handed_out([c.delivery for c in fresh], [c.delivery for c in fresh_of_store])
        for sibling in {d.queue for d in (*model, *(c.delivery for c in fresh))}:
            assert self.lines.line(sibling).untaken or not self._next_up(sibling)

    def _handed_out(self, model: list[Delivery], store: list[Delivery]) -> None:
        assert [(d.queue, d.task_id) for d in store] == [(d.queue, d.task_id) for d in model]
        self.claimed.update((m.task_id, (m, s)) for m, s in zip(model, store, strict=True))

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        if self.claimed:
            task_id = data.draw(st.sampled_from(list(self.claimed)))
            del self.claimed[task_id]
            if task_id in self.tasks:
                task = self.both(task_id, StartTask(1, "w1", 60_000))
                assert isinstance(task, Task)
                self.tasks[task_id] = task

    @rule(data=st.data())
    def start_by_an_old_claim(self, data: st.DataObject) -> None:
        """The task has gone back into its queue since; limits hold all the same."""
        queued = [t.id for t in self.tasks.values() if t.status is Status.QUEUED]
        waiting = [task_id for task_id in queued if task_id not in self.set_aside]
        if waiting:
            task_id = data.draw(st.sampled_from(waiting))
            task = self.both(task_id, StartTask(1, "w1", 60_000))
            if isinstance(task, Task):
                self.tasks[task_id] = task
            else:
                assert self.lines.limits

    @rule(data=st.data(), is_kept=st.booleans())
    def hand_back_or_set_aside(self, data: st.DataObject, is_kept: bool) -> None:
        if not self.claimed:
            return
        model, store = self.claimed[data.draw(st.sampled_from(list(self.claimed)))]
        if is_kept:
            self.run(self.model.release(0, [model]))
            self.run(self.store.release(0, [store]))
        else:
            self.run(self.model.set_aside(model, "garbage"))
            self.run(self.store.set_aside(store, "garbage"))
            self.set_aside.add(model.task_id)
        del self.claimed[model.task_id]
        self.out_of_order.add(model.task_id)

    @rule(data=st.data(), succeeds=st.booleans())
    def end(self, data: st.DataObject, succeeds: bool) -> None:
        running = [t.id for t in self.tasks.values() if t.status is Status.PROCESSING]
        if running:
            task_id = data.draw(st.sampled_from(running))
            failed = FailAttempt(1, "boom", ErrorKind.RETRYABLE)
            self.both(task_id, CompleteTask(1, RESULT) if succeeds else failed)
            del self.tasks[task_id]

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.tasks:
            task_id = data.draw(st.sampled_from(list(self.tasks)))
            self.both(task_id, CancelTask())
            del self.tasks[task_id]

    @rule(
        scope=st.sampled_from(LimitScope),
        data=st.data(),
        most=st.none() | st.integers(1, 3),
    )
    def limit(self, scope: LimitScope, data: st.DataObject, most: int | None) -> None:
        name = data.draw(st.sampled_from(TYPES if scope is LimitScope.TYPE else KB_IDS))
        command = RemoveLimit(scope, name) if most is None else SetLimit(scope, name, most)
        for store in (self.model, self.store):
            done = self.run(transact_system(store, command, Meta()))
            self.run(store.spread_limits(done.system, done.before))

    @rule(data=st.data(), stored=st.sampled_from(["", "1", "7", "-2", "garbage"]))
    def damage_a_count(self, data: st.DataObject, stored: str) -> None:
        """Put right, it is as if nothing had happened; but for what moved up or back meanwhile."""
        names = [f"type:{t}" for t in TYPES] + [f"kb:{kb_id}" for kb_id in KB_IDS]
        name = data.draw(st.sampled_from(names))
        self.lines.admitted.pop(name, None)
        if stored:
            self.lines.admitted[name] = -1 if stored == "garbage" else int(stored)
        client: Any = self.store.client
        damage = (
            client.hset(KEYS.admitted, name, stored) if stored else client.hdel(KEYS.admitted, name)
        )
        self.run(damage)
        for store in (self.model, self.store):
            self.run(store.recount(0))

    # -- what always holds --------------------------------------------------------------------

    @invariant()
    def both_sides_are_alike(self) -> None:
        self.run(self._compare())

    async def _compare(self) -> None:
        waiting = [t for t in self.tasks.values() if isinstance(placement(t), Ready)]
        positions = await asyncio.gather(*map(self.model.queue_position, waiting))
        assert await asyncio.gather(*map(self.store.queue_position, waiting)) == positions
        if not self.lines.limits:
            self._each_kb_id_in_order(waiting, positions)
        assert await places_of(self.store) == await places_of(self.model)
        for kind in TYPES:
            assert await self.store.waiting(kind) == await self.model.waiting(kind)
        client: Any = self.store.client
        admitted = {k.decode(): int(n) for k, n in (await client.hgetall(KEYS.admitted)).items()}
        assert admitted == self.lines.admitted

    def _each_kb_id_in_order(self, waiting: list[Task], positions: list[int]) -> None:
        last: dict[tuple[Queue, str], int] = {}
        for task, position in zip(waiting, positions, strict=True):
            if task.id not in self.claimed and task.id not in self.out_of_order:
                key = (queue_of(task), task.submission.kb_id)
                assert position >= last.get(key, 1)
                last[key] = position

    @invariant()
    def what_is_admitted_is_what_is_in_line_or_runs(self) -> None:
        found: Counter[str] = Counter()
        in_line = {e.task_id for line in self.lines.lines.values() for e in line.ready.values()}
        for task in self.tasks.values():
            if task.status is Status.PROCESSING or task.id in in_line:
                found[f"type:{task.submission.task_type}"] += 1
                found[f"kb:{task.submission.kb_id}"] += 1
        assert found == self.lines.admitted

    @invariant()
    def nothing_stands_in_line_beyond_a_limit(self) -> None:
        """But for what was taken before the limit came."""
        for queue, line in self.lines.lines.items():
            for entry in line.ready.values():
                for name in (f"type:{queue.task_type}", f"kb:{entry.kb_id}"):
                    if entry.delivered_at is None and name in self.lines.limits:
                        assert self.lines.admitted[name] <= self.lines.limits[name]

    def _next_up(self, queue: Queue) -> bool:
        """Whether a task of the backlog could be in line."""
        return self.lines.could_move_up(queue)


def test_the_scripts_and_the_model_choose_alike(valkey_url: str):
    class OnValkey(QueuesSideBySide):
        url = valkey_url

    run_state_machine_as_test(OnValkey, settings=settings(max_examples=EXAMPLES))
