"""One role per process, as in production: `ledgerq api`, `ledgerq worker`, `ledgerq scheduler`."""

import contextlib
import signal
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from ledger.settings import Settings
from tests.cli.running import Call, run
from tests.consumers.role_process import RoleProcess, role_process

ROLES = ("api", "worker", "scheduler", "projector", "notifier", "archiver")


@contextlib.contextmanager
def role(name: str, *arguments: str, cwd: Path, settings: Settings) -> Generator[RoleProcess]:
    with role_process("-m", "api.cli", name, *arguments, cwd=cwd, settings=settings) as process:
        yield process


def test_the_roles_work_together_and_end_in_peace(tmp_path: Path, empty_url: str, ledgerq: Call):
    settings = Settings(redis_url=empty_url)
    with (
        role("api", "--port", "0", cwd=tmp_path, settings=settings) as api,
        role("worker", "--workers", "2", cwd=tmp_path, settings=settings) as worker,
        role("scheduler", cwd=tmp_path, settings=settings) as scheduler,
    ):
        url = f"http://127.0.0.1:{api.wait_for('api_started')['port']}"
        started = {worker.wait_for("worker_started")["role"] for _ in range(2)}
        words = ("submit", "health_check", "--kb", "demo", "--payload", "{}", "--wait", "--json")
        due_once_it_is_there = ("--schedule-for", "2020-01-01T00:00:00Z")

        done = ledgerq(*words, *due_once_it_is_there, "--url", url).json()

        for process in (worker, scheduler, api):
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
    assert started == {"worker-1", "worker-2"}
    assert done["status"] == "completed"


@pytest.mark.parametrize("name", ROLES)
def test_a_role_needs_to_know_a_server(tmp_path: Path, name: str):
    port = ("--port", "0") if name == "api" else ()

    refused = run(name, *port, cwd=tmp_path)

    assert refused.returncode == 1
    assert refused.stderr.startswith("ledgerq: no Redis is named")
    assert len(refused.stderr.splitlines()) == 1


def test_a_port_in_use_is_a_clear_error(tmp_path: Path, empty_url: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = run("api", "--port", port, "--grpc-port", "0", "--redis", empty_url, cwd=tmp_path)

    assert refused.returncode == 1
    assert f"127.0.0.1:{port} is in use by another program" in refused.stderr


def test_an_api_without_a_usable_object_store_stops(tmp_path: Path, empty_url: str):
    """Only once its ledger is there, and it listens already."""
    store = {"LEDGERQ_OBJECT_STORE_URL": "s3://bucket", "AWS_ENDPOINT_URL": "http://192.0.2.1:9000"}

    refused = run("api", "--port", "0", "--redis", empty_url, cwd=tmp_path, **store)

    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("ledgerq: object_store_url: the endpoint")
    assert "Traceback" not in refused.stderr


def test_workers_whose_handlers_are_missing_stop(tmp_path: Path, empty_url: str):
    refused = run("worker", "--handlers", "missing", "--redis", empty_url, cwd=tmp_path)

    assert refused.returncode == 1
    assert "--handlers missing: No module named 'missing'" in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("ledgerq: worker cannot run")
