"""How long to wait before another attempt: exponential backoff with jitter."""

import math
from typing import Any, Final

import msgspec

DELAY_MS_MAX: Final = 30 * 86_400_000
"""No attempt is put off for longer: not by a policy, not by a handler that asks for it."""

POSTPONEMENTS_MAX: Final = 1_000
"""How often a handler may put its task off without that being counted as a retry; from then on it
is. So a task that is always put off ends all the same."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """Delays grow by `factor` from `base_ms` to `cap_ms`; `spread` of each is left to chance.

    With spread 0.5, a delay of 8 s becomes anything from 4 s to 8 s, so that a thousand tasks
    failed by one outage do not come back in the same instant ("equal jitter", after M. Brooker,
    Exponential Backoff And Jitter, 2015).
    """

    base_ms: int = 1_000
    cap_ms: int = 300_000
    factor: float = 2.0
    spread: float = 0.5

    def __post_init__(self) -> None:
        _check_type(self, "base_ms", int, "a whole number of ms")
        _check_type(self, "cap_ms", int, "a whole number of ms")
        _check_type(self, "factor", int | float, "a number")
        _check_type(self, "spread", int | float, "a number")
        if not 0 <= self.base_ms <= self.cap_ms:
            raise ValueError(
                f"retry policy: expected 0 <= base_ms <= cap_ms, got {self.base_ms}, {self.cap_ms}"
            )
        if self.cap_ms > DELAY_MS_MAX:
            raise ValueError(
                f"retry policy: cap_ms must be at most {DELAY_MS_MAX} (30 days), got {self.cap_ms}"
            )
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"retry policy: factor must be at least 1, got {self.factor}")
        if not 0 <= self.spread <= 1:
            raise ValueError(f"retry policy: spread must be within 0 and 1, got {self.spread}")

    def delay_ms(self, retry_count: int, jitter: float) -> int:
        """Milliseconds to wait before retry number `retry_count` (1 = the first).

        `jitter` in [0, 1) is drawn by the caller, so that this stays a function.
        """
        try:
            full = min(self.base_ms * self.factor ** float(retry_count - 1), self.cap_ms)
        except OverflowError:
            full = self.cap_ms if self.base_ms else 0
        return round(full * (1 - self.spread * jitter))


def _check_type(policy: RetryPolicy, name: str, kind: Any, expected: str) -> None:
    value = getattr(policy, name)
    if not isinstance(value, kind):
        raise TypeError(f"retry policy: {name} must be {expected}, got {value!r}")


DEFAULT_RETRY_POLICY = RetryPolicy()

DEFAULT_CALLBACK_POLICY: Final = RetryPolicy(base_ms=5_000, cap_ms=3_600_000)
"""Of posts to a callback_url: ten within the first hour and a half, then one an hour or so."""

DEFAULT_CALLBACKS_LAST_MS: Final = 86_400_000
"""For how long they are tried."""
