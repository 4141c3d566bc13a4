"""`ledgerq worker`"""

import asyncio
import os

from msgspec.structs import replace

from api.cli.flags import (
    Concurrency,
    DataDir,
    DrainTimeout,
    Format,
    Handlers,
    Lease,
    Level,
    MaxMemory,
    MaxTasks,
    RedisUrl,
    SilenceTimeout,
    Workers,
    load_settings,
)
from consumers import logs
from consumers.pool import Pool
from consumers.programs import child_env, server_url, worker_program
from consumers.signals import StopSignals
from ledger.settings import Settings


def worker(
    *,
    handlers: Handlers = None,
    workers: Workers = None,
    concurrency: Concurrency = None,
    lease_ms: Lease = None,
    drain_timeout_ms: DrainTimeout = None,
    silence_timeout_ms: SilenceTimeout = None,
    max_memory_mib: MaxMemory = None,
    max_tasks: MaxTasks = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    log_level: Level = None,
    log_format: Format = None,
) -> None:
    """The handlers are imported in the workers' own processes, never in this one."""
    settings = load_settings(**locals()).settings
    logs.configure(settings, "pool")
    asyncio.run(_run(replace(settings, redis_url=server_url(settings))))


async def _run(settings: Settings) -> None:
    pool = Pool([worker_program(settings, child_env(settings, os.environ))])
    StopSignals().call(pool.stop, at_once=pool.kill)
    await pool.run()
