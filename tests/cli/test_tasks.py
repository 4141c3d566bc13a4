"""The client commands: submit, status, cancel, retry, history."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import PATIENCE_S, Call, Up, clean_env

SUBMIT = ("submit", "health_check", "--kb", "demo")
LATER = ("--schedule-for", "2100-01-01T00:00:00Z")
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def waiting(client: Call) -> dict[str, Any]:
    """A task that no worker takes in this century."""
    return client(*SUBMIT, "--payload", '{"n": 1}', *LATER, "--json").json()


@pytest.fixture
def done(client: Call) -> dict[str, Any]:
    """A task that is completed."""
    return client(*SUBMIT, "--payload", '{"n": 1}', "--wait", "--json").json()


# -- submit -----------------------------------------------------------------------------------


def test_submit_prints_the_id_first(client: Call):
    ran = client(*SUBMIT, "--payload", "{}", *LATER)

    [line] = ran.out.splitlines()
    task_id, status, task_type = line.split()
    assert (ran.code, status, task_type) == (0, "queued", "health_check")
    assert client("status", task_id, "--json").json()["id"] == task_id


def test_submit_carries_every_field(client: Call):
    given = ("--priority", "high", "--max-retries", "7", "--timeout", "9", "--metadata", '{"m": 1}')
    callback = ("--callback-url", "http://127.0.0.1:9999/done")

    task = client(*SUBMIT, "--payload", '{"a": 1.0}', *LATER, *given, *callback, "--json").json()

    assert task["payload"] == {"a": 1.0}
    assert (task["priority"], task["max_retries"], task["timeout"]) == ("high", 7, 9)
    assert task["metadata"] == {"m": 1}
    assert task["schedule_for"] == "2100-01-01T00:00:00.000Z"
    assert task["callback_url"] == "http://127.0.0.1:9999/done"


@pytest.mark.parametrize("given", ["@payload.json", "-"])
def test_a_payload_can_be_a_file_or_standard_input(client: Call, tmp_path: Path, given: str):
    text = '{"big": 123456789012345678901234567890}\n'
    (tmp_path / "payload.json").write_text(text)

    ran = client(*SUBMIT, "--payload", given, *LATER, "--json", stdin=text)

    # The number would not survive a decode into a float.
    assert '"big": 123456789012345678901234567890' in ran.out


def test_submit_waits_for_the_result(client: Call):
    ran = client(*SUBMIT, "--payload", '{"n": 5}', "--wait")

    assert ran.code == 0
    assert "completed" in ran.out
    assert '"echo":{"n":5}' in ran.out


def test_the_same_key_gives_the_same_task(client: Call, tmp_path: Path):
    key = f"clé {tmp_path}"
    words = (*SUBMIT, "--payload", "{}", *LATER, "--json", "--idempotency-key", key)

    assert client(*words).json()["id"] == client(*words).json()["id"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("submit",), "a task needs TYPE, --kb, --payload"),
        ((*SUBMIT, "--payload", "[1]"), "--payload: expected a JSON object"),
        ((*SUBMIT, "--payload", "{"), "--payload: expected a JSON object"),
        ((*SUBMIT, "--payload", "@missing.json"), "missing.json: No such file"),
        (("submit", "odd", "--kb", "k", "--payload", "{}"), "task_type: expected one of"),
        ((*SUBMIT, "--payload", "{}", "--idempotency-key", "a\nb"), "--idempotency-key: expected"),
        ((*SUBMIT, "--payload", "{}", "--timeout", "0"), "timeout: expected a whole number"),
        ((*SUBMIT, "--batch", "missing.jsonl"), "missing.jsonl: No such file"),
        ((*SUBMIT, "--batch", "-"), "it holds no submission"),
        ((*SUBMIT, "--batch", "-", "--idempotency-key", ""), "--idempotency-key: expected"),
    ],
)
def test_what_is_wrong_with_a_submission_is_one_line(
    client: Call, words: tuple[str, ...], said: str
):
    ran = client(*words)

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("ledgerq: ")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


# -- submit --batch ---------------------------------------------------------------------------


def lines(*items: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(item)}\n" for item in items)


def test_a_batch_is_a_task_for_each_line(client: Call):
    sent = lines({"payload": {"n": 1}}, {"payload": {"n": 2}, "priority": "low"})

    ran = client(*SUBMIT, "--priority", "high", "--batch", "-", *LATER, "--json", stdin=sent)

    answer = ran.json()
    assert answer["count"] == 2
    found = [(task["payload"], task["priority"], task["kb_id"]) for task in answer["tasks"]]
    assert found == [({"n": 1}, "high", "demo"), ({"n": 2}, "low", "demo")]


def test_a_long_batch_is_sent_in_parts(
    client: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LEDGERQ_BATCH_ITEMS_MAX", "3")
    (tmp_path / "tasks.jsonl").write_text(lines(*({"payload": {"n": n}} for n in range(8))))
    words = (*SUBMIT, *LATER, "--batch", "tasks.jsonl", "--idempotency-key", str(tmp_path))

    first = client(*words)
    again = client(*words)

    assert first.code == 0
    assert len(set(first.out.splitlines())) == 8
    assert again.out == first.out


def test_a_bad_line_is_named_and_what_came_before_is_told(
    client: Call, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LEDGERQ_BATCH_ITEMS_MAX", "2")
    good: dict[str, Any] = {"payload": {}}
    bad = {**good, "priority": "odd"}

    ran = client(*SUBMIT, *LATER, "--batch", "-", stdin=lines(good, good) + "\n" + lines(good, bad))

    assert ran.code == 1
    assert "line 5: priority: expected one of" in ran.err
    assert "2 tasks were created before that" in ran.err


def test_a_line_that_is_not_json_is_named(client: Call):
    ran = client(*SUBMIT, "--batch", "-", stdin=lines({"payload": {}}) + "{\n")

    assert ran.code == 1
    assert "line 2: expected a JSON object" in ran.err
    assert "no task was created before that" in ran.err


def test_a_batch_can_be_waited_for(client: Call):
    sent = lines({"payload": {}}, {"payload": {}})

    answer = client(*SUBMIT, "--batch", "-", "--wait", "--json", stdin=sent).json()

    assert [task["status"] for task in answer["tasks"]] == ["completed", "completed"]


# -- status -----------------------------------------------------------------------------------


def test_status_shows_what_is_set(client: Call, done: dict[str, Any]):
    ran = client("status", done["id"])

    shown = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert ran.code == 0
    assert shown["status"] == "completed"
    assert shown["payload"] == '{"n":1}'
    assert "callback" not in shown


def test_status_shows_a_task_as_it_was(client: Call, done: dict[str, Any]):
    by_version = client("status", done["id"], "--version", "1", "--json").json()
    by_time = client("status", done["id"], "--as-of", done["created_at"], "--json").json()

    assert by_version["status"] == by_time["status"] == "queued"


def test_a_wait_that_was_not_long_enough_is_a_failure(client: Call, waiting: dict[str, Any]):
    ran = client("status", waiting["id"], "--wait", "0.1")

    assert ran.code == 1
    assert ran.err == "ledgerq: not finished after 0.1 s: queued\n"
    assert waiting["id"] in ran.out


@pytest.mark.parametrize("command", ["status", "cancel", "retry", "history"])
@pytest.mark.parametrize("task_id", [UNKNOWN, "no-uuid", "../tasks"])
def test_an_unknown_task_is_an_error(client: Call, command: str, task_id: str):
    ran = client(command, task_id)

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"ledgerq: there is no task with the id {task_id} (TASK_NOT_FOUND)\n"


# -- cancel, retry ----------------------------------------------------------------------------


def test_cancel_and_retry(client: Call, waiting: dict[str, Any]):
    canceled = client("cancel", waiting["id"])
    assert (canceled.code, canceled.out) == (0, f"{waiting['id']}  canceled\n")
    assert client("status", waiting["id"], "--json").json()["status"] == "canceled"

    retried = client("retry", waiting["id"])
    assert (retried.code, retried.out) == (0, f"{waiting['id']}  queued\n")


def test_cancel_and_retry_print_json(client: Call, waiting: dict[str, Any]):
    assert client("cancel", waiting["id"], "--json").json()["task_id"] == waiting["id"]
    assert client("retry", waiting["id"], "--json").json()["status"] == "queued"


@pytest.mark.parametrize(
    ("command", "code"), [("cancel", "TASK_NOT_CANCELABLE"), ("retry", "TASK_NOT_RETRYABLE")]
)
def test_a_finished_task_is_left_alone(client: Call, done: dict[str, Any], command: str, code: str):
    ran = client(command, done["id"])

    assert ran.code == 1
    assert ran.err.endswith(f"({code})\n")


# -- history ----------------------------------------------------------------------------------


def test_history_shows_each_event(client: Call, done: dict[str, Any]):
    ran = client("history", done["id"])

    words = [line.split() for line in ran.out.splitlines()]
    assert [(line[0], line[2]) for line in words] == [
        ("1", "TaskSubmitted"),
        ("2", "TaskStarted"),
        ("3", "TaskCompleted"),
    ]


def test_history_writes_times_as_people_do(client: Call):
    task = client(*SUBMIT, "--payload", "{}", *LATER, "--json").json()

    assert "schedule_for=2100-01-01T00:00:00.000Z" in client("history", task["id"]).out


def test_history_is_the_same_from_the_service_and_from_the_ledger(
    client: Call, done: dict[str, Any], service: Up
):
    from_service = client("history", done["id"], "--json").json()
    from_ledger = client(
        "history", done["id"], "--json", "--data-dir", str(service.folder / ".ledgerq")
    ).json()

    assert from_ledger == from_service
    assert [event["type"] for event in from_service["events"]] == [
        "TaskSubmitted",
        "TaskStarted",
        "TaskCompleted",
    ]


def test_history_finds_no_ledger_in_an_empty_folder(ledgerq: Call, tmp_path: Path):
    ran = ledgerq("history", UNKNOWN, "--data-dir", str(tmp_path))

    assert ran.code == 1
    assert f"there is no ledger in {tmp_path}" in ran.err
    assert list(tmp_path.iterdir()) == []


# -- where the service is ---------------------------------------------------------------------


def test_a_service_that_is_not_there_is_a_clear_error(ledgerq: Call):
    ran = ledgerq("status", UNKNOWN, "--url", "http://127.0.0.1:9")

    assert ran.code == 1
    assert ran.err == (
        "ledgerq: no ledgerq at http://127.0.0.1:9 (Connection refused): start one with"
        " `ledgerq up`, or give --url\n"
    )


def test_the_service_is_looked_for_on_the_port_of_the_settings(
    ledgerq: Call, service: Up, done: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("LEDGERQ_URL")
    monkeypatch.setenv("LEDGERQ_PORT", service.url.rpartition(":")[2])

    assert ledgerq("status", done["id"]).code == 0


def test_an_output_that_nobody_reads_is_no_traceback(done: dict[str, Any], service: Up):
    read_end, write_end = os.pipe()
    os.close(read_end)

    shown = subprocess.run(
        [sys.executable, "-m", "api.cli", "history", done["id"], "--url", service.url],
        cwd=service.folder,
        env=clean_env(),
        stdout=write_end,
        stderr=subprocess.PIPE,
        timeout=PATIENCE_S,
    )
    os.close(write_end)

    assert (shown.returncode, shown.stderr) == (1, b"")


def test_what_a_task_says_cannot_steer_the_terminal(client: Call):
    ran = client(*SUBMIT, "--payload", r'{"red": "\u001b[31m"}', *LATER, "--json")
    task_id = ran.json()["id"]

    assert "\x1b" not in client("status", task_id).out
    assert "\x1b" not in client("history", task_id).out


# -- explain ----------------------------------------------------------------------------------


def test_explain_says_why_a_task_waits(client: Call, waiting: dict[str, Any]):
    told = client("explain", waiting["id"])

    fields = dict(line.split(maxsplit=1) for line in told.out.splitlines())
    assert (told.code, fields["task"], fields["status"]) == (0, waiting["id"], "queued")
    assert "2100-01-01" in fields["delayed_until"]
    [reason] = client("explain", waiting["id"], "--json").json()["reasons"]
    assert reason["code"] == "delayed_until"


def test_explain_knows_no_task_of_another_id(client: Call):
    told = client("explain", UNKNOWN)

    assert told.code == 1
    assert "TASK_NOT_FOUND" in told.err
