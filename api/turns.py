"""Whose bytes are read, of many uploads that arrive at once.

Were all read side by side, all would come to their end together: the disk would have nothing to do
before, the processor nothing after. In turns, the first are synced and submitted while others are
read, and who waits holds one piece in memory. A turn ends with the body; where others wait also
after TURN_BYTES, and when its caller sends nothing: nobody waits for one who is slow.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Generator
from typing import Final

TURNS_MAX: Final = 24
"""Fewer leave less work at a time for the ledger to take together; more only take memory."""

TURN_BYTES: Final = 4 * 1024 * 1024

IDLE_S: Final = 0.02
"""Without bytes for so long, a turn is given to one who waits with some."""


class Turns:
    """Of the uploads of a process. It belongs to one event loop."""

    def __init__(self) -> None:
        self._held: set[Turn] = set()
        self._waiting: deque[Turn] = deque()
        self._clock: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def turn(self) -> Generator["Turn"]:
        """For one upload, as long as it is read."""
        turn = Turn(self)
        try:
            yield turn
        finally:
            self._leave(turn)

    async def take(self, turn: "Turn") -> None:
        """Return when it is this one's turn."""
        if turn in self._held:
            if not self._waiting or turn.bytes_left > 0:
                return
            self._held.remove(turn)
        turn.called = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._call()
        await turn.called

    def _leave(self, turn: "Turn") -> None:
        if turn in self._held:
            self._held.remove(turn)
            self._call()
        elif turn in self._waiting:
            self._waiting.remove(turn)

    def _call(self) -> None:
        """Those whose turn it is."""
        while self._waiting and len(self._held) < TURNS_MAX:
            turn = self._waiting.popleft()
            turn.bytes_left = TURN_BYTES
            self._held.add(turn)
            if not turn.called.done():  # else it was cancelled, and is about to leave
                turn.called.set_result(None)
        if self._waiting and self._clock is None:
            self._clock = asyncio.get_running_loop().call_later(IDLE_S, self._look)

    def _look(self) -> None:
        self._clock = None
        before_s = asyncio.get_running_loop().time() - IDLE_S
        self._held = {turn for turn in self._held if turn.idle_since_s > before_s}
        self._call()


class Turn:
    """One upload's."""

    def __init__(self, turns: Turns) -> None:
        self.called: asyncio.Future[None]
        self.bytes_left = 0
        self.idle_since_s = float("inf")
        """When it began to wait for its caller; infinite while there are bytes of it in work."""
        self._turns = turns

    async def pieces(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same, each when it is this one's turn."""
        clock = asyncio.get_running_loop().time
        async for piece in body:
            self.idle_since_s = float("inf")
            await self._turns.take(self)
            self.bytes_left -= len(piece)
            yield piece
            self.idle_since_s = clock()
