"""What of a partition was read, given out and acknowledged, and how far that makes a checkpoint.

Events may be acknowledged in any order: the checkpoint never passes one that was not, so that a
reader that goes on from it misses nothing.
"""

from collections import deque
from typing import Final

import msgspec

from ledger.subscriptions import Checkpoint, order_of

FEW_LINES: Final = 64
"""So many are kept without a look at whether they could be fewer."""


class _Line(msgspec.Struct):
    """Where the checkpoint is once this and everything before it is done."""

    checkpoint: Checkpoint
    given: bool
    done: bool


class Acks:
    """Of one partition, for one holder of it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        """Everything up to it is done."""
        self._lines: deque[_Line] = deque()
        self._open: dict[str, _Line] = {}
        """Those that are to be acknowledged, by their entries."""

    @property
    def open(self) -> int:
        """Events that were read and not acknowledged."""
        return len(self._open)

    def read(self, checkpoint: Checkpoint) -> None:
        """An event that is to be acknowledged, at `checkpoint.entry`."""
        line = _Line(checkpoint, given=False, done=False)
        self._lines.append(line)
        self._open[checkpoint.entry] = line

    def passed_over(self, checkpoint: Checkpoint) -> None:
        """What nobody wants, up to `checkpoint.entry`."""
        if not self._lines:
            self.checkpoint = checkpoint
        elif self._lines[-1].done:
            self._lines[-1].checkpoint = checkpoint
        else:
            self._lines.append(_Line(checkpoint, given=False, done=True))

    def gave(self, entry: str) -> None:
        """The event was given to whoever acknowledges it."""
        self._open[entry].given = True

    def ack(self, entry: str) -> None:
        """The event is done. One that was acknowledged before, or never read, changes nothing."""
        line = self._open.pop(entry, None)
        if line is not None:
            line.done = True
            self._advance()
            if len(self._lines) > 4 * len(self._open) + FEW_LINES:
                self._join_done()

    def ack_up_to(self, entry: str) -> None:
        """All events that were given out are done, up to and with that at `entry`."""
        last = order_of(entry)
        done: list[str] = []
        for name, line in self._open.items():
            if line.checkpoint.order > last or not line.given:
                break
            done.append(name)
        for name in done:
            self._open.pop(name).done = True
        self._advance()

    def withdraw(self) -> None:
        """Forget what was read and not given out: another one will read it."""
        while self._lines and not self._lines[-1].given:
            line = self._lines.pop()
            self._open.pop(line.checkpoint.entry, None)

    @property
    def lines(self) -> int:
        """How much is remembered."""
        return len(self._lines)

    def _join_done(self) -> None:
        """One event that is never acknowledged must not make all later ones be remembered."""
        lines, self._lines = self._lines, deque()
        for line in lines:
            before = self._lines[-1] if self._lines else None
            if before is not None and before.done and line.done:
                before.checkpoint, before.given = line.checkpoint, before.given or line.given
            else:
                self._lines.append(line)

    def _advance(self) -> None:
        while self._lines and self._lines[0].done:
            self.checkpoint = self._lines.popleft().checkpoint
