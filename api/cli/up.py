"""`ledgerq up`: a thin supervisor of everything that one machine needs.

It holds the data directory, the Valkey on it and the API's socket; the work is done by child
processes: api, scheduler, workers. What ends is started again; whatever ends this process ends all
of them.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Generator
from pathlib import Path

import structlog
from msgspec.structs import replace

from api.cli.announce import becomes_healthy, print_lost_tail, print_ready
from api.cli.failures import CliError
from api.cli.flags import (
    CallbackHosts,
    Concurrency,
    DataDir,
    DrainTimeout,
    Format,
    GrpcPort,
    Handlers,
    Host,
    Lease,
    Level,
    MaxMemory,
    MaxTasks,
    Port,
    RedisUrl,
    SilenceTimeout,
    SyncMode,
    TaskTypes,
    Workers,
    load_settings,
)
from api.cli.listener import listen, reserve
from consumers import logs
from consumers.own_modules import describe_exit, module_argv
from consumers.pool import CHILD_NAME, CannotRun, Pool, Program
from consumers.programs import (
    archiver_program,
    child_env,
    drain_s,
    notifier_program,
    projector_program,
    registered_types,
    scheduler_program,
    worker_program,
)
from consumers.service import backoff_s
from consumers.signals import StopSignals
from ledger.embedded import DataDirInUse, EmbeddedServer, EmbeddedServerError
from ledger.embedded.data_dir import owner_of
from ledger.knobs import KNOBS
from ledger.settings import Settings
from ledger.settings_sources import load, to_env

log = structlog.get_logger("up")


def up(
    *,
    host: Host = None,
    port: Port = None,
    grpc_port: GrpcPort = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    handlers: Handlers = None,
    callback_hosts: CallbackHosts = None,
    task_types: TaskTypes = None,
    workers: Workers = None,
    concurrency: Concurrency = None,
    lease_ms: Lease = None,
    drain_timeout_ms: DrainTimeout = None,
    silence_timeout_ms: SilenceTimeout = None,
    max_memory_mib: MaxMemory = None,
    max_tasks: MaxTasks = None,
    durability: SyncMode = None,
    log_level: Level = None,
    log_format: Format = None,
) -> None:
    """SIGTERM or ctrl-C: workers finish what they run, then API, scheduler and Valkey end."""
    settings = load_settings(**locals()).settings
    logs.configure(settings, "up")
    with _listen(settings) as (listener, grpc_port), contextlib.suppress(asyncio.CancelledError):
        here = replace(settings, port=listener.getsockname()[1], grpc_port=grpc_port)
        asyncio.run(Supervisor(here, listener).run())


@contextlib.contextmanager
def _listen(settings: Settings) -> Generator[tuple[socket.socket, int]]:
    """The API's socket, and the port of gRPC. Raises CliError; DataDirInUse when another `up` is in
    the way."""
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(listen(settings))
            grpc_port = stack.enter_context(reserve(settings))
        except CliError:
            data_dir = Path(settings.data_dir)
            owner = owner_of(data_dir) if settings.redis_url is None else None
            if owner is not None:
                raise DataDirInUse(data_dir, owner) from None
            raise
        yield listener, grpc_port


class Supervisor:
    """Everything, from start to stop."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._env: dict[str, str] = {}
        self._pool = Pool(self._programs())

    async def run(self) -> None:
        """Run until a signal says to stop. Raises CannotRun, EmbeddedServerError; a signal before
        everything was started, CancelledError."""
        signals = StopSignals()
        running = asyncio.current_task()
        assert running is not None  # noqa: S101 - this is a coroutine
        signals.call(running.cancel)
        if self._settings.handlers is not None:
            await self._accept_types_of(self._settings.handlers)
        async with contextlib.AsyncExitStack() as stack:
            server = None
            if self._settings.redis_url is None:
                server = self._embedded_server()
                await stack.enter_async_context(server)
            self._look_at(server)
            signals.call(self._stop, at_once=self._pool.kill)
            await self._run_pool(server)

    async def _accept_types_of(self, handlers: str) -> None:
        """The API takes what the workers can do. Raises CannotRun, SettingsError."""
        found = await registered_types(handlers, os.environ)
        new = [kind for kind in found if kind not in self._settings.known_task_types]
        types = ",".join((*self._settings.task_types, *new))
        # As if given: a handler's type has to be a good one too.
        env = {**to_env(self._settings), KNOBS["task_types"].env: types}
        self._settings = load({}, env, None).settings

    def _stop(self) -> None:
        log.info("stopping", hint="running tasks may finish; a second signal ends them")
        self._pool.stop()

    async def _run_pool(self, server: EmbeddedServer | None) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self._announce(server))]
                if server is not None:
                    beside.append(group.create_task(self._keep(server)))
                await self._pool.run()
                for task in beside:
                    task.cancel()
        except* (EmbeddedServerError, CannotRun) as errors:
            raise errors.exceptions[0] from None

    async def _announce(self, server: EmbeddedServer | None) -> None:
        """Say that everything is there, once it is."""
        await self._pool.started()
        healthy = await becomes_healthy(self._listener)
        pids = self._pool.pids()
        if server is not None:
            # It has none while it is started again.
            with contextlib.suppress(EmbeddedServerError):
                pids["valkey"] = [server.pid]
        print_ready(self._settings, pids, healthy=healthy)

    async def _keep(self, server: EmbeddedServer) -> None:
        """Start the server again when it ends; the others wait for it meanwhile."""
        failures = 0
        while True:
            exit_status = await server.wait()
            failures += 1
            log.error("valkey_died", exit=describe_exit(exit_status))
            await asyncio.sleep(backoff_s(failures))
            url = server.url
            await server.stop()
            await server.start()
            self._look_at(server)
            log.info("valkey_restarted", pid=server.pid)
            if server.url != url:
                # Its socket has a new place: the others have to learn of it.
                self._pool.kill()

    def _look_at(self, server: EmbeddedServer | None) -> None:
        """Point children that are started from now on at the server."""
        url = self._settings.redis_url if server is None else server.url
        self._env.update(child_env(replace(self._settings, redis_url=url), os.environ))

    def _embedded_server(self) -> EmbeddedServer:
        settings = self._settings
        return EmbeddedServer(
            Path(settings.data_dir),
            durability=settings.durability,
            on_lost_tail=print_lost_tail,
        )

    def _programs(self) -> list[Program]:
        """In the order in which they are stopped."""
        settings, descriptor = self._settings, self._listener.fileno()
        api_argv = module_argv("api.cli.api_process", CHILD_NAME, str(descriptor))
        return [
            worker_program(settings, self._env),
            Program("api", api_argv, self._env, 1, drain_s(settings), (descriptor,)),
            scheduler_program(self._env),
            projector_program(self._env),
            notifier_program(settings, self._env),
            archiver_program(self._env),
        ]
