"""`ledgerq rebuild`: on a ledger and a folder of its own, and beside a running service."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from projections.model_files import ModelFiles
from tests.cli.running import Call, Up, run
from tests.cli.test_up import submit


def live_file(folder: Path) -> Path:
    path = ModelFiles(folder).current()
    assert path is not None
    return path


def test_a_read_model_is_made_checked_and_made_anew_beside_a_running_service(
    service: Up, ledgerq: Call
):
    folder = service.folder / ".ledgerq" / "read-model"
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))
    submit(ledgerq, service, "--wait")
    before = live_file(folder)

    found = ledgerq("rebuild", *data_dir, "--json").json()
    checked = ledgerq("rebuild", "--check", *data_dir, "--json").json()

    assert found["file"] == str(live_file(folder))
    assert live_file(folder) != before
    assert found["events"] >= 3
    assert checked["equal"]
    assert [each["projection"] for each in checked["projections"]] == ["tasks", "stats", "queues"]


def test_a_server_without_a_ledger_is_one_clear_line(tmp_path: Path, empty_url: str):
    refused = run("rebuild", "--redis", empty_url, cwd=tmp_path)

    assert refused.returncode == 1
    assert "holds no ledger of ledgerq" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_nothing_to_check_is_one_clear_line(service: Up, tmp_path: Path):
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))

    refused = run("rebuild", "--check", "--read-model-dir", str(tmp_path), *data_dir, cwd=tmp_path)

    assert refused.returncode == 1
    assert refused.stderr.startswith("ledgerq: there is no read model in")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [("rebuild",), ("rebuild", "--check")])
def test_where_there_is_no_ledger_nothing_is_made(tmp_path: Path, words: tuple[str, ...]):
    refused = run(*words, "--data-dir", "typo", cwd=tmp_path)

    assert refused.returncode == 1
    assert "there is no ledger in typo" in refused.stderr
    assert not any(tmp_path.iterdir())


def test_a_check_says_where_a_stopped_projection_was_left(service: Up, tmp_path: Path):
    where = (
        *("--data-dir", str(service.folder / ".ledgerq")),
        *("--read-model-dir", str(tmp_path)),
    )
    assert run("rebuild", *where, cwd=tmp_path).returncode == 0
    with contextlib.closing(sqlite3.connect(live_file(tmp_path))) as db, db:
        db.execute("UPDATE projections SET stopped_at = '0:9-9', reason = 'it is odd'")

    told = run("rebuild", "tasks", "--check", *where, cwd=tmp_path)
    as_json = run("rebuild", "--check", "--json", *where, cwd=tmp_path)

    assert told.returncode == 0, told.stderr
    stopped = "stopped at 0:9-9 (it is odd); what follows was not compared; up to there equal"
    assert stopped in told.stdout
    stops = json.loads(as_json.stdout)["stopped"]
    assert sorted(stops) == ["queues", "stats", "tasks"]
    assert stops["tasks"] == {"at": "0:9-9", "reason": "it is odd"}


def test_a_check_of_one_projection_names_its_first_difference(service: Up, tmp_path: Path):
    where = (
        *("--data-dir", str(service.folder / ".ledgerq")),
        *("--read-model-dir", str(tmp_path)),
    )
    assert run("rebuild", *where, cwd=tmp_path).returncode == 0
    with contextlib.closing(sqlite3.connect(live_file(tmp_path))) as db, db:
        db.execute("INSERT INTO names (name) VALUES ('x')")
        db.execute("INSERT INTO outcomes VALUES ((SELECT max(no) FROM names), 'success', 7)")

    fine = run("rebuild", "queues", "--check", *where, cwd=tmp_path)
    wrong = run("rebuild", "stats", "--check", *where, cwd=tmp_path)

    assert (fine.returncode, wrong.returncode) == (0, 1)
    assert "stats, table outcomes" in wrong.stdout
    assert '["x","success",7]' in wrong.stdout
