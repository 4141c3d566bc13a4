"""`ledgerq prove` and `ledgerq check-proof`, and the script that needs no ledgerq."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from consumers.roles import store_options
from ledger.archive.checkpoint import origin_of
from ledger.archive.keys import KeyFile
from ledger.archive.tlog_proof import HEADER
from ledger.embedded import running_server
from ledger.objects.local_folder import LocalFolder
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.cli.running import PATIENCE_S, ROOT, Call, Ran, Up
from tests.ledger.archive.proving import key_of, seal_all

SCRIPT = ROOT / "examples" / "check_proof.py"


def sealed(service: Up) -> str:
    """Have the service's archive seal what there is; the public key that signs."""

    async def seal() -> str:
        data_dir = service.folder / ".ledgerq"
        url = running_server(data_dir)
        assert url is not None
        store = await RedisStore.open(url, store_options(Settings()))
        objects = LocalFolder(data_dir / "objects")
        try:
            keys = KeyFile(data_dir / "archive.key")
            await seal_all(store, objects, keys)
            return keys.keys().verifiers(origin_of(await store.epoch(), 0))[-1].vkey
        finally:
            await objects.close()
            await store.close()

    return asyncio.run(seal())


@pytest.fixture
def task_id(client: Call) -> str:
    """A canceled task."""
    task_id = client(
        "submit", "document_processing", "--kb", "kb", "--payload", "{}", "--json"
    ).json()["id"]
    client("cancel", task_id)
    return task_id


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
    client: Call, service: Up, task_id: str, tmp_path: Path
) -> None:
    key = sealed(service)
    file = tmp_path / "task.proof"

    made = client("prove", task_id, "--output", str(file))
    shown = client("check-proof", str(file), "--key", key)
    as_json = client("check-proof", str(file), "--key", key, "--json").json()

    assert (made.code, shown.code) == (0, 0), (made.err, shown.err)
    assert "TaskSubmitted" in shown.out
    assert "TaskCanceled" in shown.out
    assert f"These are all events of the task {task_id} up to the position " in shown.out
    assert [event["type"] for event in as_json["events"]] == ["TaskSubmitted", "TaskCanceled"]
    told = by_script(file, key)
    assert told.code == 0, told.err
    assert f"all events of {task_id}" in told.out


def test_a_proof_goes_through_a_pipe(client: Call, service: Up, task_id: str) -> None:
    key = sealed(service)

    written = client("prove", task_id).out

    assert client("check-proof", "-", "--key", key, stdin=written).code == 0


def test_the_archive_itself_is_asked_where_its_folder_is_named(
    ledgerq: Call, service: Up, task_id: str
) -> None:
    key = sealed(service)

    made = ledgerq("prove", task_id, "--data-dir", str(service.folder / ".ledgerq"))

    assert made.code == 0, made.err
    assert ledgerq("check-proof", "-", "--key", key, stdin=made.out).code == 0


def test_each_event_is_proved_to_standard_tools_too(
    client: Call, service: Up, task_id: str, tmp_path: Path
) -> None:
    sealed(service)

    client("prove", task_id, "--output", str(tmp_path / "p"), "--tlog-proofs", str(tmp_path / "t"))

    files = sorted((tmp_path / "t").iterdir())
    assert [file.name for file in files] == [f"{task_id}-{n}.tlog-proof" for n in (1, 2)]
    assert all(file.read_text().startswith(HEADER) for file in files)


def test_a_task_that_is_not_sealed_yet_is_said_to_be(client: Call, task_id: str) -> None:
    ran = client("prove", task_id, "--wait", "0.1")

    assert ran.code == 3
    assert "and none of them are sealed yet" in ran.err
    assert "give --wait SECONDS" in ran.err


def test_there_is_no_proof_of_a_task_that_is_not(client: Call, service: Up) -> None:
    data_dir = str(service.folder / ".ledgerq")
    unknown = "0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11"

    for flags in ([], ["--data-dir", data_dir]):
        ran = client("prove", unknown, *flags)
        assert ran.code == 1
        assert "TASK_NOT_FOUND" in ran.err


@pytest.fixture
def proof(client: Call, service: Up, task_id: str, tmp_path: Path) -> tuple[Path, str]:
    """A proof, and the key that it holds by."""
    key = sealed(service)
    file = tmp_path / "task.proof"
    assert client("prove", task_id, "--output", str(file)).code == 0
    return file, key


def test_an_edited_proof_is_refused_in_one_line(proof: tuple[Path, str], ledgerq: Call) -> None:
    file, key = proof
    whole = file.read_text()
    edits = {
        "cut off": whole[:-200],
        "canceled": whole.replace("TaskCanceled", "TaskFinished"),
        "kb": whole.replace('\\"kb\\"', '\\"bk\\"'),
        "laid out anew": json.dumps(json.loads(whole)),
    }

    for edit, text in edits.items():
        assert text != whole, edit
        file.write_text(text)
        ran, told = ledgerq("check-proof", str(file), "--key", key), by_script(file, key)
        assert (ran.code, told.code) == (1, 1), edit
        assert (ran.out, told.out) == ("", ""), edit
        assert len(ran.err.splitlines()) == len(told.err.splitlines()) == 1, edit
        assert "the proof does not hold: " in ran.err


def test_what_cannot_be_checked_is_told_apart(proof: tuple[Path, str], ledgerq: Call) -> None:
    file, key = proof
    missing = file.with_name("missing")

    for where, with_key in ((missing, key), (file, "no key"), (file, f"@{missing}")):
        ran = ledgerq("check-proof", str(where), "--key", with_key)
        assert (ran.code, len(ran.err.splitlines())) == (4, 1)
    assert by_script(missing, key).code == by_script(file, "no key").code == 4
    other = key_of(1).vkey
    assert ledgerq("check-proof", str(file), "--key", other).code == 1
    assert by_script(file, other).code == 1


def test_keys_are_read_from_a_file(proof: tuple[Path, str], ledgerq: Call) -> None:
    file, key = proof
    keys = file.with_name("keys")
    keys.write_text(f"{key_of(1).vkey}\n{key}\n")

    assert ledgerq("check-proof", str(file), "--key", f"@{keys}").code == 0
