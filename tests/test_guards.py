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


def test_a_task_that_outlives_its_test_is_noticed(tmp_path: Path):
    (tmp_path / "test_stray.py").write_text(LEAVES_A_TASK)

    shown = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "tests.conftest"),
            *("--rootdir", str(ROOT), "-p", "no:cacheprovider", str(tmp_path)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert shown.returncode == 1
    assert "1 passed, 1 error" in shown.stdout
    assert "tasks outlive the test" in shown.stdout
    assert "forgotten" in shown.stdout
