"""The events between two places of a partition's stream, a bounded number of bytes at a time."""

import contextlib
from collections.abc import AsyncGenerator

from ledger.script_format import read_events
from ledger.store import Events, Position, Recorded
from projections.catch_up import LedgerCutShort, read_ahead


async def events_up_to(events: Events, start: Position, end: str) -> AsyncGenerator[list[Recorded]]:
    """Those behind `start`, up to and with the entry `end`, as far as they are there; not what
    others wrote. Raises Rejection."""
    with contextlib.suppress(LedgerCutShort):
        async with contextlib.aclosing(read_ahead(events, start, end)) as reading:
            async for entries in reading:
                yield read_events(start.partition, entries)[0]
