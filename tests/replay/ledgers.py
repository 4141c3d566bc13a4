"""Ledgers that are gone through again."""

from collections.abc import AsyncIterator
from pathlib import Path

from api.replay.chosen import Chosen, Filters
from api.replay.span import Span, span_of
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.objects.local_folder import LocalFolder
from ledger.store import Recorded, Store


async def joined(store: Store, folder: Path) -> Joined:
    """A store, with an archive that is empty yet."""
    return Joined(store, Archive(LocalFolder(folder), await store.epoch(), store.partitions))


async def replayed(
    events: Joined,
    *,
    since: str | None = None,
    until: str | None = None,
    now_ms: int = 0,
    **filters: frozenset[str],
) -> list[Recorded]:
    """What is chosen, as one list."""
    span = await span_of(events, since, until, now_ms)
    return await listed(Chosen(events, span, Filters(**filters)).pieces())


async def listed(pieces: AsyncIterator[list[Recorded]]) -> list[Recorded]:
    return [event async for piece in pieces for event in piece]


async def all_of(events: Joined) -> Span:
    return await span_of(events, None, None, 0)
