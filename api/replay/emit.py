"""Events one after the other, as far apart as they are to be."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence

from api.replay.pace import Pace
from ledger.codec import Undecodable, decode_meta
from ledger.events import AttemptFailed
from ledger.store import Recorded

Take = Callable[[Sequence[Recorded]], Awaitable[None]]


async def emit(pieces: AsyncGenerator[list[Recorded]], take: Take, pace: Pace) -> int:
    """Hand events to `take`: those together that were written at once, when they are due; how many
    that were. Raises as both do."""
    count = 0
    held: list[Recorded] = []
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            *whole, held = written_at_once([*held, *piece])
            count += await _emit_all(whole, take, pace)
    return count + await _emit_all([held] if held else [], take, pace)


async def _emit_all(groups: Sequence[list[Recorded]], take: Take, pace: Pace) -> int:
    if pace.unbounded:
        together = [event for group in groups for event in group]
        if together:
            await take(together)
        return len(together)
    for group in groups:
        await pace.reach(group[0].at)
        await take(group)
    return sum(map(len, groups))


def written_at_once(events: Sequence[Recorded]) -> Iterator[list[Recorded]]:
    """Runs of events of one task that one append wrote."""
    group: list[Recorded] = []
    for event in events:
        if group and not _belongs(event, group[-1]):
            yield group
            group = []
        group.append(event)
    if group:
        yield group


def _belongs(event: Recorded, before: Recorded) -> bool:
    if event.task_id != before.task_id:
        return False
    commit = _commit(event)
    # What becomes of a failed attempt is always said along with it.
    return commit == _commit(before) and (bool(commit) or before.type == AttemptFailed.__name__)


def _commit(event: Recorded) -> str:
    try:
        return decode_meta(event.meta).commit
    except Undecodable:
        return ""
