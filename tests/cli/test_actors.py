"""Who did it, and upon which request: every event says so, whatever it came by."""

import getpass
import json
from typing import Any

from tests.cli.running import Call, Up
from tests.cli.test_up import submit


def test_every_event_names_its_actor_and_what_came_by_rest_its_request(service: Up, ledgerq: Call):
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))
    done = submit(ledgerq, service, "--wait")["id"]
    later = submit(ledgerq, service, "--schedule-for", "2099-01-01T00:00:00Z")["id"]
    ledgerq("cancel", later, "--url", service.url)
    ledgerq("pause", "vector_storage", "--reason", "a test", "--url", service.url)
    ledgerq("resume", "vector_storage", "--url", service.url)

    printed = ledgerq("replay", *data_dir, "--json")

    events: list[dict[str, Any]] = [json.loads(line) for line in printed.out.splitlines()]
    assert all(event["meta"]["actor"] for event in events)
    mine = {event["type"]: event for event in events if event["task_id"] in (done, later, "system")}
    for kind in ("TaskSubmitted", "TaskCanceled", "QueuePaused", "QueueResumed"):
        assert mine[kind]["meta"]["actor"] == getpass.getuser()
        assert mine[kind]["meta"]["request"]
    started = mine["TaskStarted"]
    assert started["meta"]["actor"] == started["data"]["worker_id"]
    assert mine["TaskCompleted"]["meta"]["actor"] == started["data"]["worker_id"]


def test_what_somebody_did_is_found_by_his_name(service: Up, ledgerq: Call):
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))
    task = submit(ledgerq, service, "--wait")["id"]

    by_me = ledgerq("replay", "--actor", getpass.getuser(), "--task", task, *data_dir, "--json")
    by_nobody = ledgerq("replay", "--actor", "nobody at all", *data_dir, "--json")

    assert [json.loads(line)["type"] for line in by_me.out.splitlines()] == ["TaskSubmitted"]
    assert by_nobody.out == ""
