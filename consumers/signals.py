"""What SIGTERM and SIGINT mean to a process that runs a role."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Final

PARENT_DEATH_S: Final = 5.0
"""The kernel tells that the parent died (see `ledger/embedded/exec_tied.py`) once for each of its
threads, all within this time, though the machine be busy."""


class StopSignals:
    """The first signal asks for an orderly end, the second one for an end at once.

    Until `call` says otherwise, the first is remembered and the second ends the process.
    """

    def __init__(self) -> None:
        self._received = 0
        self._stop: Callable[[], object] = lambda: None
        self._at_once: Callable[[], object] | None = None
        self._parent = os.getppid()
        self._parent_died_at: float | None = None
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)

    def call(self, stop: Callable[[], object], at_once: Callable[[], object] | None = None) -> None:
        """From now on a signal calls `stop`, and another one `at_once`, or else ends the process.
        A signal that was there already counts."""
        self._stop, self._at_once = stop, at_once
        if self._received:
            stop()

    def _on_signal(self, number: int) -> None:
        if self._received and self._tells_of_the_parents_death():
            return
        self._received += 1
        if self._received == 1:
            self._stop()
        elif self._at_once is not None:
            self._at_once()
        else:
            os._exit(128 + number)

    def _tells_of_the_parents_death(self) -> bool:
        """Whether a signal is no impatience, but the kernel's."""
        if os.getppid() == self._parent:
            return False
        if self._parent_died_at is None:
            self._parent_died_at = self._loop.time()
        return self._loop.time() - self._parent_died_at < PARENT_DEATH_S
