"""The words of the worker tests: submit a task, let a worker run, wait for what becomes of it.

    async with working(store, handles("greet", greet)):
        task = await until(store, await submit(store, "greet"), Status.COMPLETED)

Nothing here sleeps: `until` waits for the ledger's next event, and looks again.
"""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
import structlog
from uuid_utils import uuid7

from consumers.classification import Classification
from consumers.handlers import ExecutorKind, Handler
from consumers.meters import Meter
from consumers.scheduler import Scheduler
from consumers.service import Service
from consumers.worker import Worker, WorkerOptions
from ledger.commands import CancelTask, SubmitTask
from ledger.retry_policy import RetryPolicy
from ledger.store import Store
from ledger.task import Status, Task
from ledger.transact import transact
from tests.given import a_submission

PATIENCE_S = 30
"""How long a test waits for a signal before it fails; no test passes by waiting so long."""

AT_ONCE = RetryPolicy(base_ms=0, cap_ms=0)
"""Retries without a pause, so that tests need none."""

QUICK = WorkerOptions(heartbeat_ms=20, drain_timeout_ms=5_000)


class Logged:
    """A structlog processor that keeps every record, and tells when one comes."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    def __call__(self, logger: Any, level: str, record: MutableMapping[str, Any]) -> Any:
        self.records.append({**record, "level": level})
        self._news.set()
        raise structlog.DropEvent

    def of(self, name: str) -> list[dict[str, Any]]:
        """The records of one event, oldest first."""
        return [record for record in self.records if record["event"] == name]

    async def comes(self, name: str, count: int = 1) -> dict[str, Any]:
        """The first record of an event, as soon as there are so many. Only for what the loop
        logs."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.of(name)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(name)[0]


class Counted:
    """Calls of a coroutine function, to be waited for: `store.renew = beats = Counted(store.renew)`
    by way of monkeypatch."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        self._function = function
        self._calls = asyncio.Condition()
        self.count = 0

    async def __call__(self, *arguments: Any) -> Any:
        reply = await self._function(*arguments)
        async with self._calls:
            self.count += 1
            self._calls.notify_all()
        return reply

    async def more(self, calls: int) -> None:
        """Return after so many further calls."""
        target = self.count + calls
        async with asyncio.timeout(PATIENCE_S), self._calls:
            await self._calls.wait_for(lambda: self.count >= target)


def handles(
    task_type: str,
    function: Callable[..., Any],
    *,
    retry: RetryPolicy = AT_ONCE,
    permanent: tuple[type[BaseException], ...] = (),
    retryable: tuple[type[BaseException], ...] = (),
) -> Handler:
    """A handler that needs no registration; coroutines run on the loop, functions in a thread."""
    is_async = inspect.iscoroutinefunction(function)
    executor = ExecutorKind.ASYNC if is_async else ExecutorKind.THREAD
    return Handler(task_type, function, executor, retry, Classification(permanent, retryable))


async def submit(
    store: Store, task_type: str = "work", payload: object = None, **submission: Any
) -> str:
    """A new task's id. `payload` is a JSON object, or its bytes."""
    task_id = str(uuid7())
    body = payload if isinstance(payload, bytes) else msgspec.json.encode(payload or {})
    wanted = a_submission(task_type=task_type, payload=body, **submission)
    await transact(store, task_id, SubmitTask(wanted))
    return task_id


async def cancel(store: Store, task_id: str) -> None:
    await transact(store, task_id, CancelTask())


@contextlib.asynccontextmanager
async def working(
    store: Store,
    *handlers: Handler,
    module: str | None = None,
    worker_id: str = "w1",
    meter: Meter | None = None,
    **options: Any,
) -> AsyncGenerator[Worker]:
    """A worker that runs meanwhile, and has drained in the end."""
    worker = Worker(
        store,
        {handler.task_type: handler for handler in handlers},
        msgspec.structs.replace(QUICK, **options),
        module=module,
        worker_id=worker_id,
        meter=meter,
    )
    async with running(worker):
        yield worker


@contextlib.asynccontextmanager
async def scheduling(store: Store) -> AsyncGenerator[Scheduler]:
    """A scheduler that runs meanwhile."""
    scheduler = Scheduler(store, sweep_interval_ms=20, outage_grace_s=0)
    async with running(scheduler.service):
        yield scheduler


@contextlib.asynccontextmanager
async def running(role: Worker | Service) -> AsyncGenerator[None]:
    """Run the role meanwhile; stop it in the end. What it raises fails the test."""
    task = asyncio.create_task(role.run())
    try:
        yield
    finally:
        role.stop()
        async with asyncio.timeout(PATIENCE_S):
            await task


async def until(
    store: Store,
    task_id: str,
    wanted: Status | Callable[[Task], bool],
    patience_s: float = PATIENCE_S,
) -> Task:
    """The task, as soon as it is in a status, or as it is wanted."""
    partition = store.partition_of(task_id)
    task: Task | None = None
    try:
        async with asyncio.timeout(patience_s):
            while True:
                position = await store.last_position(partition)
                task = await store.load(task_id)
                if task is not None and _is(task, wanted):
                    return task
                if task is not None and task.finished:
                    raise TimeoutError
                await store.events_after(position, 1, wait_ms=1_000)
    except TimeoutError:
        happened = await kinds(store, task_id)
        raise AssertionError(f"waited in vain; it came to {task}, by {happened}") from None


def _is(task: Task, wanted: Status | Callable[[Task], bool]) -> bool:
    return task.status is wanted if isinstance(wanted, Status) else wanted(task)


async def kinds(store: Store, task_id: str) -> list[str]:
    """The names of the task's events, oldest first."""
    return [recorded.type for recorded in await store.history(task_id)]


async def events_of(store: Store, task_id: str, kind: type[Any]) -> list[Any]:
    """The task's events of one kind, oldest first."""
    events = [recorded.event() for recorded in await store.history(task_id)]
    return [event for event in events if isinstance(event, kind)]


async def signal(event: asyncio.Event) -> None:
    """Wait for what a handler says, or fail."""
    async with asyncio.timeout(PATIENCE_S):
        await event.wait()
