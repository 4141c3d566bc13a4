"""Says once when a subscription does not go on, or holds back trimming for too long, and once when
that is over."""

import asyncio
from typing import Final

import structlog

from consumers.subscription_status import GroupStatus, followers
from ledger.subscriptions import Subscriptions

log = structlog.get_logger("scheduler")

LOOK_S: Final = 10.0
"""Between looks."""


class FollowersWatch:
    """`look` as often as is convenient."""

    def __init__(self, subscriptions: Subscriptions, hold_ms: int) -> None:
        """`hold_ms`: so old, an event is not held back for anybody."""
        self._subscriptions = subscriptions
        self._hold_ms = hold_ms
        self._look_at_s = float("-inf")
        self._said: set[tuple[str, str]] = set()
        """What was said of which group."""

    async def look(self) -> None:
        """Raises Rejection, ForeignKey, Undecodable."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_S
        found = await followers(self._subscriptions, self._hold_ms)
        for status in found.groups:
            self._say_overdue(status)
            if self._is_news("halted", status.name, bool(status.halted)) and status.halted:
                log.error("subscription_halted", group=status.name, reason=status.halted)
        names = {status.name for status in found.groups}
        self._said = {(what, name) for what, name in self._said if name in names}

    def _say_overdue(self, status: GroupStatus) -> None:
        if not self._is_news("overdue", status.name, status.overdue):
            return
        if status.overdue:
            log.error(
                "subscription_overdue",
                group=status.name,
                lag_events=status.lag_events,
                hold_s=self._hold_ms // 1_000,
                hint="trimming does not wait for it: let its members read on, or remove it with"
                " `ledgerq subscriptions remove` (XGROUP DESTROY, if others made it)",
            )
        else:
            log.info("subscription_in_time_again", group=status.name)

    def _is_news(self, what: str, name: str, holds: bool) -> bool:
        known = (what, name) in self._said
        if holds:
            self._said.add((what, name))
        else:
            self._said.discard((what, name))
        return known != holds
