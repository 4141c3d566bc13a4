"""`ledgerq dead-letters` and `ledgerq dead-letters retry` against a running service."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.cli import dead_letters
from tests.cli.running import PATIENCE_S, Call, Up, up

RETRY = ("dead-letters", "retry")


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A service whose handler fails the first time, one task after the other."""
    folder = tmp_path_factory.mktemp("failing")
    with up(folder, "--handlers", "tests.cli.failing_handlers", "--concurrency", "1") as running:
        yield running


@pytest.fixture
def failed(ledgerq: Call, failing: Up, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Commands that find that service."""
    monkeypatch.setenv("LEDGERQ_URL", failing.url)
    return ledgerq


def fail(call: Call, kb: str, *errors: str) -> list[str]:
    """Tasks that have failed so."""
    lines = [msgspec.json.encode({"payload": {"error": error}}).decode() for error in errors]
    words = ("submit", "document_processing", "--kb", kb, "--batch", "-", "--wait", "--json")
    ran = call(*words, stdin="\n".join(lines))
    tasks: list[dict[str, Any]] = msgspec.json.decode(ran.out)["tasks"]
    assert [task["status"] for task in tasks] == ["failed"] * len(errors)
    return [task["id"] for task in tasks]


def statuses(call: Call, ids: Sequence[str]) -> list[str]:
    """How the tasks ended."""
    told = (call("status", task_id, "--wait", "30", "--json").out for task_id in ids)
    return [msgspec.json.decode(text)["status"] for text in told]


def told_of(call: Call, *submit: str) -> str:
    """What is told of a new task that nobody may have taken after a second."""
    return call("status", call(*submit, "--json").json()["id"], "--wait", "1").out


def test_failures_are_shown_by_their_kind(failed: Call):
    fail(failed, "shown", "page 1 has no text", "page 20 has no text", "no such file")

    ran = failed("dead-letters", "--kb", "shown", "--failed-after", "1h")
    found = failed("dead-letters", "--kb", "shown", "--json").json()

    first, second = (line.split(maxsplit=6) for line in ran.out.splitlines())
    assert ran.err == "ledgerq: 3 tasks failed, in 2 ways\n"
    assert first[1:5] == ["2", "1", "document_processing", "permanent"]
    assert first[6] == "PermanentError: page 20 has no text"
    assert second[6] == "PermanentError: no such file"
    assert [group["fingerprint"] for group in found["dead_letters"]] == [first[0], second[0]]


def test_the_tasks_of_one_kind_are_listed_and_retried(failed: Call):
    ids = fail(failed, "mended", "page 1 has no text", "page 2 has no text", "no such file")
    [group, _] = failed("dead-letters", "--kb", "mended", "--json").json()["dead_letters"]
    kind = ("--fingerprint", group["fingerprint"], "--kb", "mended")

    listed = failed("list", *kind, "--sort-order", "asc", "--json").json()
    would = failed(*RETRY, *kind, "--dry-run")
    did = failed(*RETRY, *kind, "--yes")

    assert [task["id"] for task in listed["tasks"]] == ids[:2]
    assert (would.code, would.out) == (0, "2 tasks would be retried\n")
    assert (did.code, did.out) == (0, "2 tasks retried\n")
    assert statuses(failed, ids) == ["completed", "completed", "failed"]


def test_a_retry_goes_on_until_nothing_remains_or_its_limit_is_reached(
    failed: Call, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dead_letters, "CHUNK", 2)
    ids = fail(failed, "many", *["no such file"] * 6)

    would = failed(*RETRY, "--kb", "many", "--dry-run", "--json").json()
    some = failed(*RETRY, "--kb", "many", "--limit", "3", "--yes", "--json").json()
    left = statuses(failed, ids).count("failed")
    rest = failed(*RETRY, "--kb", "many", "--yes", "--json").json()

    assert (would["retried"], would["remaining"], would["dry_run"]) == (6, 0, True)
    assert (some["retried"], some["remaining"], some["dry_run"]) == (3, 3, False)
    assert sum(some["fingerprints"].values()) == left == 3
    assert (rest["retried"], rest["remaining"]) == (3, 0)
    assert statuses(failed, ids) == ["completed"] * 6


def test_a_full_queue_does_not_hold_back_the_others(
    ledgerq: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dead_letters, "CHUNK", 2)
    handlers = ("--handlers", "tests.cli.failing_handlers")
    submit = ("submit", "document_processing", "--payload", '{"error": "no such file"}')
    deadline_s = time.monotonic() + PATIENCE_S
    with up(tmp_path, *handlers, LEDGERQ_QUEUE_TASKS_MAX="1") as running:
        monkeypatch.setenv("LEDGERQ_URL", running.url)
        for priority in ("normal", "normal", "normal", "high"):
            ledgerq(*submit, "--wait", "--kb", "full", "--priority", priority)
        ledgerq("pause", "document_processing")
        # The worker learns of it with its next heartbeat, and leaves one in the queue.
        while "failed" in told_of(ledgerq, *submit, "--kb", "filler"):
            assert time.monotonic() < deadline_s

        ran = ledgerq(*RETRY, "--kb", "full", "--yes")

    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith("1 task retried; skipped: ")
    assert ran.out.endswith("; 3 remain: a queue is full; the same call goes on once it has room\n")


def test_nothing_is_retried_unless_it_is_meant(failed: Call):
    ids = fail(failed, "unmeant", "no such file")

    ran = failed(*RETRY, "--kb", "unmeant")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == ("ledgerq: 1 task would be retried; nothing was: add --yes, or --dry-run\n")
    assert statuses(failed, ids) == ["failed"]


def test_nothing_matches(failed: Call):
    listed = failed("dead-letters", "--kb", "nobody")
    retried = failed(*RETRY, "--kb", "nobody", "--yes")

    assert (listed.code, listed.out, listed.err) == (0, "", "ledgerq: no failed task matches\n")
    assert (retried.code, retried.out) == (0, "no failed task matches\n")


def test_a_bad_filter_is_one_line(failed: Call):
    listed = failed("dead-letters", "--error-kind", "broken")
    retried = failed(*RETRY, "--error-kind", "timeout,broken", "--yes")
    limited = failed(*RETRY, "--limit", "0", "--yes")

    assert listed.err.startswith("ledgerq: error_kind: expected one of retryable, permanent")
    assert retried.err.startswith("ledgerq: error_kind: expected one of retryable, permanent")
    assert limited.err == "ledgerq: --limit: expected a whole number from 1 on, got 0\n"
    assert (listed.code, retried.code, limited.code) == (1, 1, 1)


def test_the_retry_has_help_with_an_example(failed: Call):
    ran = failed(*RETRY, "--help")

    assert ran.out.startswith("Usage: ledgerq dead-letters retry")
    assert "  ledgerq dead-letters retry --fingerprint" in ran.out
