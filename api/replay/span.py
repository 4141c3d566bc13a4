"""From where to where events are read: what a person says of it, and what that means."""

from collections.abc import Mapping
from typing import Final

import msgspec

from api.wire import parse_moment
from ledger.archive.joined import BEGINNING, Joined
from ledger.store import Position, Recorded, parse_positions
from ledger.subscriptions import entry_before

FAR_MS: Final = 3_600_000
"""An event is written no longer after it happened, nor before it, as clocks go: outages and clocks
that went wrong included. Entries that are farther from a moment are not even read for it."""

LAST: Final = (1 << 64) - 1

EXPECTED: Final = (
    "a time such as 2026-11-05T08:30:00Z, an age such as 15m, or a position such as"
    " 0:1763811000123-0 (several separated by commas, one for each partition)"
)


class Span(msgspec.Struct, frozen=True):
    """Events behind `starts`, up to and with `ends`, by partition; of those, the ones that happened
    from `since_ms` to `until_ms`."""

    starts: Mapping[int, Position]
    ends: Mapping[int, Position]
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing is left out before its end."""
        return self.since_ms is None and all(at.entry == BEGINNING for at in self.starts.values())

    def cut(self, events: list[Recorded]) -> list[Recorded]:
        """Those that happened in time."""
        since, until = self.since_ms, self.until_ms
        if since is None and until is None:
            return events
        return [
            event
            for event in events
            if (since is None or event.at >= since) and (until is None or event.at <= until)
        ]


async def span_of(events: Joined, since: str | None, until: str | None, now_ms: int) -> Span:
    """What lies from `since` (the beginning) to `until` (the end, as it is now), both included.

    Of partitions that no position is named for, what was written in the same time. Raises
    ValueError, saying what was expected; and as Joined.
    """
    partitions = range(events.partitions)
    ends = {p: await events.last_position(p) for p in partitions}
    starts = {p: Position(p, BEGINNING) for p in partitions}
    since_ms = until_ms = None
    if since is not None and since != "beginning":
        found = _parsed("from", since, events.partitions, now_ms)
        if isinstance(found, int):
            since_ms = found
            starts = {p: Position(p, f"{max(found - FAR_MS, 0)}-0") for p in partitions}
        else:
            first_ms = min(position.order[0] for position in found.values())
            named = {p: found.get(p, Position(p, f"{first_ms}-0")) for p in partitions}
            starts = {p: Position(p, entry_before(at.entry)) for p, at in named.items()}
    if until is not None and until != "now":
        found = _parsed("until", until, events.partitions, now_ms)
        if isinstance(found, int):
            until_ms = found
            last = {p: Position(p, f"{max(found + FAR_MS, 0)}-{LAST}") for p in partitions}
        else:
            last_ms = max(position.order[0] for position in found.values())
            last = {p: found.get(p, Position(p, f"{last_ms}-{LAST}")) for p in partitions}
        ends = {p: min(at, last[p], key=lambda each: each.order) for p, at in ends.items()}
    if since_ms is not None and until_ms is not None and since_ms > until_ms:
        raise ValueError(f"--from {since} is after --until {until}: nothing lies between them")
    return Span(starts, ends, since_ms, until_ms)


def _parsed(name: str, text: str, partitions: int, now_ms: int) -> int | dict[int, Position]:
    """A moment in ms, or positions by partition."""
    try:
        if _is_position(text):
            return parse_positions(text, partitions)
        first, last = parse_moment(text, now_ms)
        return last if name == "from" else first
    except ValueError as error:
        told = error if _is_position(text) else f"expected {EXPECTED}, got {text[:80]!r}"
        raise ValueError(f"--{name}: {told}") from None


def _is_position(text: str) -> bool:
    return ":" in text and "T" not in text and " " not in text.strip()
