"""`ledgerq` as a person runs it: in a process of its own, in a folder of its own."""

import contextlib
import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec

from tests.consumers.role_process import RoleProcess

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 30

_READY = re.compile(r"is ready on (?P<url>\S+); .*; processes: (?P<pids>.*)")


def clean_env() -> dict[str, str]:
    """The environment without settings, and with our packages."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("LEDGERQ_")}
    return {**env, "PYTHONPATH": str(ROOT)}


def run(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command from start to end."""
    return subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments],
        cwd=cwd,
        env={**clean_env(), **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


class Ran(msgspec.Struct, frozen=True):
    """What a command left behind that was called in this process."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed. Fails when it did not work."""
        assert self.code == 0, self.err
        return json.loads(self.out)


class Call(Protocol):
    """Calls a command; `stdin` is what it reads."""

    def __call__(self, *arguments: str, stdin: str = "") -> Ran: ...


class Process:
    """A process that can be waited for, whoever its parent is."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def ends(self) -> bool:
        """Wait for its end; whether it came in time."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(PATIENCE_S * 1000))

    def close(self) -> None:
        os.close(self._descriptor)


class Up:
    """A running `ledgerq up`, on a free port unless the arguments say otherwise."""

    def __init__(self, folder: Path, *arguments: str, **env: str) -> None:
        self.folder = folder
        self.role = RoleProcess(
            *("-m", "api.cli", "up", "--port", "0", *arguments),
            cwd=folder,
            env={**clean_env(), **env},
            stdout=subprocess.PIPE,
        )
        self.process = self.role.process
        self.url = ""
        self.children: dict[str, list[Process]] = {}

    def wait_ready(self) -> Self:
        """Return once it says so; fail with its log when it does not."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        line = self.process.stdout.readline().decode() if readable else ""
        ready = _READY.search(line)
        assert ready, f"not ready: {line!r}, {self.role.said}"
        self.url = ready["url"]
        for words in ready["pids"].split(", "):
            name, *pids = words.split()
            self.children[name] = [Process(int(pid)) for pid in pids]
        return self

    def log(self, event: str) -> list[dict[str, Any]]:
        """The records of an event, once it has ended."""
        records = [json.loads(line) for line in self.role.said if line.startswith("{")]
        return [record for record in records if record["event"] == event]

    def wait(self) -> int:
        """The exit code."""
        return self.role.wait()

    def left_over(self) -> Sequence[str]:
        """Children of the start that do not end."""
        return [
            name
            for name, processes in self.children.items()
            for process in processes
            if not process.ends()
        ]

    def close(self) -> None:
        """End it however it stands."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_S)
        self.role.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for processes in self.children.values():
            for process in processes:
                process.close()


@contextlib.contextmanager
def up(folder: Path, *arguments: str, **env: str) -> Generator[Up]:
    """A running `ledgerq up` that is ready."""
    started = Up(folder, *arguments, **env)
    try:
        yield started.wait_ready()
    finally:
        started.close()
