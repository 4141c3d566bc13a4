"""A client of `/ws/tasks`."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect

PATIENCE_S: Final = 20


class Watching:
    """An open connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        assert socket.response is not None
        self.begun_at = socket.response.headers["Ledger-Position"]

    async def told(self) -> dict[str, Any]:
        """The next message. Raises ConnectionClosed at the end."""
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self.socket.recv())

    async def until(self, position: str) -> list[dict[str, Any]]:
        """All messages up to the one with that position."""
        found: list[dict[str, Any]] = []
        while not found or found[-1]["position"] != position:
            found.append(await self.told())
        return found

    async def several(self, count: int) -> list[dict[str, Any]]:
        """The next messages."""
        return [await self.told() for _ in range(count)]

    async def say(self, kind: str, task_id: str) -> None:
        """Subscribe or unsubscribe."""
        await self.socket.send(json.dumps({"type": kind, "task_id": task_id}))

    async def closed(self) -> tuple[int, str]:
        """Code and reason, once the server has closed."""
        async with asyncio.timeout(PATIENCE_S):
            await self.socket.wait_closed()
        assert self.socket.close_code is not None
        return self.socket.close_code, self.socket.close_reason or ""


def address(port: int, **query: str) -> str:
    return f"ws://127.0.0.1:{port}/ws/tasks?{urlencode(query)}"


@contextlib.asynccontextmanager
async def watching(port: int, **query: str) -> AsyncGenerator[Watching]:
    """A connection: what happens from now on is told."""
    async with connect(address(port, **query), proxy=None, max_queue=None) as socket:
        yield Watching(socket)
