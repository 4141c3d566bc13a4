"""For how long what ran out is left alone after an outage."""

import asyncio


class Grace:
    """The ledger was away: workers are as good as ever, and their heartbeats are on the way.

    An outage is told by its length, not by an error: most end before a call gives up. So all that
    counts is the time between two answers; and of an answer, when it was asked for, since it may
    have been on the way for as long as the outage.
    """

    def __init__(self, *, gap_s: float, grace_s: float) -> None:
        """Answers that lie more than `gap_s` apart begin a grace of `grace_s`; so does the first,
        which may come in the very moment in which an outage ends."""
        self._gap_s = gap_s
        self._grace_s = grace_s
        self._answered_at = self._over_at = float("-inf")

    def answered(self, asked_s: float) -> None:
        """To be called with each answer of the ledger, before anything is made of it; `asked_s` (of
        the loop) is when it was asked for."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._answered_at > self._gap_s:
            self._over_at = now_s + self._grace_s
        self._answered_at = max(asked_s, self._answered_at)

    def failed(self) -> None:
        """A call gave up: the next answer begins a grace, however soon it comes."""
        self._answered_at = float("-inf")

    @property
    def lasts(self) -> bool:
        return asyncio.get_running_loop().time() < self._over_at
