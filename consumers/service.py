"""The life of a background role, written once: start, step again and again, stop."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from ledger.rejections import Rejection

log = structlog.get_logger("service")

Answer = TypeVar("Answer")

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_CAP_S: Final = 5.0


class Outage:
    """Whether the ledger is out of reach, as the roles that share it find: said once, and its end
    once, not by each of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._failing: set[str] = set()
        self._over_at_s = float("-inf")

    def met(self, role: str, reason: str, began_s: float) -> None:
        """A step of `role`, begun at `began_s` (s, of the loop), could not reach the ledger."""
        if began_s < self._over_at_s:
            return  # what it met was over before it gave up, or was no outage
        if not self._failing:
            log.warning("ledger_out_of_reach", role=self._name, reason=reason)
        self._failing.add(role)

    def over(self, role: str) -> None:
        """A step of `role` went well after one that did not."""
        if role not in self._failing:
            return
        self._failing.discard(role)
        if not self._failing:
            self._over_at_s = asyncio.get_running_loop().time()
            log.info("ledger_back", role=self._name)

    def stood_still(self) -> None:
        """The loop did, and calls that waited for an answer meanwhile may give up: the ledger is
        not to blame for that."""
        self._over_at_s = asyncio.get_running_loop().time()


class Service:
    """Runs `step` until told to stop.

    A step does one round of the role's work and returns how many seconds may pass before the next
    one; 0 means at once. While the ledger is out of reach, steps are tried with growing pauses;
    the outage is reported once, and its end once. Any other error ends the role: a fault of ours
    must be seen, not looped over.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[float]],
        *,
        outage: Outage | None = None,
        backoff_cap_s: float = BACKOFF_CAP_S,
    ) -> None:
        self._name = name
        self._step = step
        self._outage = outage or Outage(name)
        self._backoff_cap_s = backoff_cap_s
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
            began_s = asyncio.get_running_loop().time()
            try:
                pause_s = await self._step()
            except Rejection as rejection:
                if not rejection.retryable:
                    raise
                failures += 1
                self._outage.met(self._name, rejection.message, began_s)
                pause_s = min(backoff_s(failures), self._backoff_cap_s)
            else:
                if failures:
                    self._outage.over(self._name)
                failures = 0
            if pause_s > 0:
                await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def backoff_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling, capped, half of it by chance."""
    full = min(BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16), BACKOFF_CAP_S)
    return full * (0.5 + random.random() / 2)  # noqa: S311 - spreads retries


async def through_outages(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """What `call` answers: tried with growing pauses while the ledger is out of reach."""
    failures = 0
    while True:
        try:
            return await call()
        except Rejection as rejection:
            if not rejection.retryable:
                raise
            failures += 1
            await asyncio.sleep(backoff_s(failures))
