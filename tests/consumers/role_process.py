"""A role in a process of its own, and what it logs."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from ledger.settings import Settings
from ledger.settings_sources import to_env
from tests.servers import tied

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 30


class RoleProcess:
    """`python ARGUMENTS`, whose standard error is read line by line."""

    def __init__(
        self, *arguments: str, cwd: Path, env: Mapping[str, str], stdout: int = subprocess.DEVNULL
    ) -> None:
        self.process = subprocess.Popen(
            tied([sys.executable, *arguments]),
            cwd=cwd,
            env={**env, "PYTHONPATH": str(ROOT)},
            stdout=stdout,
            stderr=subprocess.PIPE,
        )
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, *events: str) -> dict[str, Any]:
        """The next log record of one of these events."""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE_S)
            except queue.Empty:
                raise AssertionError(f"no {events} in {self.said}") from None
            if line.startswith("{") and (record := json.loads(line))["event"] in events:
                return record

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code; after it, `said` is complete."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def close(self) -> None:
        self.process.kill()
        self.wait()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.said.append(line.decode().rstrip("\n"))
                self._lines.put(self.said[-1])


@contextlib.contextmanager
def role_process(*arguments: str, cwd: Path, settings: Settings) -> Generator[RoleProcess]:
    """A running one, killed at the end if it still runs."""
    started = RoleProcess(*arguments, cwd=cwd, env={**os.environ, **to_env(settings)})
    try:
        yield started
    finally:
        started.close()
