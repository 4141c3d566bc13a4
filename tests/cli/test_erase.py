"""`ledgerq erase`: beside a running service, whose archiver does its part."""

from pathlib import Path

import pytest

from tests.cli.running import Call, Up
from tests.cli.test_up import status, submit

REASON = "request 4711"


def test_a_task_is_erased_in_the_service_and_its_archive(service: Up, ledgerq: Call):
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))
    task = submit(ledgerq, service, "--wait")["id"]

    first = ledgerq("erase", task, "--reason", REASON, "--actor", "anna", *data_dir, "--json")
    again = ledgerq("erase", task, "--reason", "again", *data_dir)

    found = first.json()
    assert (found["new"], found["removed"]) == (True, True)
    assert "erased   before" in again.out
    shown = status(ledgerq, service, task)
    assert (shown["status"], shown["payload"], shown["result"]) == ("completed", {}, None)
    history = ledgerq("history", task, "--json", "--url", service.url).json()["events"]
    assert [event["type"] for event in history][-1] == "TaskErased"
    assert history[-1]["data"]["reason"] == REASON
    assert history[-1]["meta"]["actor"] == "anna"
    assert history[0]["data"]["payload"] == {}
    verified = ledgerq("verify", *data_dir, "--json")
    assert verified.code == 0, verified.out
    assert ledgerq("retry", task, "--url", service.url).code == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("x", "--reason", REASON), "expected the id of a task"),
        (("0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11", "--reason", " "), "--reason: expected 1 to"),
        (("0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11", "--reason", REASON), "id 0193b0c2-"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    service: Up, ledgerq: Call, words: tuple[str, ...], told: str, tmp_path: Path
):
    refused = ledgerq("erase", *words, "--data-dir", str(service.folder / ".ledgerq"))

    assert refused.code == 1
    assert told in refused.err
    assert len(refused.err.splitlines()) == 1
