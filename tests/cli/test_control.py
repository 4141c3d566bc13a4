"""`ledgerq pause`, `resume`, `limit` and `limits`, and what else tells of them."""

import getpass

import pytest

from api.cli.event_text import detail
from tests.cli.running import Call


def test_a_queue_is_paused_explained_and_resumed(client: Call):
    paused = client("pause", "vector_storage", "--reason", "the disk is full")
    task_id = client("submit", "vector_storage", "--kb", "docs", "--payload", "{}", "--json")
    task = task_id.json()["id"]
    explained = client("explain", task)
    resumed = client("resume", "vector_storage")
    as_json = client("resume", "vector_storage", "--json")
    client("cancel", task)

    assert (paused.code, paused.out) == (0, "vector_storage  paused\n")
    assert "the disk is full" in explained.out
    assert getpass.getuser() in explained.out
    assert (resumed.code, resumed.out) == (0, "vector_storage  not paused\n")
    assert as_json.json() == {"task_type": "vector_storage", "paused": None}


def test_limits_are_set_shown_and_removed(client: Call):
    nothing = client("limits")
    of_type = client("limit", "type", "vector_storage", "4")
    of_kb = client("limit", "kb", "a/b ü", "2")
    shown, as_json = client("limits"), client("limits", "--json")
    removed = [
        client("limit", "type", "vector_storage", "--remove"),
        client("limit", "kb", "a/b ü", "--remove"),
    ]

    assert (nothing.code, nothing.out) == (0, "")
    assert (of_type.out, of_kb.out) == (
        "type vector_storage  at most 4 at once\n",
        "kb a/b ü  at most 2 at once\n",
    )
    assert [line.split(maxsplit=3) for line in shown.out.splitlines()] == [
        ["type", "4", "0", "vector_storage"],
        ["kb", "2", "0", "a/b ü"],
    ]
    assert as_json.json()["kbs"] == [{"kb_id": "a/b ü", "limit": 2, "admitted": 0}]
    assert [ran.code for ran in removed] == [0, 0]
    assert client("limits").out == ""


def test_what_cannot_be_done_is_exit_code_1(client: Call):
    refused = [
        client("pause", "nonsense"),
        client("limit", "type", "vector_storage", "0"),
        client("limit", "type", "vector_storage"),
        client("limit", "kb", "docs", "1", "--remove"),
        client("limit", "kb", "..", "1"),
    ]

    assert [ran.code for ran in refused] == [1] * 5
    assert all(ran.err.startswith("ledgerq: ") for ran in refused)


def test_the_history_of_the_system_is_shown(client: Call):
    client("pause", "vector_storage", "--reason", "why not")
    client("resume", "vector_storage")

    shown, as_json = client("history", "system"), client("history", "system", "--json")

    *_, paused, resumed = shown.out.splitlines()
    assert "QueuePaused" in paused
    assert "reason=why not" in paused
    assert "QueueResumed" in resumed
    assert as_json.json()["events"][-1]["type"] == "QueueResumed"


def test_a_long_history_of_the_system_is_read_page_by_page(
    client: Call, monkeypatch: pytest.MonkeyPatch
):
    client("pause", "vector_storage")
    client("resume", "vector_storage")
    at_once = client("history", "system", "--json").json()
    monkeypatch.setattr("api.cli.client.SYSTEM_EVENTS_CHUNK", 1)

    assert client("history", "system", "--json").json() == at_once
    assert [e["version"] for e in at_once["events"]] == [*range(1, len(at_once["events"]) + 1)]


def test_a_lost_worker_is_named():
    assert detail({"worker_id": "w7", "host": "h1"}) == "worker_id=w7 host=h1"
    assert detail({"attempt": 1, "worker_id": "w7", "lease_ms": 1}) == "attempt=1"
