"""What `ledgerq workers` prints of many workers."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from api.cli.answers import Worker, Workers
from api.cli.client import Service
from api.cli.workers import workers

HOUR = "2030-01-31T09"


def worker(number: int, status: str, *task_types: str) -> Worker:
    """One with two slots, one task in them, and ten behind it."""
    heard = f"{HOUR}:{number:02}:00.000Z"
    return Worker(f"w-{number}", status, 1, 2, 9, 1, 0.5, heard, list(task_types))


def listed(monkeypatch: pytest.MonkeyPatch, found: Sequence[Worker]) -> None:
    """The service tells of these."""
    told = Workers(list(found), msgspec.Raw(msgspec.json.encode(found)))

    def tell(_: Service) -> Workers:
        return told

    monkeypatch.setattr(Service, "workers", tell)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody reads it."""
    for place in ("output", "workers"):
        monkeypatch.setattr(f"api.cli.{place}.on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "130")


def rows(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Without headings."""
    return [line.split() for line in capsys.readouterr().out.splitlines() if HOUR in line]


@pytest.mark.usefixtures("terminal")
def test_many_that_are_lost_are_one_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    gone = [worker(number, "lost", "ocr") for number in range(1, 53)]
    listed(monkeypatch, [worker(0, "idle", "ocr"), *gone, worker(58, "lost", "mail")])

    workers()

    first, many, last = rows(capsys)
    assert first[:2] == ["w-0", "idle"]
    assert many == [
        "52",
        "workers",
        "lost",
        "52/104",
        "468",
        "52",
        "-",
        f"{HOUR}:52:00.000Z",
        "ocr",
    ]
    assert last[:2] == ["w-58", "lost"]


@pytest.mark.usefixtures("terminal")
def test_few_are_shown_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    listed(monkeypatch, [worker(number, "lost", "ocr") for number in range(3)])

    workers()

    assert [row[0] for row in rows(capsys)] == ["w-0", "w-1", "w-2"]


def test_programs_are_told_of_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    gone = [worker(number, "lost", "ocr") for number in range(10)]
    listed(monkeypatch, gone)

    workers()
    lines = rows(capsys)
    workers(json=True)
    as_json: list[dict[str, Any]] = json.loads(capsys.readouterr().out)

    assert [row[0] for row in lines] == [one["id"] for one in as_json] == [one.id for one in gone]
