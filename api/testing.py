"""A whole service within a test: the API on a free port of this machine, a read model, and a worker
that runs when it is told to. What the pytest fixture `ledgerq` gives; docs/client.md tells of it.

Everything is the real thing, on a Valkey in memory. Only waiting is cut short: when nothing else is
left to do, the task whose time comes next is released at once, as if that time had come.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal

from api.app import App, create_app
from api.bind import bind
from api.client import AsyncClient, Client, Task
from api.entrance import Entrance
from api.server import Server, uvicorn_config
from consumers.handlers import ExecutorKind, Handler, handler_maker, load_handlers
from consumers.roles import store_options
from consumers.service import Service
from consumers.worker import Worker, WorkerOptions
from ledger.commands import ReleaseTask
from ledger.keys import PartitionKeys
from ledger.placement import Queue
from ledger.redis_connection import connect, send
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection
from ledger.settings import Settings
from ledger.store import Delivery
from ledger.system.events import LimitScope
from ledger.transact import transact
from projections.projector import Projector, ProjectorOptions

HOST: Final = "127.0.0.1"
RUN_TIMEOUT_S: Final = 30.0
LOOK_AGAIN_MS: Final = 1_000
"""For what is no event, such as a resumed queue."""

STOP_SEEN_MS: Final = 20
"""How soon an idle worker sees that it is to stop."""

CLOSE_TIMEOUT_S: Final = 5.0
WAITING_MAX: Final = 1_000
"""So many of those that wait for their time are looked at."""

WORKER: Final = WorkerOptions(concurrency=10, heartbeat_ms=200, drain_timeout_ms=5_000)

Function = TypeVar("Function", bound=Callable[..., Any])


class InlineService:
    """A running service, and how a test deals with it."""

    def __init__(
        self, store: "InlineStore", settings: Settings, handlers: Mapping[str, Handler]
    ) -> None:
        self._store = store
        self._settings = settings
        self._handlers = dict(handlers)
        self._known_types = set(settings.known_task_types)
        self._apps: list[App] = []
        self._working = 0
        self.entrance = Entrance()
        self.url = ""
        """Where the API answers, for clients of the test's own."""
        self._loop = asyncio.get_running_loop()
        self._client: AsyncClient
        self._serve_types(self._handlers)

    @property
    def client(self) -> AsyncClient:
        """A client of the service. Raises RuntimeError where it would wait for ever."""
        self._check_loop()
        return self._client

    def connect(self, url: str) -> AsyncClient:
        """Say where the service is; its client, to be closed."""
        self.url, self._client = url, AsyncClient(url)
        return self._client

    def handler(self, task_type: str, **options: Any) -> Callable[[Function], Function]:
        """`consumers.handler`, for this test alone; it may stand in for a registered one."""
        make = handler_maker(task_type, **options)

        def use(function: Function) -> Function:
            self._handlers[task_type] = make(function)
            self._serve_types([task_type])
            return function

        return use

    async def run_until_finished(self, timeout_s: float = RUN_TIMEOUT_S) -> list[Task]:
        """Work until every task for which there is a handler is finished: also those that wait for
        another attempt or for their time, which are not waited for in fact. Returns all tasks of
        the service, the oldest first.

        Tasks of types without a handler, and of paused ones, stay as they are. Raises TimeoutError
        when the others are not finished in time.
        """
        try:
            async with asyncio.timeout(timeout_s), self.working():
                await self._all_finished()
        except TimeoutError:
            left = [task for task in await self._tasks() if not task.finished]
            names = ", ".join(f"{task.task_type} {task.id} is {task.status}" for task in left)
            raise TimeoutError(f"not finished after {timeout_s:g} s: {names}") from None
        return await self._tasks()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """A worker that runs meanwhile, for a test that waits for its tasks by itself. Pauses
        before other attempts last as long as they do."""
        self._check_loop()
        if self._working:
            yield
            return
        self._working += 1
        worker = Worker(self._store, self._handlers, WORKER, module=self._module())
        running = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            self._working -= 1
            worker.stop()
            await asyncio.shield(running)

    # -- what is left to do -------------------------------------------------------------------

    async def _all_finished(self) -> None:
        """Return when there is nothing more to do, now or at any time."""
        while True:
            last = await self._store.last_position(0)
            if await self._is_busy() or await self._release_next():
                await self._store.events_after(last, 1, LOOK_AGAIN_MS)
            else:
                return

    async def _is_busy(self) -> bool:
        paused = (await self._store.load_system()).state.paused
        served = [name for name in self._handlers if name not in paused]
        waiting = await asyncio.gather(*map(self._store.waiting, served))
        ready = sum(sum(counts) for by_priority in waiting for counts in by_priority.values())
        return ready > 0 or sum(await self._store.admitted(LimitScope.TYPE, served)) > 0

    async def _release_next(self) -> bool:
        """Release the task whose time comes first, of those that can be run; whether there was
        one."""
        due = PartitionKeys(0).due
        found: Sequence[bytes] = await send(
            self._store.client, ("ZRANGE", due, "0", str(WAITING_MAX - 1))
        )
        for member in found:
            task = await self._store.load(member.decode())
            if task is None or task.submission.task_type not in self._handlers:
                continue
            until = max(task.state.waiting_until or 0, self._store.now_ms())
            with contextlib.suppress(Rejection):  # it was canceled in this moment
                await transact(self._store, task.id, ReleaseTask(), now_ms=until)
            return True
        return False

    async def _tasks(self) -> list[Task]:
        return [task async for task in self.client.iterate(sort_order="asc", page_size=100)]

    def _module(self) -> str | None:
        """Where the child processes of handlers find them."""
        modules = {
            handler.function.__module__
            for handler in self._handlers.values()
            if handler.executor is ExecutorKind.PROCESS
        }
        if len(modules) > 1:
            raise ValueError(
                f"handlers that run in processes come from {', '.join(sorted(modules))}: a worker"
                " finds them in one module only"
            )
        return next(iter(modules), None)

    def _check_loop(self) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return  # it is only handed on here
        if running is not self._loop:
            raise RuntimeError(
                "this test runs in another event loop than its fixture ledgerq, which stands still"
                " meanwhile: give both the same loop scope, such as with"
                " asyncio_default_fixture_loop_scope"
            )

    # -- its life -----------------------------------------------------------------------------

    def _serve_types(self, task_types: Iterable[str]) -> None:
        """Have the API take tasks of these types."""
        if self._apps and self._known_types.issuperset(task_types):
            return
        self._known_types.update(task_types)
        settings = msgspec.structs.replace(self._settings, task_types=tuple(self._known_types))
        self._apps.append(create_app(self._store, settings))
        self.entrance.open(self._apps[-1])

    async def close(self) -> None:
        """Let go of what the API holds."""
        for app in self._apps:
            await app.close()


class InlineStore(RedisStore):
    """The ledger, for a worker that is told to stop all the time."""

    async def wait_ready(
        self, partition: int, queues: Sequence[Queue], timeout_ms: int
    ) -> list[Delivery]:
        return await super().wait_ready(partition, queues, min(timeout_ms, STOP_SEEN_MS))


@contextlib.asynccontextmanager
async def inline_service(
    redis_url: str, folder: Path, modules: Iterable[str] = ()
) -> AsyncGenerator[InlineService]:
    """A service in the database at `redis_url`, which is emptied first. Its handlers are those that
    are registered, and those of `modules`, which are imported for the purpose."""
    handlers = dict(load_handlers(None))
    for module in modules:
        handlers |= load_handlers(module)
    settings = Settings(redis_url=redis_url, data_dir=str(folder))
    async with contextlib.AsyncExitStack() as stack:
        await _empty(redis_url)
        store = await InlineStore.open(redis_url, store_options(settings))
        stack.push_async_callback(store.close)
        service = InlineService(store, settings, handlers)
        stack.push_async_callback(service.close)
        await stack.enter_async_context(_projecting(store, settings))
        url = await stack.enter_async_context(_served(service, settings))
        await stack.enter_async_context(service.connect(url))
        yield service


class BlockingService:
    """The same for tests that block: it runs in a thread of its own, and so do its handlers."""

    def __init__(self, service: InlineService, portal: BlockingPortal) -> None:
        self._service = service
        self._portal = portal
        self.url = service.url
        self.client = Client(service.url)

    def handler(self, task_type: str, **options: Any) -> Callable[[Function], Function]:
        """As `InlineService.handler`."""
        use = self._service.handler(task_type, **options)
        return lambda function: self._portal.call(use, function)

    def run_until_finished(self, timeout_s: float = RUN_TIMEOUT_S) -> list[Task]:
        """As `InlineService.run_until_finished`."""
        return self._portal.call(self._service.run_until_finished, timeout_s)


@contextlib.contextmanager
def blocking_service(
    redis_url: str, folder: Path, modules: Iterable[str] = ()
) -> Generator[BlockingService]:
    """As `inline_service`."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(inline_service(redis_url, folder, modules)) as service,
    ):
        blocking = BlockingService(service, portal)
        with blocking.client:
            yield blocking


async def _empty(redis_url: str) -> None:
    client = connect(redis_url, timeout_ms=5_000, connections_max=1)
    try:
        await send(client, ("FLUSHDB",))
    finally:
        await client.aclose()


@contextlib.asynccontextmanager
async def _projecting(store: RedisStore, settings: Settings) -> AsyncGenerator[None]:
    projector = Projector(store, ProjectorOptions(settings.read_model_folder))
    try:
        # A list that found none would be told to come back in a second.
        await projector.step()
        running = asyncio.create_task(Service("projector", projector.step).run())
        try:
            yield
        finally:
            # In the middle of a read, which would last.
            running.cancel()
            await asyncio.wait([running])
    finally:
        await projector.close()


@contextlib.asynccontextmanager
async def _served(service: InlineService, settings: Settings) -> AsyncGenerator[str]:
    listener = bind(HOST, 0)
    config = uvicorn_config(service.entrance, settings)
    config.load()
    server = Server(config, service.entrance.stop_waiting, asyncio.Event(), None)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    try:
        yield f"http://{HOST}:{listener.getsockname()[1]}"
    finally:
        # Not uvicorn's own end, which takes a tenth of a second at least.
        await service.entrance.stop_waiting()
        for each in server.servers:
            each.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks, timeout=CLOSE_TIMEOUT_S)
        listener.close()
