"""What SIGTERM and SIGINT mean to a process that runs a role, and how its supervisor tells it to
end."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Final

TOLD_TO_END: Final = signal.SIGUSR2
"""A supervisor's word to its child, and the kernel's when the supervisor died
(`ledger/embedded/exec_tied.py`): end in order. A child may hear it for each thread of its
supervisor, and beside a SIGTERM from whoever ends all processes of a service at once, as systemd
does: of SIGTERM, the second one would be taken for impatience."""


class StopSignals:
    """The first signal asks for an orderly end, the second one for an end at once. TOLD_TO_END, as
    often as it comes, asks for an orderly end, and does not count.

    Until `call` says otherwise, what was asked is remembered, and the second signal ends the
    process.
    """

    def __init__(self) -> None:
        self._received = 0
        self._asked = False
        self._stop: Callable[[], object] = lambda: None
        self._at_once: Callable[[], object] | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(TOLD_TO_END, self._ask)

    def call(self, stop: Callable[[], object], at_once: Callable[[], object] | None = None) -> None:
        """From now on a signal calls `stop`, and another one `at_once`, or else ends the process.
        A signal that was there already counts."""
        self._stop, self._at_once = stop, at_once
        if self._asked:
            stop()

    def _on_signal(self, number: int) -> None:
        self._received += 1
        if self._received == 1:
            self._ask()
        elif self._at_once is not None:
            self._at_once()
        else:
            os._exit(128 + number)

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._stop()
