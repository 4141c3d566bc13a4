"""The read model as requests use it: how far it must be, and what its answers say of that."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from api.errors import ApiError, Header, invalid
from api.exchange import Exchange
from api.lag import behind_ms
from ledger.rejections import RejectionCode
from ledger.settings import Settings
from ledger.store import Position, Store, parse_positions, positions_text
from projections.queries import Answer, ReadModels, Wanted
from projections.readers import Unavailable

Found = TypeVar("Found")

POSITIONS_EXPECTED: Final = "one position for each partition at most, separated by commas"
POSITION_HEADER: Final = b"ledger-position"


class ReadModel:
    """Asks the read model on behalf of requests. Made before anything of it is there."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self.models = ReadModels(settings.read_model_folder, settings.read_wait_ms)
        self._epoch = ""

    async def ask(
        self,
        exchange: Exchange,
        question: Callable[[ReadModels, Wanted], Awaitable[Answer[Found]]],
    ) -> tuple[Found, list[Header]]:
        """What was found, and the headers that go with it.

        Raises as `ask_after`.
        """
        return await self.ask_after(exchange.list_header(POSITION_HEADER), question)

    async def ask_after(
        self,
        sent: bytes | None,
        question: Callable[[ReadModels, Wanted], Awaitable[Answer[Found]]],
    ) -> tuple[Found, list[Header]]:
        """The same; `sent` is the Ledger-Position that the caller insists on.

        Raises ApiError: 400 for a malformed Ledger-Position, 503 when the read model cannot answer.
        """
        wanted = await self._wanted(sent)
        try:
            answer = await question(self.models, wanted)
        except Unavailable as error:
            raise ApiError(RejectionCode.SERVICE_UNAVAILABLE, str(error)) from error
        headers = [(POSITION_HEADER, positions_text(answer.seen).encode())]
        if not answer.level:
            seen = {position.partition: position for position in answer.seen}
            lag_ms = await behind_ms(self._store, seen, wanted.positions.values())
            headers.append((b"projection-lag", b"%d" % lag_ms))
        return answer.found, headers

    def insisted(self, sent: bytes | None) -> dict[int, Position]:
        """The positions that a header names. Raises ApiError."""
        if sent is None:
            return {}
        try:
            return parse_positions(sent.decode("latin-1"), self._store.partitions)
        except ValueError as error:
            raise invalid(
                "Ledger-Position", POSITIONS_EXPECTED, f"Ledger-Position: {error}"
            ) from None

    async def look(self, question: Callable[[sqlite3.Connection], Found]) -> Found:
        """What is found in the read model as it is now. Raises Unavailable, Rejection."""
        await self._learn_epoch()
        return await self.models.look(question)

    async def _wanted(self, sent: bytes | None) -> Wanted:
        insisted = self.insisted(sent)
        ends = await self._ends()
        if not insisted:
            return Wanted(ends)
        # The answer tells the position of every partition, those that nobody insists on too.
        beginnings = {p: Position(p, "0-0") for p in range(self._store.partitions)}
        return Wanted({**beginnings, **insisted}, insists=True)

    async def _ends(self) -> dict[int, Position]:
        await self._learn_epoch()
        partitions = range(self._store.partitions)
        found: Sequence[Position] = await asyncio.gather(
            *map(self._store.last_position, partitions)
        )
        return {position.partition: position for position in found}

    async def _learn_epoch(self) -> None:
        """A read model that was made from another ledger must not answer."""
        if not self._epoch:
            self._epoch = await self._store.epoch()
            self.models.expect(self._epoch)
