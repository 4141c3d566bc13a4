"""Where events are sent again: standard output, or a WebSocket; see `other_ledger` too."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Final, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidURI, WebSocketException

from api.replay.event_json import event_line
from ledger.store import Recorded

CONNECT_TIMEOUT_S: Final = 10.0
SEND_TIMEOUT_S: Final = 60.0
"""A receiver that takes nothing for so long is taken to be gone."""


class SinkFailed(Exception):
    """What events were sent to does not take them; says why."""


class Sink(Protocol):
    """Takes events, in order. `send` may raise SinkFailed."""

    async def send(self, events: Sequence[Recorded]) -> None:
        """Take these."""
        ...

    async def close(self) -> None:
        """Be done with it."""
        ...


class StandardOutput:
    """A line of JSON for each event."""

    async def send(self, events: Sequence[Recorded]) -> None:
        sys.stdout.write("".join([f"{event_line(event).decode()}\n" for event in events]))
        sys.stdout.flush()

    async def close(self) -> None:
        pass


class WebSocket:
    """The same line as a text message for each."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: ClientConnection | None = None

    async def send(self, events: Sequence[Recorded]) -> None:
        try:
            connection = self._connection or await self._connect()
            for event in events:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await connection.send(event_line(event).decode())
        except TimeoutError as error:
            raise SinkFailed(f"{self._url}: takes nothing, or does not answer") from error
        except (OSError, InvalidHandshake, InvalidURI, WebSocketException) as error:
            raise SinkFailed(f"{self._url}: {error}") from error

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _connect(self) -> ClientConnection:
        # What it has to say is of no interest, and must not be kept.
        self._connection = connection = await connect(
            self._url, open_timeout=CONNECT_TIMEOUT_S, max_queue=1
        )
        return connection
