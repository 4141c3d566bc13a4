"""`ledgerq prove` and `ledgerq check-proof`, and the script that needs no ledgerq."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from consumers.roles import store_options
from ledger.archive.tlog_proof import HEADER
from ledger.commands import SubmitTask
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from ledger.transact import transact
from tests.cli.running import PATIENCE_S, ROOT, Call, Ran, Up
from tests.given import a_submission
from tests.ledger.archive.proving import key_of

WAIT_S: Final = "30"
SCRIPT: Final = ROOT / "examples" / "check_proof.py"


@pytest.fixture
def key(ledgerq: Call, service: Up) -> str:
    """The public key of the service's archive."""
    data_dir = str(service.folder / ".ledgerq")
    return ledgerq("archiver", "key", "--data-dir", data_dir).out.split()[0]


@pytest.fixture
def task_id(client: Call) -> str:
    """A canceled task."""
    asked = ("submit", "document_processing", "--kb", "kb", "--payload", '{"n": 1}', "--json")
    task_id = client(*asked).json()["id"]
    client("cancel", task_id)
    return task_id


@pytest.fixture
def proof(client: Call, task_id: str, tmp_path: Path) -> Path:
    """A proof."""
    file = tmp_path / "task.proof"
    made = client("prove", task_id, "--output", str(file), "--wait", WAIT_S)
    assert made.code == 0, made.err
    return file


def by_script(file: Path, key: str) -> Ran:
    """What the script says that stands for itself."""
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), str(file), "--key", key],
        cwd=file.parent,
        env={},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_task_is_proved_to_whoever_has_the_key_alone(
    ledgerq: Call, proof: Path, key: str, task_id: str
) -> None:
    shown = ledgerq("check-proof", str(proof), "--key", key)
    as_json = ledgerq("check-proof", str(proof), "--key", key, "--json").json()
    told = by_script(proof, key)

    assert shown.code == 0, shown.err
    assert "TaskSubmitted" in shown.out
    assert "TaskCanceled" in shown.out
    assert f"These are all events of the task {task_id} up to the position " in shown.out
    assert [event["type"] for event in as_json["events"]] == ["TaskSubmitted", "TaskCanceled"]
    assert told.code == 0, told.err
    assert f"all events of {task_id}" in told.out


def test_a_proof_goes_through_a_pipe(client: Call, task_id: str, key: str) -> None:
    written = client("prove", task_id, "--wait", WAIT_S).out

    assert client("check-proof", "-", "--key", key, stdin=written).code == 0


def test_the_archive_itself_is_asked_where_its_folder_is_named(
    ledgerq: Call, service: Up, task_id: str, key: str
) -> None:
    data_dir = str(service.folder / ".ledgerq")

    made = ledgerq("prove", task_id, "--data-dir", data_dir, "--wait", WAIT_S)

    assert made.code == 0, made.err
    assert ledgerq("check-proof", "-", "--key", key, stdin=made.out).code == 0


def test_a_copy_of_the_archive_is_enough(
    service: Up, task_id: str, proof: Path, key: str, ledgerq: Call, tmp_path: Path
) -> None:
    # given a copy of the archive, and nothing else
    copy = tmp_path / "copy"
    shutil.copytree(service.folder / ".ledgerq" / "objects", copy)
    # when a task is proved from that, then the proof holds
    made = tmp_path / "copied.proof"
    assert ledgerq("prove", task_id, "--archive", str(copy), "--output", str(made)).code == 0
    checked = ledgerq("check-proof", str(made), "--key", key, "--json").json()
    assert [event["version"] for event in checked["events"]] == [1, 2]
    # and what it has not got is said so
    other = "0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11"
    assert "no task with the id" in ledgerq("prove", other, "--archive", str(copy)).err


def test_each_event_is_proved_to_standard_tools_too(
    client: Call, task_id: str, tmp_path: Path
) -> None:
    client("prove", task_id, "--tlog-proofs", str(tmp_path / "t"), "--wait", WAIT_S)

    files = sorted((tmp_path / "t").iterdir())
    assert [file.name for file in files] == [f"{task_id}-{n}.tlog-proof" for n in (1, 2)]
    assert all(file.read_text().startswith(HEADER) for file in files)


def test_a_task_that_is_not_sealed_yet_is_said_to_be(ledgerq: Call, empty_url: str) -> None:
    task_id = asyncio.run(submitted(empty_url))

    ran = ledgerq("prove", task_id, "--redis", empty_url, "--wait", "0.1")

    assert ran.code == 3
    assert f"no event of the task {task_id} is sealed yet: give --wait SECONDS" in ran.err


async def submitted(url: str) -> str:
    """A task of a ledger that nobody seals."""
    task_id = "0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11"
    store = await RedisStore.open(url, store_options(Settings()))
    try:
        await transact(store, task_id, SubmitTask(a_submission()))
    finally:
        await store.close()
    return task_id


def test_an_erased_task_is_proved_by_what_is_left_of_it(
    ledgerq: Call, client: Call, service: Up, task_id: str, key: str, tmp_path: Path
) -> None:
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))
    assert ledgerq("erase", task_id, "--reason", "request 4711", *data_dir).code == 0
    file = tmp_path / "task.proof"
    client("prove", task_id, "--output", str(file), "--wait", WAIT_S)

    shown = ledgerq("check-proof", str(file), "--key", key, "--json").json()["events"]

    assert [(event["type"], event["erased"]) for event in shown] == [
        ("TaskSubmitted", True),
        ("TaskCanceled", False),
        ("TaskErased", False),
    ]
    [submitted, *_] = ledgerq("check-proof", str(file), "--key", key).out.splitlines()
    assert submitted.endswith("erased")
    assert by_script(file, key).code == 0


def test_there_is_no_proof_of_a_task_that_is_not(client: Call, service: Up) -> None:
    data_dir = str(service.folder / ".ledgerq")
    unknown = "0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11"

    for flags in ([], ["--data-dir", data_dir]):
        ran = client("prove", unknown, *flags)
        assert ran.code == 1
        assert "TASK_NOT_FOUND" in ran.err


def test_an_edited_proof_is_refused_in_one_line(proof: Path, key: str, ledgerq: Call) -> None:
    whole = proof.read_text()
    edits = {
        "cut off": whole[:-200],
        "canceled": whole.replace("TaskCanceled", "TaskFinished"),
        "kb": whole.replace('\\"kb\\"', '\\"bk\\"'),
        "laid out anew": json.dumps(json.loads(whole)),
    }

    for edit, text in edits.items():
        assert text != whole, edit
        proof.write_text(text)
        ran, told = ledgerq("check-proof", str(proof), "--key", key), by_script(proof, key)
        assert (ran.code, told.code) == (1, 1), edit
        assert (ran.out, told.out) == ("", ""), edit
        assert len(ran.err.splitlines()) == len(told.err.splitlines()) == 1, edit
        assert "the proof does not hold: " in ran.err


def test_what_cannot_be_checked_is_told_apart(proof: Path, key: str, ledgerq: Call) -> None:
    missing = proof.with_name("missing")

    for where, with_key in ((missing, key), (proof, "no key"), (proof, f"@{missing}")):
        ran = ledgerq("check-proof", str(where), "--key", with_key)
        assert (ran.code, len(ran.err.splitlines())) == (4, 1)
    assert by_script(missing, key).code == by_script(proof, "no key").code == 4
    other = key_of(1).vkey
    assert ledgerq("check-proof", str(proof), "--key", other).code == 1
    assert by_script(proof, other).code == 1


def test_keys_are_read_from_a_file(proof: Path, key: str, ledgerq: Call) -> None:
    keys = proof.with_name("keys")
    keys.write_text(f"{key_of(1).vkey}\n{key}\n")

    assert ledgerq("check-proof", str(proof), "--key", f"@{keys}").code == 0
    assert by_script(proof, f"@{keys}").code == 0
    missing = by_script(proof, f"@{keys}.missing")
    assert (missing.code, len(missing.err.splitlines())) == (4, 1)
