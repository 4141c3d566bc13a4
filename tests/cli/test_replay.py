"""`ledgerq replay`: beside a running service, and on an archive alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.objects import ObjectStoreError
from ledger.objects.local_folder import LocalFolder
from tests.archives import histories, seal
from tests.cli.running import PATIENCE_S, Call, Up, clean_env, run
from tests.cli.test_up import submit


@pytest.fixture
async def archive(tmp_path: Path) -> Path:
    """Of 600 events, whose data are no events of ours."""
    await seal(LocalFolder(tmp_path / "objects"), histories(150))
    return tmp_path / "objects"


def test_events_of_a_running_service_are_printed_counted_and_folded(service: Up, ledgerq: Call):
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))
    task = submit(ledgerq, service, "--wait")["id"]

    printed = ledgerq("replay", "--task", task, *data_dir)
    as_json = ledgerq("replay", "--task", task, *data_dir, "--json")
    counted = ledgerq("replay", "--count", "--task", task, *data_dir, "--json").json()
    stats = ledgerq("replay", "--view", "stats", *data_dir, "--json").json()
    queues = ledgerq("replay", "--view", "queues", *data_dir, "--json").json()
    tasks = ledgerq("replay", "--view", "tasks", "--task", task, *data_dir, "--json")

    lines = printed.out.splitlines()
    assert [line.split()[2] for line in lines] == ["TaskSubmitted", "TaskStarted", "TaskCompleted"]
    events = [json.loads(line) for line in as_json.out.splitlines()]
    assert [event["version"] for event in events] == [1, 2, 3]
    assert {event["task_id"] for event in events} == {task}
    assert counted["events"] == 3
    assert counted["by_event"]["TaskCompleted"] == 1
    assert stats["total_tasks"] >= 1
    assert isinstance(queues, list)
    assert json.loads(tasks.out)["status"] == "completed"


def test_a_moment_before_a_task_was_there_does_not_know_it(service: Up, ledgerq: Call):
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))
    task = submit(ledgerq, service, "--wait")["id"]
    first = json.loads(ledgerq("replay", "--task", task, *data_dir, "--json").out.splitlines()[0])

    then = ledgerq("replay", "--view", "tasks", "--until", "2020-01-01T00:00:00Z", *data_dir)
    queued = ledgerq(
        "replay", "--view", "tasks", "--until", first["position"], "--task", task, *data_dir
    )

    assert then.out == ""
    assert queued.out.split()[1] == "queued"


def test_two_versions_of_the_rules_are_compared(service: Up, ledgerq: Call, tmp_path: Path):
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))
    task = submit(ledgerq, service, "--wait")["id"]
    other = tmp_path / "other.py"
    other.write_text(
        "from msgspec.structs import replace\n"
        "from ledger.evolve import evolve as ours, initial\n"
        "def evolve(task, event, at):\n"
        "    after = ours(task, event, at)\n"
        "    return replace(after, state=replace(after.state, progress=7))\n"
    )

    same = ledgerq("replay", "--diff", "ledger.evolve", *data_dir, "--json")
    parted = ledgerq("replay", "--diff", str(other), "--task", task, *data_dir)

    assert same.json()["tasks"] == 0
    assert parted.code == 1
    assert f"task      {task}" in parted.out
    assert "TaskStarted, version 2" in parted.out
    assert '"progress":7' in parted.out


def test_an_archive_alone_is_enough(archive: Path, ledgerq: Call):
    counted = ledgerq("replay", "--archive", str(archive), "--count", "--json").json()
    some = ledgerq(
        *("replay", "--archive", str(archive), "--event", "TaskStarted", "--actor", "somebody"),
        *("--until", "0:1763811000160-0", "--to", "-"),
    )

    assert counted["events"] == 600
    assert [json.loads(line)["type"] for line in some.out.splitlines()] == ["TaskStarted"] * 11


@pytest.mark.parametrize("words", [("replay", "--count"), ("export",), ("replay",)])
def test_an_object_store_that_is_away_is_one_clear_line(
    archive: Path, ledgerq: Call, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
):
    async def away(self: LocalFolder, prefix: str) -> list[str]:
        raise ObjectStoreError("archive: the bucket is away")

    monkeypatch.setattr(LocalFolder, "folders", away)

    refused = ledgerq(*words, "--archive", str(archive))

    assert (refused.code, refused.err) == (1, "ledgerq: archive: the bucket is away\n")


def test_what_is_missing_of_an_archive_has_its_own_exit_code(archive: Path, ledgerq: Call):
    for bundle in archive.glob("archive/*/0/data/???"):
        bundle.unlink()

    found = ledgerq("replay", "--archive", str(archive))

    assert found.code == 3
    assert "is missing" in found.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--count", "--view", "stats"), "exclude one another"),
        (("--speed", "0"), "--speed: expected a number above 0, or max"),
        (("--speed", "1", "--count"), "--speed: only where events are printed"),
        (("--from", "soon"), "--from: expected a time such as"),
        (("--view", "stats", "--from", "1h"), "--view: a fold begins with the first event"),
        (("--diff", "json"), "json has no function initial"),
        (("--to", "ftp://x"), "--to: expected -, redis://… or ws://…"),
        (("--event", "TaskEaten"), "--event: there is no event 'TaskEaten'"),
        (("--task", "x"), "--task: expected ids of tasks"),
        (("--view", "stats"), "cannot be read"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    archive: Path, ledgerq: Call, words: tuple[str, ...], told: str
):
    refused = ledgerq("replay", "--archive", str(archive), *words)

    assert refused.code == 1
    assert told in refused.err
    assert len(refused.err.splitlines()) == 1


def test_whoever_has_seen_enough_ends_it(archive: Path, tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-m", "api.cli", "replay", "--archive", str(archive), "--json"],
        env=clean_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_ctrl_c_ends_it_in_silence(archive: Path, tmp_path: Path):
    words = ("replay", "--archive", str(archive), "--json", "--speed", "0.001")
    with subprocess.Popen(
        [sys.executable, "-m", "api.cli", *words],
        env=clean_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        # A shell's background ignores it, and so would we.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["version"] == 1
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_there_is_nothing_without_a_ledger(tmp_path: Path):
    refused = run("replay", "--data-dir", "typo", cwd=tmp_path)

    assert refused.returncode == 1
    assert "there is no ledger in typo" in refused.stderr
