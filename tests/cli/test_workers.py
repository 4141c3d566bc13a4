"""`ledgerq workers`, beside a running service."""

import time
from typing import Any

from tests.cli.running import PATIENCE_S, Call


def listed(client: Call) -> list[dict[str, Any]]:
    """The workers, as soon as the service has a read model and a worker has shown itself."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        ran = client("workers", "--json")
        if ran.code == 0 and ran.json():
            return ran.json()
        time.sleep(0.05)
    raise AssertionError("no worker has shown itself")


def test_workers_are_shown_as_a_table_and_as_json(client: Call):
    [worker] = listed(client)

    ran = client("workers")

    [row] = ran.out.splitlines()
    assert ran.code == 0
    assert row.split()[0] == worker["id"]
    assert row.split()[-1] == worker["task_types"][-1]
    assert worker["status"] in ("idle", "busy")
    assert "health_check" in worker["task_types"]
