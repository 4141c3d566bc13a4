"""The Redis store on a real server and the memory store as its model, driven side by side.

Commands of several workers, out-of-date appends, claims, claims that get lost, lease renewals and
cancels happen to both in random order; both must answer alike, and at every step each task must be
the fold of its history and stand in exactly the place that its state calls for.
"""

import asyncio
import copy
import itertools
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from ledger.codec import Meta
from ledger.commands import CancelTask, Command, CompleteTask, ReleaseTask, StartTask, SubmitTask
from ledger.decide import decide
from ledger.events import Event, Priority, TaskSubmitted
from ledger.evolve import fold
from ledger.identity import derived_id
from ledger.memory_store import MemoryStore
from ledger.placement import Queue, queue_of
from ledger.redis_store import RedisStore, StoreOptions
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Append, Conflict, Full, Limited, Store, Written
from ledger.task import Task
from ledger.transact import apply, transact
from tests.contracts.store import RESULT
from tests.given import T0
from tests.places import place_of, places_of
from tests.servers import empty
from tests.strategies import TASK_TYPES, WORKERS, commands, submissions

Result = TypeVar("Result")
NONE: Any = multiple()  # pyright: ignore[reportUnknownVariableType] # Hypothesis does not say
PARTITIONS = 2
STAGED_MAX = 1
"""Small, so that much waits behind it."""
TASK_IDS = [derived_id("side by side", str(n)) for n in range(6)]
QUEUES = [Queue(task_type, priority) for priority in Priority for task_type in TASK_TYPES]


class Clock:
    """Commands happen at its time, on both sides."""

    def __init__(self) -> None:
        self.now_ms = T0

    def __call__(self) -> int:
        return self.now_ms


class SideBySide(RuleBasedStateMachine):
    """What happens to both stores. `tasks` are ids in use, `snapshots` tasks as they once were."""

    url: str
    snapshots = Bundle[Task]("snapshots")
    claims = Bundle[str]("claims")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.model = MemoryStore(self.clock, self._no_wait, PARTITIONS, staged_max=STAGED_MAX)
        self.store = self.run(self._open())

    async def _open(self) -> RedisStore:
        await empty(self.url)
        options = StoreOptions(partitions=PARTITIONS, staged_max=STAGED_MAX)
        return await RedisStore.open(self.url, options)

    async def _no_wait(self, _timeout_ms: int) -> None:
        return

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()

    async def _both(self, task_id: str, command: Command, queue_max: int = 0) -> Task | None:
        """Carry a command out on both sides; its outcome must be the same."""
        outcomes: list[tuple[Task, tuple[Event, ...]] | RejectionCode] = []
        for store in (self.model, self.store):
            try:
                done = await transact(
                    store, task_id, command, now_ms=self.clock.now_ms, queue_max=queue_max
                )
                outcomes.append((done.task, done.events))
            except Rejection as rejection:
                outcomes.append(rejection.code)
        model, store = outcomes
        assert store == model
        return None if isinstance(model, RejectionCode) else model[0]

    # -- what happens -------------------------------------------------------------------------

    @rule(elapsed_ms=st.sampled_from([1, 1_000, 60_000]))
    def time_passes(self, elapsed_ms: int) -> None:
        self.clock.now_ms += elapsed_ms

    @initialize(target=snapshots, submission=submissions)
    def begin(self, submission: TaskSubmitted) -> Any:
        return self.submit(TASK_IDS[0], submission, 0)

    @rule(
        target=snapshots,
        task_id=st.sampled_from(TASK_IDS),
        submission=submissions,
        queue_max=st.sampled_from([0, 0, 1, 2]),
    )
    def submit(self, task_id: str, submission: TaskSubmitted, queue_max: int) -> Any:
        task = self.run(self._both(task_id, SubmitTask(submission), queue_max))
        return task or NONE

    @rule(target=snapshots, known=snapshots, data=st.data())
    def anything(self, known: Task, data: st.DataObject) -> Any:
        now = self.run(self.model.load(known.id))
        assert now is not None
        command = data.draw(commands(now.state.attempt))
        task = self.run(self._both(known.id, command))
        return task or NONE

    @rule(target=snapshots, known=snapshots, worker=st.sampled_from(WORKERS))
    def work_goes_on(self, known: Task, worker: str) -> Any:
        """What mostly happens to a task in real life, so that random ones get somewhere."""
        self.clock.now_ms += 60_000
        task = self.run(self.model.load(known.id))
        assert task is not None
        attempt = task.state.attempt
        for command in (
            ReleaseTask(),
            StartTask(attempt + 1, worker, 60_000),
            CompleteTask(attempt, RESULT),
        ):
            task = self.run(self._both(known.id, command)) or task
        return task

    @rule(known=snapshots, queue_max=st.sampled_from([0, 1]), data=st.data())
    def append_on_what_it_once_was(self, known: Task, queue_max: int, data: st.DataObject) -> None:
        """Each side must refuse an append that is out of date, and say by how much."""
        command = data.draw(commands(known.state.attempt))
        at = max(self.clock.now_ms, known.state.updated_at)
        try:
            events = decide(command, known, at)
        except Rejection:
            return
        if not events:
            return
        step = Append(known, apply(known.id, known, events, at), events, Meta(), queue_max)
        model, store = self.run(self.model.append(step)), self.run(self.store.append(step))
        match model:
            case Written():
                assert isinstance(store, Written)
            case Conflict() | Full() | Limited():
                assert store == model

    @rule(
        target=claims,
        partition=st.sampled_from(range(PARTITIONS)),
        queues=st.just(QUEUES) | st.lists(st.sampled_from(QUEUES), unique=True, min_size=1),
        count=st.integers(1, 4),
    )
    def claim(self, partition: int, queues: list[Queue], count: int) -> Any:
        """Some of what is claimed is started later, some never."""
        model = self.run(self.model.claim(partition, queues, count, []))
        store = self.run(self.store.claim(partition, queues, count, []))
        assert [c.task for c in store] == [c.task for c in model]
        assert [c.delivery.queue for c in store] == [c.delivery.queue for c in model]
        assert all(c.task is not None and c.fault == "" for c in store)
        return multiple(*(c.delivery.task_id for c in model))

    @rule(target=claims, partition=st.sampled_from(range(PARTITIONS)))
    def sweep_lost_claims(self, partition: int) -> Any:
        """Both sides hand out the same claims again; the server may take a while to."""
        model = self.run(self.model.claim_stale(partition, QUEUES, 100, 0))
        wanted = {c.delivery.task_id for c in model}
        found: set[str] = set()
        deadline = time.monotonic() + 10
        while found != wanted and time.monotonic() < deadline:
            stale = self.run(self.store.claim_stale(partition, QUEUES, 100, 1))
            found |= {c.delivery.task_id for c in stale}
        assert found == wanted
        return multiple(*wanted)

    @rule(target=snapshots, task_id=consumes(claims), worker=st.sampled_from(WORKERS))
    def start_a_claim(self, task_id: str, worker: str) -> Any:
        task = self.run(self.model.load(task_id))
        assert task is not None
        command = StartTask(task.state.attempt + 1, worker, 60_000)
        return self.run(self._both(task_id, command)) or task

    @rule(known=snapshots)
    def cancel(self, known: Task) -> None:
        self.run(self._both(known.id, CancelTask("no longer needed")))

    @rule(partition=st.sampled_from(range(PARTITIONS)), attempt=st.integers(1, 3))
    def renew(self, partition: int, attempt: int) -> None:
        leases = [(task_id, attempt) for task_id in TASK_IDS]
        model = self.run(self.model.renew(partition, leases, 60_000))
        assert self.run(self.store.renew(partition, leases, 60_000)) == model

    # -- what always holds --------------------------------------------------------------------

    @invariant()
    def both_sides_are_alike(self) -> None:
        self.run(self._compare())

    async def _compare(self) -> None:
        expected: dict[str, list[str]] = {}
        for task_id in TASK_IDS:
            task = await self.model.load(task_id)
            assert await self.store.load(task_id) == task
            histories = [await self._history(store, task_id) for store in (self.model, self.store)]
            assert histories[0] == histories[1]
            assert [version for version, *_ in histories[1]] == list(
                range(1, len(histories[1]) + 1)
            )
            # fold raises IllegalTransition on a step that the table does not have.
            assert fold(task_id, [(event, at) for _, event, at, _ in histories[1]]) == task
            if task is None:
                continue
            if place := place_of(task):
                expected[task_id] = place
            position = await self.model.queue_position(task)
            assert await self.store.queue_position(task) == position
            assert position >= await self._rank(task_id)
        model, store = await places_of(self.model), await places_of(self.store)
        assert store == model
        assert {task: _settled(places) for task, places in store.items()} == expected

    async def _history(self, store: Store, task_id: str) -> list[tuple[int, Event, int, bool]]:
        """What must be the same on both sides: not positions, which are each store's own."""
        recorded = await store.history(task_id)
        before = ["", *(r.position.entry for r in recorded)]
        return [
            (r.version, r.event(), r.at, r.prev == prev)
            for r, prev in zip(recorded, before, strict=False)
        ]

    async def _rank(self, task_id: str) -> int:
        """The true position, by taking one after the other; 0 when the task is not waiting."""
        contents = self.model.contents[self.model.partition_of(task_id)]
        queues = copy.deepcopy(contents.queues)
        task_type = queue_of(await self._task(task_id)).task_type
        own = [Queue(task_type, priority) for priority in Priority]
        for rank in itertools.count(1):
            taken = queues.take(own, 1, 0)
            if not taken:
                return 0
            [(queue, entry)] = taken
            if queues.line(queue).ready[entry].task_id == task_id:
                return rank
        raise AssertionError

    async def _task(self, task_id: str) -> Task:
        task = await self.model.load(task_id)
        assert task is not None
        return task


def _settled(places: list[str]) -> list[str]:
    """Without the mark that somebody has claimed, but not started, what is ready."""
    return [place for place in places if not place.startswith("pending:")]


def test_redis_store_and_model_answer_alike(valkey_url: str):
    class OnValkey(SideBySide):
        url = valkey_url

    run_state_machine_as_test(OnValkey)
