"""Command lines of the background roles, as a supervisor makes them from its settings."""

import os
from pathlib import Path
from typing import Final

import pytest
from structlog.testing import capture_logs

from consumers.programs import child_env, notifier_program, registered_types, worker_program
from ledger.settings import Settings

SECRETS: Final = "LEDGERQ_CALLBACK_SECRETS"
KEY: Final = f"whsec_{'a' * 32}"


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


def test_workers_are_not_told_what_callbacks_are_signed_with():
    settings = Settings(callback_secrets=(KEY,))
    env: dict[str, str] = {}
    workers, notifier = worker_program(settings, env), notifier_program(settings, env)

    env.update(child_env(settings, {"HOME": "/root"}))  # as when a server has a new place

    assert (workers.env[SECRETS], notifier.env[SECRETS]) == ("", KEY)
    assert {**env, SECRETS: ""} == dict(workers.env)


async def test_a_module_of_handlers_is_not_told_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "curious.py").write_text(
        "import os\n"
        "from consumers import handler\n"
        f"@handler('found_' + (os.environ['{SECRETS}'] or 'nothing'))\n"
        "def find(context, payload): ...\n"
    )
    monkeypatch.setenv(SECRETS, KEY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert "found_nothing" in await registered_types("curious", os.environ)
