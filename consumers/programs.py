"""The background roles as others start them: command lines, environment, and the server's place.

A supervisor needs this alone. It stays small, since it imports neither redis nor a user's handlers.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from consumers.child_process import CHILD_LIVENESS
from consumers.own_modules import module_argv, tied_argv, with_our_packages
from consumers.pool import CHILD_NAME, CHILD_NUMBER, CannotRun, Program
from consumers.worker import FINAL_WRITES_TIMEOUT_S
from ledger.embedded import running_server
from ledger.settings import Settings
from ledger.settings_sources import to_env, without_secrets

log = structlog.get_logger("pool")

STOP_MARGIN_S: Final = 10.0
"""What a process may take to end beyond the bounds that it keeps itself."""


class NoServer(Exception):
    """Nothing says where the ledger's server is."""

    def __init__(self, data_dir: str) -> None:
        super().__init__(
            f"no Redis is named, and none runs on the data directory {data_dir}: give --redis URL,"
            " or start `ledgerq up` there first"
        )


def server_url(settings: Settings) -> str:
    """Where the ledger's server is: the one named, else that of a running `ledgerq up`.

    Raises NoServer.
    """
    url = settings.redis_url or running_server(Path(settings.data_dir))
    if url is None:
        raise NoServer(settings.data_dir)
    return url


def worker_program(settings: Settings, env: MutableMapping[str, str]) -> Program:
    """The workers of a pool. Says so where they run more at once than was asked for.

    A worker runs users' handlers: what callbacks are signed with is kept from it.
    """
    if settings.concurrency < settings.workers:
        log.warning(
            "concurrency_raised",
            asked=settings.concurrency,
            concurrency=settings.workers,
            hint="each process runs at least one: start fewer, or raise concurrency",
        )
    stop_timeout_s = drain_s(settings) + FINAL_WRITES_TIMEOUT_S
    argv = module_argv("consumers.roles", "worker", CHILD_NAME, CHILD_NUMBER, CHILD_LIVENESS)
    silence_timeout_s = settings.silence_timeout_ms / 1000
    own = without_secrets(env)
    return Program("worker", argv, own, settings.workers, stop_timeout_s, (), silence_timeout_s)


def scheduler_program(env: Mapping[str, str]) -> Program:
    """The scheduler as a child process."""
    return Program("scheduler", module_argv("consumers.roles", "scheduler", CHILD_NAME), env)


def projector_program(env: Mapping[str, str]) -> Program:
    """The projector as a child process."""
    return Program("projector", module_argv("consumers.roles", "projector", CHILD_NAME), env)


def notifier_program(settings: Settings, env: Mapping[str, str]) -> Program:
    """The notifier as a child process, which lets its posts come to their ends."""
    stop_timeout_s = settings.callback_timeout_ms / 1000 + STOP_MARGIN_S
    argv = module_argv("consumers.roles", "notifier", CHILD_NAME)
    return Program("notifier", argv, env, 1, stop_timeout_s)


def archiver_program(env: Mapping[str, str]) -> Program:
    """The archiver as a child process."""
    return Program("archiver", module_argv("consumers.roles", "archiver", CHILD_NAME), env)


async def registered_types(module: str, env: MutableMapping[str, str]) -> list[str]:
    """The task types that a module of handlers registers, asked of a process of its own.

    Raises CannotRun; why is on standard error.
    """
    process = await asyncio.create_subprocess_exec(
        *tied_argv(module_argv("consumers.registered", module), signal.SIGKILL),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=with_our_packages(without_secrets(env)),
        # Ctrl-C in a terminal goes to a whole group, and a broken-off import shows a traceback.
        start_new_session=True,
    )
    try:
        types, _ = await process.communicate()
        if process.returncode != 0:
            raise CannotRun("a worker")
        return msgspec.json.decode(types, type=list[str])
    finally:
        if process.returncode is None:
            # With what the module started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def child_env(settings: Settings, env: Mapping[str, str]) -> dict[str, str]:
    """`env` with every setting named, which a child takes over whole."""
    return {**env, **to_env(settings)}


def drain_s(settings: Settings) -> float:
    """How long a process that finishes what it has in work may take to end."""
    return settings.drain_timeout_ms / 1000 + STOP_MARGIN_S
