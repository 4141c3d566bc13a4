"""What a `Retry-After` header says."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

_DELAY_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?")


def retry_after_s(text: str, now_s: float) -> float:
    """For how long it asks to wait (RFC 9110, 10.2.3); less than 0 for a date that is past. `now_s`
    are seconds since the epoch. 0 for what nobody can read: that says "later" all the same.
    """
    text = text.strip()
    if _DELAY_SECONDS.fullmatch(text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
        # The forms of old do not tell their zone, which is UTC.
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_s
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
