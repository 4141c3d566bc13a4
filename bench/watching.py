"""The clients of the live feed's bench, all in one process: what each was told, and when."""

import asyncio
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ledger.codec import decode_event
from ledger.events import TaskSubmitted
from ledger.store import Position, Recorded, Store

KB_IDS: Final = tuple(f"bench-{number}" for number in range(100))
CONNECTING_AT_ONCE: Final = 50
PATIENCE_S: Final = 60
EVENTS_AT_ONCE: Final = 1_000


class Update(msgspec.Struct):
    """What a client looks at in a message."""

    position: str


_decode = msgspec.json.Decoder(Update).decode


class Client:
    """One client of one knowledge base, which resumes after the last position that it was told."""

    def __init__(self, url: str, kb_id: str) -> None:
        self.kb_id = kb_id
        self.told: list[tuple[str, float]] = []
        """Position, and the time of day in ms."""
        self._url = f"{url.replace('http', 'ws', 1)}/ws/tasks?kb_id={kb_id}"
        self._after = ""
        self._socket: ClientConnection | None = None

    async def connect(self) -> None:
        url = f"{self._url}&after={self._after}" if self._after else self._url
        self._socket = await connect(
            url, proxy=None, compression=None, max_queue=None, ping_interval=None, open_timeout=60
        )
        assert self._socket.response is not None
        self._after = self._after or self._socket.response.headers["Ledger-Position"]

    async def run(self) -> None:
        """Take what is told, for ever, however often the connection is cut."""
        while True:
            assert self._socket is not None
            with contextlib.suppress(ConnectionClosed):
                while True:
                    message = await self._socket.recv()
                    self._after = _decode(message).position
                    self.told.append((self._after, time.time() * 1_000))
            await self.connect()

    def cut(self) -> None:
        """Cut the connection, without a goodbye."""
        assert self._socket is not None
        self._socket.transport.abort()

    async def until(self, position: str) -> None:
        """Return once that was told."""
        while not self.told or _order(self.told[-1][0]) < _order(position):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Outcome(msgspec.Struct):
    """Of all clients together."""

    waits_ms: list[float]
    lost: int
    doubled: int


async def connected(url: str, count: int) -> list[Client]:
    """So many clients, as many of each knowledge base."""
    clients = [Client(url, KB_IDS[number % len(KB_IDS)]) for number in range(count)]
    for start in range(0, count, CONNECTING_AT_ONCE):
        wave = clients[start : start + CONNECTING_AT_ONCE]
        await asyncio.gather(*(client.connect() for client in wave))
    return clients


def cut_within(clients: Sequence[Client], seconds: float, cuts: int) -> None:
    """Cut each connection so often, at times left to chance."""
    loop = asyncio.get_running_loop()
    for client in clients:
        for _ in range(cuts):
            loop.call_later(random.uniform(0.1, 0.9) * seconds, client.cut)  # noqa: S311


async def compared(store: Store, clients: Sequence[Client], began_at: Position) -> Outcome:
    """What the clients were told, beside what the ledger holds. Waits for what is on its way."""
    happened = await _by_kb(store, began_at)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            ends = [(c, happened[c.kb_id][-1]) for c in clients if happened[c.kb_id]]
            await asyncio.gather(*(client.until(str(end.position)) for client, end in ends))
    outcome = Outcome([], 0, 0)
    for client in clients:
        at = {str(event.position): event.at for event in happened[client.kb_id]}
        positions = [position for position, _ in client.told]
        outcome.lost += len(at.keys() - set(positions))
        outcome.doubled += len(positions) - len(set(positions))
        outcome.waits_ms += (round(ms - at[position], 2) for position, ms in client.told)
    return outcome


async def _by_kb(store: Store, position: Position) -> dict[str, list[Recorded]]:
    happened: dict[str, list[Recorded]] = defaultdict(list)
    kb_of: dict[str, str] = {}
    while events := await store.events_after(position, EVENTS_AT_ONCE, 1):
        position = events[-1].position
        for event in events:
            if event.type == TaskSubmitted.__name__:
                submitted = decode_event(event.type, event.data)
                assert isinstance(submitted, TaskSubmitted)
                kb_of[event.task_id] = submitted.kb_id
            happened[kb_of[event.task_id]].append(event)
    return happened


def _order(position: str) -> tuple[int, int]:
    return Position.parse(position).order
