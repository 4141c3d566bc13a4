"""Somebody who pauses and resumes types, and changes limits, while all goes on."""

import asyncio
from random import Random
from typing import Final

from ledger.codec import Meta
from ledger.rejections import Rejection
from ledger.store import Store
from ledger.system.commands import PauseQueue, RemoveLimit, ResumeQueue, SetLimit, SystemCommand
from ledger.system.events import LimitScope
from ledger.system.transact import transact_system
from tests.simulation.loop import Process
from tests.simulation.network import Fault, Link, Network
from tests.simulation.plan import KB_IDS, TASK_TYPES, Plan

META: Final = Meta(actor="operator")

WISHES: Final = 6
"""Of one run."""

TRIES_MAX: Final = 3
LIMIT_MAX: Final = 3


class Operator:
    """Does as the API does for its callers."""

    def __init__(self, plan: Plan, chance: Random, network: Network) -> None:
        self._link: Link | None = None
        self._plan = plan
        self._chance = chance
        self._network = network
        self.wishes_left = WISHES

    def on(self, _: Process, link: Link) -> "Operator":
        """The same one, in a new process after the old one was lost."""
        self._link = link
        return self

    async def run(self) -> None:
        """Wish for one thing after the other."""
        while self.wishes_left:
            await asyncio.sleep(self._chance.random() * 2 * self._plan.faults_s / WISHES)
            if not self.wishes_left:
                return
            self.wishes_left -= 1
            await self._wish()

    def stop(self) -> None:
        """Have no wishes any more."""
        self.wishes_left = 0

    async def _wish(self) -> None:
        kinds = self._plan.changes
        kind = kinds[int(self._chance.random() * len(kinds))]
        self._network.inject(kind, None)
        command = self._pause() if kind is Fault.PAUSES else self._limit()
        for _ in range(TRIES_MAX):
            try:
                done = await transact_system(self._store, command, META)
                await self._store.spread_limits(done.system, done.before)
                return
            except Rejection as rejection:
                if not rejection.retryable:
                    raise
                await asyncio.sleep(self._chance.random() * 0.3)

    def _pause(self) -> SystemCommand:
        task_type = TASK_TYPES[int(self._chance.random() * len(TASK_TYPES))]
        return PauseQueue(task_type) if self._chance.random() < 0.6 else ResumeQueue(task_type)

    def _limit(self) -> SystemCommand:
        chance = self._chance.random
        scope = LimitScope.TYPE if chance() < 0.5 else LimitScope.KB
        names = TASK_TYPES if scope is LimitScope.TYPE else KB_IDS
        name = names[int(chance() * len(names))]
        if chance() < 0.25:
            return RemoveLimit(scope, name)
        return SetLimit(scope, name, 1 + int(chance() * LIMIT_MAX))

    @property
    def _store(self) -> Store:
        assert self._link is not None
        return self._link.store
