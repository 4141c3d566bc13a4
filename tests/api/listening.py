"""A client of the live feed, as thin as can be: what it was told, line by line."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import httpx2
import msgspec

EVENTS: Final = "/api/v1/events"
PATIENCE_S: Final = 20


class Told(msgspec.Struct):
    """One block of the stream. `data` is None for one that tells nothing."""

    id: str = ""
    event: str = ""
    data: Any = None
    comment: str = ""


class Listening:
    """An open stream."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.last_id = ""
        self._blocks = _blocks(response.aiter_lines())

    async def block(self) -> Told:
        """The next block. Raises StopAsyncIteration at the end of the stream."""
        async with asyncio.timeout(PATIENCE_S):
            told = await anext(self._blocks)
        self.last_id = told.id or self.last_id
        return told

    async def event(self) -> Told:
        """The next event."""
        while True:
            told = await self.block()
            if told.data is not None:
                return told

    async def events(self, count: int) -> list[Told]:
        """The next events."""
        return [await self.event() for _ in range(count)]

    async def positions_until(self, position: str) -> list[str]:
        """Of all events up to that one."""
        found: list[str] = []
        while not found or found[-1] != position:
            found.append((await self.event()).data["position"])
        return found


@contextlib.asynccontextmanager
async def listening(
    web: httpx2.AsyncClient, last_id: str | None = None, **query: str
) -> AsyncGenerator[Listening]:
    """A stream whose beginning has arrived: what happens from now on is told."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    async with web.stream("GET", EVENTS, params=query, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        stream = Listening(response)
        await stream.block()
        yield stream


async def _blocks(lines: AsyncIterator[str]) -> AsyncIterator[Told]:
    told, data = Told(), list[str]()
    async for line in lines:
        name, _, value = line.partition(": ")
        match name:
            case "id":
                told.id = value
            case "event":
                told.event = value
            case "data":
                data.append(value)
            case "":
                if line:
                    told.comment = value
                    continue
                told.data = json.loads("\n".join(data)) if data else None
                yield told
                told, data = Told(), []
            case _:
                assert name == "retry", line
