"""The guards of conftest, which must be able to fail."""

import subprocess
import sys
from pathlib import Path

from ledger.redis_connection import connect, send
from tests.places import unknown_keys
from tests.servers import empty

ROOT = Path(__file__).parent.parent

LEAVES_A_TASK = """
import asyncio

async def test_leaves_a_task():
    asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="forgotten")
"""

IS_INTERRUPTED = """
import signal, subprocess, sys

def test_a_child_heeds_ctrl_c():
    child = subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 2)"])
    assert child.returncode == -signal.SIGINT
"""


async def test_keys_of_unknown_kind_are_noticed(ledger_url: str):
    client = connect(ledger_url, timeout_ms=5_000, connections_max=1)
    known = ["{ledgerq:0}:events", "{ledgerq:12}:ready:health_check:low", "{ledgerq:0}:ledger"]
    unknown = [
        "{ledgerq:0}:ready:health_check:urgent",
        "{ledgerq:0}:task:no-id",
        "{ledgerq:1}:ledger",
        "events",
    ]
    for key in known + unknown:
        await send(client, ("SET", key, "x"))

    noticed = await unknown_keys(client)

    assert noticed == sorted(unknown)
    await client.aclose()
    await empty(ledger_url)


def pytest_on(folder: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """A run of the tests in a folder, with our conftest; `before` is what starts it."""
    return subprocess.run(
        [
            *(*before, sys.executable, "-m", "pytest", "-c", "pyproject.toml"),
            *("-p", "tests.conftest", "--rootdir", str(ROOT), "-p", "no:cacheprovider"),
            str(folder),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_task_that_outlives_its_test_is_noticed(tmp_path: Path):
    (tmp_path / "test_stray.py").write_text(LEAVES_A_TASK)

    shown = pytest_on(tmp_path)

    assert shown.returncode == 1
    assert "1 passed, 1 error" in shown.stdout
    assert "tasks outlive the test" in shown.stdout
    assert "forgotten" in shown.stdout


def test_what_tests_start_heeds_ctrl_c_even_where_the_run_was_started_with_it_ignored(
    tmp_path: Path,
):
    (tmp_path / "test_child.py").write_text(IS_INTERRUPTED)

    shown = pytest_on(tmp_path, "/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh")

    assert shown.returncode == 0, shown.stdout
