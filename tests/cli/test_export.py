"""`ledgerq export`: what other programs are given."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.replay.event_json import event_line
from api.replay.exports import cloud_event
from ledger.objects.local_folder import LocalFolder
from tests.archives import EPOCH, T0, histories, seal
from tests.cli.running import Call

EVENTS = histories(150)


@pytest.fixture
async def archive(tmp_path: Path) -> str:
    await seal(LocalFolder(tmp_path / "objects"), EVENTS)
    return str(tmp_path / "objects")


def test_lines_are_those_of_replay(archive: str, ledgerq: Call, tmp_path: Path):
    printed = ledgerq("replay", "--archive", archive, "--json").out
    output = tmp_path / "events.jsonl"

    to_file = ledgerq("export", "--archive", archive, "--output", str(output))

    assert to_file.out == f"wrote 600 events to {output}\n"
    assert output.read_text() == printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "objects"]


def test_cloud_events_have_what_they_must(archive: str, ledgerq: Call, tmp_path: Path):
    output = tmp_path / "events"
    where = ("--archive", archive, "--output", str(output))

    ledgerq("export", "--format", "cloudevents", *where, "--event", "TaskStarted")

    told = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(told) == 150
    assert told[0] == {
        "specversion": "1.0",
        "id": str(EVENTS[150].position),
        "source": f"/ledgerq/{EPOCH}",
        "type": "ledgerq.TaskStarted",
        "subject": EVENTS[150].task_id,
        "time": "2025-11-22T11:30:00.150Z",
        "datacontenttype": "application/json",
        "data": json.loads(EVENTS[150].data),
        "ledgerqversion": 2,
        "ledgerqactor": "somebody",
        "ledgerqrequest": "r-150",
    }


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"no JSON", "no JSON"),
        (b'{"number": 1} and more', '{"number": 1} and more'),
        (b'{"name": "\xff"}', '{"name": "\N{REPLACEMENT CHARACTER}"}'),
        (b"", ""),
    ],
)
def test_what_somebody_wrote_that_is_no_json_is_told_as_text(data: bytes, told: str):
    event = msgspec.structs.replace(EVENTS[0], data=data, meta=data)

    line, cloud = json.loads(event_line(event)), json.loads(cloud_event(event, EPOCH))

    assert (line["data"], line["meta"], cloud["data"]) == (told, told, told)


def test_parquet_has_a_row_for_each_event(archive: str, ledgerq: Call, tmp_path: Path):
    output = tmp_path / "events.parquet"

    done = ledgerq("export", "--format", "parquet", "--archive", archive, "--output", str(output))

    parquet: Any = import_module("pyarrow.parquet")
    rows = parquet.read_table(output).to_pylist()
    assert done.code == 0, done.err
    assert [row["position"] for row in rows] == [str(event.position) for event in EVENTS]
    assert [row["data"] for row in rows] == [event.data.decode() for event in EVENTS]
    assert (rows[7]["actor"], rows[7]["version"]) == ("somebody", 1)
    assert rows[7]["at"].timestamp() * 1_000 == T0 + 7


def test_what_is_not_installed_is_named(
    archive: str, ledgerq: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    where = ("--archive", archive, "--output", str(tmp_path / "x"))

    refused = ledgerq("export", "--format", "parquet", *where)

    assert refused.code == 1
    assert "pip install 'ledgerq[parquet]'" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["objects"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--format", "parquet"), "needs a file"),
        (("--output", "no/such/folder/x"), "--output no/such/folder/x: No such file or directory"),
        (("--from", "soon"), "--from: expected a time"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    archive: str, ledgerq: Call, words: tuple[str, ...], told: str
):
    refused = ledgerq("export", "--archive", archive, *words)

    assert refused.code == 1
    assert told in refused.err
    assert len(refused.err.splitlines()) == 1
