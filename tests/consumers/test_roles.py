"""Workers and schedulers as processes: how they start, wait, and end."""

import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.child_process import CHILD_LIVENESS
from consumers.own_modules import module_argv
from consumers.pool import CHILD_NAME, CHILD_NUMBER, UNUSABLE, CannotRun, Pool, Program
from ledger.keys import LEDGER
from ledger.redis_connection import connect, send
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from ledger.settings_sources import to_env
from tests.consumers.role_process import PATIENCE_S, ROOT, RoleProcess, role_process
from tests.consumers.working import submit
from tests.servers import Server, valkey_binary

WORKER = ("-m", "consumers.roles", "worker", "worker-1")
SCHEDULER = ("-m", "consumers.roles", "scheduler", "scheduler")


@pytest.fixture
def absent() -> Iterator[Server]:
    """A server that is not started yet."""
    with tempfile.TemporaryDirectory(prefix="lq-") as folder:
        server = Server(valkey_binary(), folder)
        yield server
        server.stop()


def test_a_role_waits_for_its_server_and_says_so_once(tmp_path: Path, absent: Server):
    settings = Settings(redis_url=absent.url, redis_timeout_ms=100)
    with role_process(*WORKER, cwd=tmp_path, settings=settings) as worker:
        complaint = worker.wait_for("redis_out_of_reach")
        absent.start()
        worker.wait_for("redis_reached")
        worker.wait_for("worker_started")
        worker.signal(signal.SIGTERM)

        assert worker.wait() == 0
    assert complaint["url"] == absent.url
    assert sum("redis_out_of_reach" in line for line in worker.said) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_role_that_waits_can_be_stopped(tmp_path: Path, absent: Server, number: signal.Signals):
    settings = Settings(redis_url=absent.url, redis_timeout_ms=100)
    with role_process(*SCHEDULER, cwd=tmp_path, settings=settings) as scheduler:
        scheduler.wait_for("redis_out_of_reach")
        scheduler.signal(number)

        assert scheduler.wait() == 0


def test_handlers_that_are_missing_are_one_line(tmp_path: Path, valkey_url: str):
    refused = ended(tmp_path, Settings(redis_url=valkey_url, handlers="missing"))

    assert refused.process.returncode == UNUSABLE
    [line] = refused.said
    assert line.startswith("ledgerq worker-1: --handlers missing: No module named 'missing'")


def test_handlers_that_are_broken_show_where(tmp_path: Path, valkey_url: str):
    (tmp_path / "broken.py").write_text("1 / 0\n")

    refused = ended(tmp_path, Settings(redis_url=valkey_url, handlers="broken"))

    assert refused.process.returncode == UNUSABLE
    assert "ZeroDivisionError: division by zero" in refused.said
    assert refused.said[-1].startswith("ledgerq worker-1: --handlers broken")


async def test_a_pool_ends_whose_workers_meet_another_ledger(ledger_url: str):
    client = connect(ledger_url, timeout_ms=5_000, connections_max=1)
    await send(client, ("HSET", LEDGER, "format", "1", "partitions", "3"))
    await client.aclose()
    argv = module_argv("consumers.roles", "worker", CHILD_NAME, CHILD_NUMBER, CHILD_LIVENESS)
    env = to_env(Settings(redis_url=ledger_url))

    with pytest.raises(CannotRun, match="worker cannot run"):
        await asyncio.wait_for(Pool([Program("worker", argv, env)]).run(), PATIENCE_S)


async def test_another_ledger_is_one_line(tmp_path: Path, ledger_url: str):
    client = connect(ledger_url, timeout_ms=5_000, connections_max=1)
    await send(client, ("HSET", LEDGER, "format", "1", "partitions", "3"))
    await client.aclose()

    refused = ended(tmp_path, Settings(redis_url=ledger_url))

    assert refused.process.returncode == UNUSABLE
    [line] = refused.said
    assert line.startswith("ledgerq worker-1: this ledger has partitions 3")


def ended(cwd: Path, settings: Settings) -> RoleProcess:
    with role_process(*WORKER, cwd=cwd, settings=settings) as process:
        process.wait()
        return process


async def test_a_second_signal_ends_a_worker_at_once(
    tmp_path: Path, store: RedisStore, ledger_url: str
):
    (tmp_path / "endless.py").write_text(
        "import asyncio\n"
        "from consumers import handler\n"
        "@handler('health_check_twin')\n"
        "async def run(context, payload):\n"
        "    context.log.info('begun')\n"
        "    await asyncio.Event().wait()\n"
    )
    settings = Settings(redis_url=ledger_url, handlers="endless", task_types=("health_check_twin",))
    with role_process(*WORKER, cwd=tmp_path, settings=settings) as worker:
        worker.wait_for("worker_started")
        await submit(store, "health_check_twin")
        worker.wait_for("begun")
        worker.signal(signal.SIGTERM)
        worker.wait_for("draining")
        worker.signal(signal.SIGTERM)

        assert worker.wait() == 128 + signal.SIGTERM


def test_a_worker_process_never_loads_the_api_package(tmp_path: Path):
    code = "import consumers.roles, sys; print('api' in sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
    )

    assert loaded.stdout == "False\n"
