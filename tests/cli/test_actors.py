"""Who did it, and upon which request: every event says so, whatever it came by."""

import getpass
import json
from typing import Any

import httpx2

from tests.cli.running import PATIENCE_S, Call, Up
from tests.cli.test_up import submit
from tests.given import TRACE


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


def test_a_trace_is_followed_from_the_request_to_the_result(service: Up, ledgerq: Call):
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))
    body: dict[str, Any] = {"task_type": "health_check", "kb_id": "kb", "payload": {}}
    tasks = f"{service.url}/api/v1/tasks"
    task = httpx2.post(tasks, json=body, headers={"traceparent": TRACE}).json()["id"]
    httpx2.get(f"{tasks}/{task}", params={"wait": 20}, timeout=PATIENCE_S)

    by_id = ledgerq("replay", "--trace", TRACE.split("-")[1], *data_dir, "--json")
    by_header = ledgerq("export", "--format", "cloudevents", "--trace", TRACE, *data_dir)
    by_nothing = ledgerq("replay", "--trace", "b7ad6b7169203331", *data_dir)

    events = [json.loads(line) for line in by_id.out.splitlines()]
    assert {event["task_id"] for event in events} == {task}
    assert [event["type"] for event in events] == ["TaskSubmitted", "TaskStarted", "TaskCompleted"]
    exported = [json.loads(line) for line in by_header.out.splitlines()]
    assert [event["traceparent"] for event in exported] == [TRACE] * 3
    assert (by_nothing.code, by_nothing.out) == (1, "")
    assert "--trace: expected ids of 32 hexadecimal digits" in by_nothing.err
