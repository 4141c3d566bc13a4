"""`ledgerq tail`: what happens, as it happens."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import PATIENCE_S, Call, Up, clean_env, up
from tests.consumers.role_process import RoleProcess

SUBMIT = ("submit", "health_check", "--kb", "demo", "--payload", "{}", "--json")
LATER = ("--schedule-for", "2100-01-01T00:00:00Z")


class Tail:
    """A running command, and the lines that it prints."""

    def __init__(self, url: str, folder: Path, *arguments: str) -> None:
        self.role = RoleProcess(
            *("-m", "api.cli", "tail", "--url", url, *arguments),
            cwd=folder,
            env=clean_env(),
            stdout=subprocess.PIPE,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def line(self) -> str:
        """The next one."""
        return self._lines.get(timeout=PATIENCE_S)

    def close(self) -> None:
        self.role.close()
        self._reader.join(PATIENCE_S)

    def _read(self) -> None:
        assert self.role.process.stdout is not None
        with self.role.process.stdout as stream:
            for line in stream:
                self._lines.put(line.decode().rstrip("\n"))


@contextlib.contextmanager
def tailing(url: str, folder: Path, *arguments: str) -> Generator[Tail]:
    tail = Tail(url, folder, *arguments)
    try:
        yield tail
    finally:
        tail.close()


@pytest.fixture
def task(client: Call) -> dict[str, Any]:
    """One that was canceled."""
    task = client(*SUBMIT, *LATER).json()
    client("cancel", task["id"])
    return task


def test_each_event_is_a_line(service: Up, task: dict[str, Any], tmp_path: Path):
    with tailing(service.url, tmp_path, task["id"], "--after", "beginning") as tail:
        submitted, canceled = tail.line().split(), tail.line().split()

    assert submitted[1:6] == ["TaskSubmitted", "queued", task["id"], "health_check", "demo"]
    assert canceled[1:4] == ["TaskCanceled", "canceled", task["id"]]
    assert submitted[0].endswith("Z")


def test_json_is_an_object_a_line_and_filters_are_sent(
    service: Up, client: Call, task: dict[str, Any], tmp_path: Path
):
    wanted = ("--status", "canceled", "--kb", "demo", "--type", "health_check", "--json")

    with tailing(service.url, tmp_path, task["id"], *wanted, "--after", "beginning") as tail:
        event = json.loads(tail.line())

    assert (event["type"], event["task_id"]) == ("TaskCanceled", task["id"])


def test_ctrl_c_ends_it_quietly(service: Up, task: dict[str, Any], tmp_path: Path):
    with tailing(service.url, tmp_path, task["id"], "--after", "beginning") as tail:
        tail.line()
        tail.role.signal(signal.SIGINT)

        assert tail.role.wait() == 0
        assert tail.role.said == []


@pytest.mark.timeout(120)
def test_it_goes_on_where_it_was_when_the_api_comes_back(
    ledgerq: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with up(tmp_path) as service:
        monkeypatch.setenv("LEDGERQ_URL", service.url)
        tasks = [ledgerq(*SUBMIT, *LATER).json()["id"]]
        with tailing(service.url, tmp_path, "--after", "beginning") as tail:
            seen = [tail.line().split()[3]]
            os.kill(service.children["api"][0].pid, signal.SIGKILL)
            while (ran := ledgerq(*SUBMIT, *LATER)).code:
                assert "try again" in ran.err
            tasks += [ran.json()["id"], ledgerq(*SUBMIT, *LATER).json()["id"]]
            seen += [tail.line().split()[3] for _ in range(2)]

    assert seen == tasks


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--after", "yesterday"), "after: expected"),
        (("--status", "done"), "status: expected one of"),
        (("no-id",), "task_id: expected"),
        (("--url", "http://127.0.0.1:9"), "no ledgerq at http://127.0.0.1:9"),
    ],
)
def test_what_is_wrong_is_one_line(client: Call, words: tuple[str, ...], said: str):
    ran = client("tail", *words)

    assert (ran.code, ran.out) == (1, "")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1
