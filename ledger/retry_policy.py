"""How long to wait before another attempt: exponential backoff with jitter."""

import msgspec


class RetryPolicy(msgspec.Struct, frozen=True):
    """Delays double from `base_ms` up to `cap_ms`; `spread` of each delay is left to chance.

    With spread 0.5, a delay of 8 s becomes anything from 4 s to 8 s, so that a thousand tasks
    failed by one outage do not come back in the same instant ("equal jitter", after M. Brooker,
    Exponential Backoff And Jitter, 2015).
    """

    base_ms: int = 1_000
    cap_ms: int = 300_000
    factor: float = 2.0
    spread: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.base_ms <= self.cap_ms:
            raise ValueError(
                f"retry policy: expected 0 <= base_ms <= cap_ms, got {self.base_ms}, {self.cap_ms}"
            )
        if self.factor < 1:
            raise ValueError(f"retry policy: factor must be at least 1, got {self.factor}")
        if not 0 <= self.spread <= 1:
            raise ValueError(f"retry policy: spread must be within 0 and 1, got {self.spread}")

    def delay_ms(self, retry_count: int, jitter: float) -> int:
        """Milliseconds to wait before retry number `retry_count` (1 = the first).

        `jitter` in [0, 1) is drawn by the caller, so that this stays a function.
        """
        # Past 2**64 the cap holds whatever the factor; the bound keeps the power finite.
        doublings = min(retry_count - 1, 64)
        full = min(self.base_ms * self.factor**doublings, self.cap_ms)
        return round(full * (1 - self.spread * jitter))


DEFAULT_RETRY_POLICY = RetryPolicy()
