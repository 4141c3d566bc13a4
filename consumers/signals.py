"""What SIGTERM and SIGINT mean to a process that runs a role, and how it hears that its supervisor
died."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Final

PARENT_DIED: Final = signal.SIGUSR2
"""Tells a child that its supervisor died. The kernel may send it for each thread of the supervisor
(`ledger/embedded/exec_tied.py`), while others of them still live: of SIGTERM, the second one would
be taken for impatience."""


class StopSignals:
    """The first signal asks for an orderly end, the second one for an end at once. PARENT_DIED, as
    often as it comes, asks for an orderly end.

    Until `call` says otherwise, the first is remembered and the second ends the process.
    """

    def __init__(self) -> None:
        self._received = 0
        self._stop: Callable[[], object] = lambda: None
        self._at_once: Callable[[], object] | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(PARENT_DIED, self._on_parent_died)

    def call(self, stop: Callable[[], object], at_once: Callable[[], object] | None = None) -> None:
        """From now on a signal calls `stop`, and another one `at_once`, or else ends the process.
        A signal that was there already counts."""
        self._stop, self._at_once = stop, at_once
        if self._received:
            stop()

    def _on_signal(self, number: int) -> None:
        self._received += 1
        if self._received == 1:
            self._stop()
        elif self._at_once is not None:
            self._at_once()
        else:
            os._exit(128 + number)

    def _on_parent_died(self) -> None:
        if not self._received:
            self._received = 1
            self._stop()
