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

    def __init__(self, folder: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(folder / f"{os.getpid()}.log", flags)
        self._numbers = itertools.count()

    def run(self, context: Context) -> "JournaledRun":
        """One attempt at work: a context manager."""
        return JournaledRun(self._file, context, f"{os.getpid()}-{next(self._numbers)}")

    def close(self) -> None:
        os.close(self._file)


class JournaledRun:
    """From where it is entered to where it is left. `name` is its own."""

    def __init__(self, file: int, context: Context, name: str) -> None:
        self._file = file
        self._context = context
        self.name = name

    def note(self, what: str) -> None:
        context = self._context
        step = Step(
            what, self.name, context.task_id, context.attempt, os.getpid(), time.monotonic()
        )
        os.write(self._file, encode_step(step) + b"\n")

    def __enter__(self) -> "JournaledRun":
        self.note("began")
        return self

    def __exit__(self, *_: object) -> None:
        self.note("ended")
