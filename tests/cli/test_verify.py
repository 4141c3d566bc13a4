"""`ledgerq verify`, beside a ledger and away from it; and `ledgerq witness`."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from ledger.archive.reader import log_prefix
from ledger.objects.local_folder import LocalFolder
from ledger.settings import Settings
from tests.cli.running import Call, Up, run
from tests.cli.test_up import submit
from tests.consumers.role_process import role_process
from tests.ledger.archive.sealed import EPOCH, key_file, lives, opened, seal

ORIGIN = f"ledgerq/{EPOCH}/0"


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    store = LocalFolder(tmp_path / "objects")
    await seal(await opened(store, key_file(tmp_path)), lives(60), 30)
    await store.close()
    return tmp_path / "objects"


def vkey(folder: Path) -> str:
    return key_file(folder.parent).keys().verifiers(ORIGIN)[-1].vkey


def test_an_archive_is_verified_by_a_key_from_elsewhere(folder: Path, ledgerq: Call) -> None:
    found = ledgerq("verify", "--archive", str(folder), "--key", vkey(folder), "--json").json()

    assert (found["verdict"], found["epoch"], found["events"]) == ("fine", EPOCH, 60)
    assert (found["keys_given"], found["with_ledger"]) == (True, False)
    assert found["logs"][0]["keys"] == [vkey(folder)]


def test_whose_word_it_is_stands_there(folder: Path, ledgerq: Call) -> None:
    ran = ledgerq("verify", "--archive", str(folder))

    assert ran.code == 0
    assert "by the archive's own word: give --key to be sure" in ran.out
    assert "all is as it was sealed" in ran.out


def test_what_is_wrong_is_one_line_and_the_exit_code_says_what(folder: Path, ledgerq: Call) -> None:
    tile = folder / log_prefix(EPOCH, 0) / "tile" / "0" / "000.p" / "60"
    packed = tile.read_bytes()

    tile.write_bytes(bytes([packed[0] ^ 1]) + packed[1:])
    altered = ledgerq("verify", "--archive", str(folder))
    tile.unlink()
    missing = ledgerq("verify", "--archive", str(folder), "--json")

    assert altered.code == 1
    first = altered.out.splitlines()[0]
    assert first == "partition 0: altered: tile/0/000.p/60: its hash of leaf 0 is not that leaf's"
    assert missing.code == 3
    assert [fault["where"] for fault in json.loads(missing.out)["logs"][0]["faults"]] == [
        "tile/0/000.p/60"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no archive in"),
        (["objects", "--epoch", "another"], "has no log of the ledger another"),
        (["objects", "--key", "abc"], "expected a key such as"),
    ],
)
def test_what_cannot_be_checked_has_a_code_of_its_own(
    folder: Path, ledgerq: Call, arguments: list[str], said: str
) -> None:
    assert folder.name == "objects"
    ran = ledgerq("verify", "--archive", *arguments)

    assert ran.code == 4
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_running_service_is_held_against_its_archive(service: Up, ledgerq: Call) -> None:
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))
    submit(ledgerq, service, "--wait")
    # In a process of its own, since it sets up the log.
    assert run("archiver", "--once", *data_dir, cwd=service.folder).returncode == 0

    found = ledgerq("verify", *data_dir, "--json").json()

    (log,) = found["logs"]
    assert (found["verdict"], found["with_ledger"]) == ("fine", True)
    assert log["size"] >= log["in_stream"] >= 3


def test_of_several_ledgers_in_an_archive_one_must_be_named(folder: Path, ledgerq: Call) -> None:
    # given an archive with a log of another ledger
    ours = folder / log_prefix(EPOCH, 0)
    theirs = folder / log_prefix("fedcba98" * 4, 0)
    shutil.copytree(ours, theirs)
    checkpoint = theirs / "checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes().replace(EPOCH.encode(), b"fedcba98" * 4))
    # when none is named, then neither stands for both
    unnamed = ledgerq("verify", "--archive", str(folder))
    assert (unnamed.code, unnamed.out) == (4, "")
    assert f"several ledgers lie in the archive: give --epoch, one of {EPOCH}, fed" in unnamed.err
    # and the one that is named is verified
    assert ledgerq("verify", "--archive", str(folder), "--epoch", EPOCH).code == 0


def test_a_copy_is_held_against_the_ledger_that_is_named(
    service: Up, ledgerq: Call, tmp_path: Path
) -> None:
    # given a copy of an archive that has nothing of what was sealed
    data_dir = ("--data-dir", str(service.folder / ".ledgerq"))
    submit(ledgerq, service, "--wait")
    assert run("archiver", "--once", *data_dir, cwd=service.folder).returncode == 0
    (tmp_path / "copy" / "archive").mkdir(parents=True)
    # when it is verified beside the ledger, then it is not taken for whole
    ran = ledgerq("verify", "--archive", str(tmp_path / "copy"), *data_dir, "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["with_ledger"] is True


def test_a_witness_runs_and_ends_in_peace(folder: Path, ledgerq: Call) -> None:
    arguments = ("witness", "--log", vkey(folder), "--name", "somebody/w", "--port", "0")
    settings = Settings(data_dir=str(folder.parent / "theirs"))
    with role_process("-m", "api.cli", *arguments, cwd=folder.parent, settings=settings) as process:
        started = process.wait_for("witness_started")
        url = f"http://127.0.0.1:{started['port']}"
        asked = ("verify", "--archive", str(folder), "--witness-url", url)
        nobody = ledgerq(*asked)
        asked += ("--witness", started["key"])
        ran = ledgerq(*asked, "--json")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0

    gone = ledgerq(*asked)

    assert nobody.code == 4
    assert "--witness-url needs --witness too" in nobody.err
    assert started["key"].startswith("somebody/w+")
    assert ran.code == 3
    faults = json.loads(ran.out)["logs"][0]["faults"]
    assert [(each["kind"], each["where"]) for each in faults] == [
        ("missing", url),
        ("missing", "checkpoint"),
    ]
    assert gone.code == 4
    assert url in gone.err
