"""Command lines of the background roles, as a supervisor makes them from its settings."""

import pytest
from structlog.testing import capture_logs

from consumers.programs import worker_program
from ledger.settings import Settings


@pytest.mark.parametrize(
    ("processes", "concurrency", "told"),
    [(4, 2, [{"asked": 2, "concurrency": 4}]), (4, 4, []), (1, 50, [])],
)
def test_more_processes_than_tasks_at_once_are_warned_of(
    processes: int, concurrency: int, told: list[dict[str, int]]
):
    with capture_logs() as logs:
        program = worker_program(Settings(workers=processes, concurrency=concurrency), {})

    assert program.count == processes
    assert [{name: each[name] for name in ("asked", "concurrency")} for each in logs] == told
    assert all(each["log_level"] == "warning" for each in logs)
