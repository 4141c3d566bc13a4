"""What handlers write down of themselves, outside of Redis: when each attempt ran, and as what.

One file for each process, a line of JSON for each step, each in one write: what stands there
happened, whatever is killed afterwards. Times are the machine's monotonic clock.
"""

import itertools
import os
import time
from pathlib import Path

from consumers import Context
from tests.faults.campaign.evidence import Step, encode_step


class Journal:
    """This process's file in a folder."""

    def __init__(self, folder: Path, role: str = "") -> None:
        """`role`: whose worker this process belongs to."""
        self._role = role
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(folder / f"{os.getpid()}.log", flags)
        self._numbers = itertools.count()

    def run(self, context: Context) -> "JournaledRun":
        """One attempt at work: a context manager."""
        name = f"{os.getpid()}-{next(self._numbers)}"
        return JournaledRun(self._file, self._role, context, name)

    def close(self) -> None:
        os.close(self._file)


class JournaledRun:
    """From where it is entered to where it is left. `name` is its own."""

    def __init__(self, file: int, role: str, context: Context, name: str) -> None:
        self._file = file
        self._role = role
        self._context = context
        self.name = name

    def note(self, what: str) -> None:
        context = self._context
        now = time.monotonic()
        step = Step(what, self.name, context.task_id, context.attempt, self._role, now)
        os.write(self._file, encode_step(step) + b"\n")

    def __enter__(self) -> "JournaledRun":
        self.note("began")
        return self

    def __exit__(self, *_: object) -> None:
        self.note("ended")
