"""Waiting until the read model has got to where the ledger is: one look-out for all who wait."""

import asyncio
import sqlite3
from collections.abc import Mapping
from typing import Final

from ledger.store import Position
from projections.read_model import BEGINNING, read_checkpoints
from projections.readers import Readers

PAUSE_MIN_S: Final = 0.002
PAUSE_MAX_S: Final = 0.02
PAUSE_GROWTH: Final = 1.3


def positions(db: sqlite3.Connection) -> dict[int, Position]:
    """How far the read model is, by partition; nothing of a partition that was not begun."""
    found = read_checkpoints(db)
    return {partition: Position(partition, point.entry) for partition, point in found.items()}


def reached(seen: Mapping[int, Position], wanted: Mapping[int, Position]) -> bool:
    """Whether nothing of `wanted` is still to come."""
    return all(
        end.order <= seen.get(partition, Position(partition, BEGINNING)).order
        for partition, end in wanted.items()
    )


class Level:
    """Looks at the checkpoints while somebody waits, and only then."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._waiting: dict[asyncio.Future[None], Mapping[int, Position]] = {}
        self._look_out: asyncio.Task[None] | None = None
        self._closed = False

    async def wait(self, wanted: Mapping[int, Position], seconds: float) -> None:
        """Return when the read model is at `wanted`, or time is up, or the service stops.

        Raises Unavailable.
        """
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        arrival: asyncio.Future[None] = loop.create_future()
        self._waiting[arrival] = wanted
        if self._look_out is None:
            self._look_out = loop.create_task(self._look(), name="read-model-level")
        try:
            await asyncio.wait([arrival], timeout=seconds)
        finally:
            del self._waiting[arrival]
        if arrival.done():
            arrival.result()

    async def close(self) -> None:
        """Let everybody go."""
        self._closed = True
        if self._look_out is not None:
            self._look_out.cancel()
            await asyncio.wait([self._look_out])
        for arrival in self._waiting:
            if not arrival.done():
                arrival.set_result(None)

    async def _look(self) -> None:
        pause_s = PAUSE_MIN_S
        try:
            while self._waiting:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * PAUSE_GROWTH, PAUSE_MAX_S)
                seen = await self._readers.ask(positions)
                for arrival, wanted in self._waiting.items():
                    if not arrival.done() and reached(seen, wanted):
                        arrival.set_result(None)
                        pause_s = PAUSE_MIN_S
        except Exception as error:
            for arrival in self._waiting:
                if not arrival.done():
                    arrival.set_exception(error)
        finally:
            self._look_out = None
