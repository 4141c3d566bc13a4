"""The line on which a process tells its supervisor that its event loop moves: an inherited pipe.

The ledger has no part in it: a worker whose server is away is as alive as any, and one that cannot
move is not, whatever its connection does. What the child says are lines:

    .              its event loop moves; every BEAT_S
    leaving WHY    it takes nothing more, and ends once what it runs has ended
    anything else  where its threads stand, which it tells on SIGUSR1, even while its loop is stuck
"""

import asyncio
import contextlib
import faulthandler
import os
import signal
from collections.abc import Sequence
from typing import Final

BEAT_S: Final = 0.5

STACK_SIGNAL: Final = signal.SIGUSR1

STACK_PATIENCE_S: Final = 1.0
"""How long a silent process may take to tell where it stands; one that is stopped never does."""

STACK_LINES_MAX: Final = 60
"""Of the stacks, so many lines are told."""

STACK_LINES_READ_MAX: Final = 12_000
"""faulthandler tells of 100 threads, and 100 frames of each."""

_BEAT: Final = b"."
_LEAVING: Final = b"leaving "


class Liveness:
    """The child's end. Without a descriptor nobody listens, and nothing is said."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            # A supervisor that does not listen must not hold up its children.
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)
            faulthandler.register(STACK_SIGNAL, descriptor, all_threads=True)

    async def tell(self) -> None:
        """Say again and again that the loop moves, until cancelled."""
        while self._descriptor is not None:
            self._say(_BEAT)
            await asyncio.sleep(BEAT_S)

    def leave(self, why: str) -> None:
        """Say that another process may take this one's place."""
        self._say(_LEAVING + why.encode())

    def _say(self, line: bytes) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, line + b"\n")


class Listener:
    """The supervisor's end."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._rest = b""
        self._beats = 0
        self._stack: list[str] = []
        self.leaving = asyncio.Event()
        self.why = ""
        """Why the child leaves."""
        asyncio.get_running_loop().add_reader(self._read_end, self._read)

    def close_theirs(self) -> None:
        """Leave the end that is written to to the child."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def close(self) -> None:
        self.close_theirs()
        if self._read_end >= 0:
            asyncio.get_running_loop().remove_reader(self._read_end)
            os.close(self._read_end)
            self._read_end = -1

    @property
    def heard(self) -> bool:
        """Whether the child ever said that it moves."""
        return self._beats > 0

    async def silence(self, seconds: float) -> None:
        """Return once nothing was heard for so long, after the first word. Time in which this
        process itself stood still does not count."""
        slice_s = min(seconds / 4, 1.0)
        silent_s = 0.0
        while silent_s < seconds:
            heard = self._beats
            await asyncio.sleep(slice_s)
            silent_s = 0.0 if self._beats != heard or not heard else silent_s + slice_s

    async def stack(self, pid: int) -> str:
        """Where the threads of a silent child stand, in lines; empty when it does not say."""
        self._stack.clear()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, STACK_SIGNAL)
        told, pause_s = -1, STACK_PATIENCE_S / 4
        for _ in range(4):
            await asyncio.sleep(pause_s)
            if len(self._stack) == told:
                break
            told = len(self._stack) or -1
        return "\n".join(most_telling(self._stack))

    def _read(self) -> None:
        try:
            data = os.read(self._read_end, 65_536)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._read_end)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        if line == _BEAT:
            self._beats += 1
        elif line.startswith(_LEAVING):
            self.why = line.removeprefix(_LEAVING).decode(errors="replace")
            self.leaving.set()
        elif line and len(self._stack) < STACK_LINES_READ_MAX:
            self._stack.append(line.decode(errors="replace"))


def most_telling(lines: Sequence[str]) -> list[str]:
    """As many of the lines of stacks as are told: those of the current thread first, then those of
    the main one, where the loop runs, and which faulthandler prints last."""
    threads: list[list[str]] = []
    for line in lines:
        if not threads or not line.startswith(" "):
            threads.append([])
        threads[-1].append(line)
    main = threads[-1:]
    threads.sort(key=lambda thread: (not thread[0].startswith("Current"), thread not in main))
    return [line for thread in threads for line in thread][:STACK_LINES_MAX]
