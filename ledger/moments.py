"""Moments as others write them."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999. No event happens after that, nor before EPOCH."""


@lru_cache(maxsize=4096)
def moment_text(ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC, e.g. `2026-11-22T09:30:00.123Z`.

    Raises OverflowError outside the years 1 to 9999. Cached: under load many tasks share theirs.
    """
    second, fraction = divmod(ms, 1000)
    return f"{(EPOCH + timedelta(seconds=second)).isoformat()[:19]}.{fraction:03d}Z"
