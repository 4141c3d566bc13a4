"""When a call is made again, and when no more."""

import random
from collections.abc import Callable
from typing import Final

import msgspec

from api.client.errors import LedgerqError, Unavailable, UnexpectedAnswer, Unreachable

RETRY_AFTER_MAX_S: Final = 30.0
"""A service that wants to be left alone for longer is told of to the caller, at once."""

GATEWAY_ERRORS: Final = frozenset({429, 502, 503, 504})
"""What proxies answer while there is no service behind them."""


class Retries(msgspec.Struct, frozen=True):
    """How often a call is made at most, and the pauses between: each twice the last one, up to
    `pause_max_s`, and by chance up to a half shorter, so that callers spread."""

    calls_max: int = 8
    pause_first_s: float = 0.2
    pause_max_s: float = 5.0

    def pause_s(
        self, calls: int, error: LedgerqError, chance: Callable[[], float] = random.random
    ) -> float | None:
        """How long to wait before the next call when the one of this number went wrong; None: do
        not make it."""
        asked_s = error.retry_after_s or 0.0
        if calls >= self.calls_max or not passes(error) or asked_s > RETRY_AFTER_MAX_S:
            return None
        return max(asked_s, self.backoff_s(calls, chance))

    def backoff_s(self, failures: int, chance: Callable[[], float] = random.random) -> float:
        """The pause after so many failures in a row."""
        full_s = min(self.pause_first_s * 2.0 ** min(failures - 1, 16), self.pause_max_s)
        return full_s * (0.5 + chance() / 2)


def passes(error: LedgerqError) -> bool:
    """Whether the same call may well work a little later."""
    match error:
        case Unreachable() | Unavailable():
            return True
        case UnexpectedAnswer():
            return error.status in GATEWAY_ERRORS
        case _:
            return False
