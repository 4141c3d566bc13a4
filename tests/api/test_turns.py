"""Uploads that arrive at once are read in turns."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import pytest

from api import turns
from api.turns import Turns

PATIENCE_S: Final = 10
PIECE: Final = b"x" * 100


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "TURNS_MAX", 1)


class Reading:
    """An upload that is read. What arrives of it, the test says."""

    def __init__(self, them: Turns) -> None:
        self.read = 0
        self._turns = them
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._noted = asyncio.Event()
        self.running = asyncio.create_task(self._run())

    def arrive(self, pieces: int) -> None:
        for _ in range(pieces):
            self._arrived.put_nowait(PIECE)

    async def end(self) -> None:
        self._arrived.put_nowait(None)
        async with asyncio.timeout(PATIENCE_S):
            await self.running

    async def until_read(self, pieces: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.read < pieces:
                self._noted.clear()
                await self._noted.wait()

    async def _body(self) -> AsyncIterator[bytes]:
        while (piece := await self._arrived.get()) is not None:
            yield piece

    async def _run(self) -> None:
        with self._turns.turn() as turn:
            async for _ in turn.pieces(self._body()):
                self.read += 1
                self._noted.set()
                await asyncio.sleep(0)  # others could be read meanwhile


async def test_one_is_read_to_its_end_before_the_next(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "IDLE_S", PATIENCE_S)
    them = Turns()
    first, second = Reading(them), Reading(them)
    first.arrive(3)
    second.arrive(3)

    await first.until_read(3)
    assert second.read == 0

    await first.end()
    await second.until_read(3)
    await second.end()


async def test_who_sends_nothing_keeps_nobody_waiting():
    them = Turns()
    silent, other = Reading(them), Reading(them)
    silent.arrive(1)
    await silent.until_read(1)

    other.arrive(2)
    await other.until_read(2)
    await other.end()

    silent.arrive(1)
    await silent.until_read(2)
    await silent.end()


async def test_who_has_much_lets_others_in_between(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "IDLE_S", PATIENCE_S)
    monkeypatch.setattr(turns, "TURN_BYTES", 2 * len(PIECE))
    them = Turns()
    large, small = Reading(them), Reading(them)
    large.arrive(10)
    small.arrive(1)

    await small.until_read(1)
    assert large.read == 2

    await small.end()
    await large.until_read(10)
    await large.end()


async def test_who_leaves_while_it_waits_or_is_called_takes_no_turn_along(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(turns, "IDLE_S", PATIENCE_S)
    them = Turns()
    with them.turn() as mine:
        await them.take(mine)
        waiting, called, last = (Reading(them) for _ in range(3))
        for reading in (waiting, called, last):
            reading.arrive(1)
            await asyncio.sleep(0)
        waiting.running.cancel()
        await asyncio.wait([waiting.running])
    # By the end of mine it was called, but has not gone on.
    called.running.cancel()

    await last.until_read(1)
    await last.end()
    assert (waiting.read, called.read) == (0, 0)
