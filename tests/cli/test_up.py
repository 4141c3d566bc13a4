"""`ledgerq up`: one command runs everything, and leaves nothing behind."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from api.cli.up import Supervisor
from ledger.embedded import EmbeddedServer, running_server
from ledger.embedded.data_dir import SERVER_LOCK_NAME
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.cli.running import PATIENCE_S, Call, Process, Up, clean_env, run, up

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pidfd_open is Linux's")


def submit(ledgerq: Call, running: Up, *more: str) -> dict[str, Any]:
    """A health_check task."""
    words = ("submit", "health_check", "--kb", "demo", "--payload", "{}", "--json", *more)
    return ledgerq(*words, "--url", running.url).json()


def status(ledgerq: Call, running: Up, task_id: str) -> dict[str, Any]:
    return ledgerq("status", task_id, "--wait", "20", "--json", "--url", running.url).json()


def test_a_task_goes_all_the_way_and_is_still_there_after_a_restart(tmp_path: Path, ledgerq: Call):
    with up(tmp_path) as running:
        done = submit(ledgerq, running, "--wait")
        scheduled = submit(ledgerq, running, "--schedule-for", "2100-01-01T00:00:00Z")

        running.role.signal(signal.SIGTERM)

        assert running.wait() == 0
        assert running.left_over() == []
        assert not running.log("process_died")
        assert not running.log("process_killed")

    # Nothing runs now, but the ledger can be read.
    history = ledgerq("history", done["id"], "--data-dir", str(tmp_path / ".ledgerq"), "--json")
    assert history.json()["events"][-1]["type"] == "TaskCompleted"

    with up(tmp_path) as again:
        assert status(ledgerq, again, done["id"]) == done
        assert ledgerq("cancel", scheduled["id"], "--url", again.url).code == 0
    assert done["status"] == "completed"


def test_a_killed_worker_is_replaced_and_its_task_finished_by_another(
    tmp_path: Path, ledgerq: Call, empty_url: str
):
    (tmp_path / "deadly.py").write_text(
        "import os\n"
        "from consumers import handler\n"
        "@handler('deadly')\n"
        "async def process(context, payload):\n"
        "    if context.attempt == 1:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return {'attempt': context.attempt}\n"
    )
    fast = {"LEDGERQ_LEASE_MS": "2000", "LEDGERQ_RETRY_BASE_MS": "0", "LEDGERQ_RETRY_CAP_MS": "0"}
    with up(tmp_path, "--handlers", "deadly", "--redis", empty_url, **fast) as running:
        # A type that the API knows of from the handlers alone.
        words = ("submit", "deadly", "--kb", "demo", "--payload", "{}", "--wait", "--json")
        done = ledgerq(*words, "--url", running.url).json()

        assert done["result"] == {"attempt": 2}
        death = running.role.wait_for("process_died")
        assert (death["process"], death["exit"]) == ("worker", "SIGKILL")
        assert "valkey" not in running.children


def test_a_killed_valkey_is_started_again_with_all_it_had(tmp_path: Path, ledgerq: Call):
    with up(tmp_path) as running:
        before = submit(ledgerq, running, "--wait")
        [valkey] = running.children["valkey"]

        os.kill(valkey.pid, signal.SIGKILL)
        after = submit(ledgerq, running, "--wait")

        assert after["status"] == "completed"
        assert status(ledgerq, running, before["id"]) == before
        assert running.role.wait_for("valkey_died")["exit"] == "SIGKILL"


def test_a_second_signal_ends_what_does_not_end_by_itself(
    tmp_path: Path, ledgerq: Call, empty_url: str
):
    (tmp_path / "endless.py").write_text(
        "import asyncio\n"
        "from consumers import handler\n"
        "@handler('batch_processing')\n"
        "async def process(context, payload):\n"
        "    context.log.info('begun')\n"
        "    await asyncio.Event().wait()\n"
    )
    with up(tmp_path, "--handlers", "endless", "--redis", empty_url) as running:
        words = ("submit", "batch_processing", "--kb", "demo", "--payload", "{}", "--json")
        ledgerq(*words, "--url", running.url).json()
        running.role.wait_for("begun")
        running.role.signal(signal.SIGTERM)
        running.role.wait_for("draining")

        running.role.signal(signal.SIGTERM)

        assert running.wait() == 0
        assert running.left_over() == []
        assert not running.log("process_died")


def test_a_data_directory_that_is_named_counts_more_than_a_server_in_the_environment(
    tmp_path: Path,
):
    env = {"LEDGERQ_REDIS_URL": "redis://127.0.0.1:9"}
    with up(tmp_path, "--data-dir", "data", **env) as running:
        assert "valkey" in running.children

    assert (tmp_path / "data" / "appendonlydir").is_dir()


def test_nothing_outlives_an_up_that_is_killed(tmp_path: Path):
    with up(tmp_path, "--workers", "2") as running:
        running.role.signal(signal.SIGKILL)
        running.wait()

        assert {name: len(found) for name, found in running.children.items()} == {
            "api": 1,
            "scheduler": 1,
            "projector": 1,
            "notifier": 1,
            "archiver": 1,
            "worker": 2,
            "valkey": 1,
        }
        assert running.left_over() == []


def test_an_import_of_handlers_does_not_outlive_an_up_that_is_killed(tmp_path: Path):
    (tmp_path / "endless.py").write_text(
        "import json, os, time\n"
        "print(json.dumps({'event': 'importing', 'pid': os.getpid()}), flush=True)\n"
        "time.sleep(600)\n"
    )
    starting = Up(tmp_path, "--handlers", "endless")
    with contextlib.closing(starting):
        importing = Process(starting.role.wait_for("importing")["pid"])
        starting.children["import"] = [importing]
        # Ctrl-C goes to the group of `up`, which ends it.
        assert os.getpgid(importing.pid) == importing.pid

        starting.role.signal(signal.SIGKILL)

        assert starting.left_over() == []


async def test_a_valkey_that_is_started_again_as_it_is_ready_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data_dir = tmp_path / "data"
    told: list[Mapping[str, Sequence[int]]] = []
    with contextlib.ExitStack() as holding:

        async def between_two_servers(_: socket.socket) -> bool:
            """As if a child that rewrites the file outlived the server: no other is started yet."""
            lock = holding.enter_context((data_dir / SERVER_LOCK_NAME).open())
            os.kill(int(lock.read()), signal.SIGKILL)
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            while running_server(data_dir) is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return False

        def end(_: Settings, pids: Mapping[str, Sequence[int]], *, healthy: bool) -> None:
            told.append(pids)
            holding.close()
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr("api.cli.up.becomes_healthy", between_two_servers)
        monkeypatch.setattr("api.cli.up.print_ready", end)
        settings = Settings(data_dir=str(data_dir), grpc_port=0)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await asyncio.wait_for(Supervisor(settings, listener).run(), PATIENCE_S)

    [pids] = told
    assert (len(pids["worker"]), "valkey" in pids) == (1, False)


def test_a_second_up_on_the_same_data_directory_is_refused(service: Up):
    port = service.url.rpartition(":")[2]

    refusals = [run("up", "--port", wanted, cwd=service.folder) for wanted in ("0", port)]

    for refused in refusals:
        assert refused.returncode == 1
        assert f"in use by ledgerq process {service.process.pid}" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_a_port_in_use_is_a_clear_error_and_nothing_is_started(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run("up", "--port", str(port), cwd=tmp_path)

    assert refused.returncode == 1
    assert refused.stderr == (
        f"ledgerq: 127.0.0.1:{port} is in use by another program: stop that, or choose another"
        " with --port\n"
    )
    assert not (tmp_path / ".ledgerq").exists()


def test_handlers_that_cannot_be_imported_stop_everything(tmp_path: Path):
    refused = run("up", "--port", "0", "--handlers", "no_such_module", cwd=tmp_path)

    assert refused.returncode == 1
    assert "--handlers no_such_module: No module named 'no_such_module'" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / ".ledgerq").exists()


def test_a_handler_for_an_impossible_type_is_a_clear_error(tmp_path: Path):
    (tmp_path / "odd.py").write_text(
        "from consumers import handler\n"
        "print('hello')\n"
        "@handler('Odd:Type')\n"
        "def odd(context, payload): ...\n"
    )

    refused = run("up", "--port", "0", "--handlers", "odd", cwd=tmp_path)

    assert refused.returncode == 1
    assert "task_types: expected a list of task types" in refused.stderr
    assert "Odd:Type" in refused.stderr


@pytest.mark.parametrize("level", [(), ("--log-level", "error")])
def test_a_torn_end_of_the_ledger_is_reported_in_full_and_once(
    tmp_path: Path, level: tuple[str, ...]
):
    asyncio.run(make_ledger(tmp_path / ".ledgerq"))
    [ledger_file] = (tmp_path / ".ledgerq" / "appendonlydir").glob("*.incr.aof")
    ledger_file.write_bytes(ledger_file.read_bytes()[:-3])

    with up(tmp_path, *level) as running:
        running.role.signal(signal.SIGTERM)
        running.wait()
    report = "\n".join(running.role.said)

    assert report.count("ended in the middle of a write") == 1
    [kept] = (tmp_path / ".ledgerq" / "lost-tails").glob("*.json")
    assert json.loads(kept.read_bytes())["saved"] in report


async def make_ledger(data_dir: Path) -> None:
    async with EmbeddedServer(data_dir) as server:
        store = await RedisStore.open(server.url)
        await store.close()


TERMINAL = """
import os, pty, sys
def read(terminal):
    data = os.read(terminal, 4096)
    if b"Try:" in data:
        os.write(terminal, b"\x03")
    return data
status = pty.spawn([sys.executable, "-m", "api.cli", "up", "--port", "0"], read)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_person_is_told_more_and_ends_it_with_ctrl_c(tmp_path: Path):
    shown = subprocess.run(
        [sys.executable, "-c", TERMINAL],
        cwd=tmp_path,
        env={**clean_env(), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert shown.returncode == 0
    assert b"is ready on" in shown.stdout
    assert b"ctrl-C" in shown.stdout
    # ctrl-C went to this one process, which ended the others in order.
    assert b"a second signal" in shown.stdout
    assert b"process_died" not in shown.stdout
