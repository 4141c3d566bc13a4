"""The life of a background role, written once: start, step again and again, stop."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from ledger.rejections import Rejection

log = structlog.get_logger("service")

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_CAP_S: Final = 5.0


class Service:
    """Runs `step` until told to stop.

    A step does one round of the role's work and returns how many seconds may pass before the next
    one; 0 means at once. While the ledger is out of reach, steps are tried with growing pauses;
    the outage is reported once, and its end once. Any other error ends the role: a fault of ours
    must be seen, not looped over.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[float]]) -> None:
        self._name = name
        self._step = step
        self._stopping = asyncio.Event()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """Let the step in hand be the last."""
        self._stopping.set()

    async def run(self) -> None:
        """Step until `stop` is called."""
        failures = 0
        while not self.stopping:
            try:
                pause_s = await self._step()
            except Rejection as rejection:
                if not rejection.retryable:
                    raise
                failures += 1
                if failures == 1:
                    log.warning("ledger_out_of_reach", role=self._name, reason=rejection.message)
                pause_s = backoff_s(failures)
            else:
                if failures:
                    log.info("ledger_back", role=self._name, failed_tries=failures)
                failures = 0
            if pause_s > 0:
                await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


def backoff_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling, capped, half of it by chance."""
    full = min(BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16), BACKOFF_CAP_S)
    return full * (0.5 + random.random() / 2)  # noqa: S311 - spreads retries
