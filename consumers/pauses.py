"""Which task types are paused, as a worker knows it: it asks with each heartbeat."""

import asyncio
import contextlib
from collections.abc import Iterable

import structlog

from ledger.codec import Undecodable
from ledger.redis_store import ForeignKey
from ledger.store import Store

log = structlog.get_logger("worker")


class Pauses:
    """`learn` again and again; `in` tells whether a type is paused."""

    def __init__(self, store: Store, task_types: Iterable[str]) -> None:
        self._store = store
        self._task_types = frozenset(task_types)
        self._paused: frozenset[str] = frozenset()
        self._version = -1
        """Of what was learned last."""
        self._asked = asyncio.Event()
        self._news = asyncio.Event()
        self._ended = False
        self._told = False

    def __contains__(self, task_type: str) -> bool:
        return task_type in self._paused

    def __bool__(self) -> bool:
        return bool(self._paused)

    async def learn(self) -> None:
        """Ask whether anything has changed, and what. Raises Rejection while the ledger is out of
        reach; what was known stands then."""
        try:
            if await self._store.system_version() != self._version:
                system = await self._store.load_system()
                self._take(frozenset(system.state.paused) & self._task_types)
                self._version = system.version
        except (ForeignKey, Undecodable) as error:
            # Working goes before being told to stop.
            if not self._told:
                log.error("pauses_unreadable", reason=str(error))
            self._told = True
        self._asked.set()

    async def known(self) -> None:
        """Return once it is known what is paused, or `end` was called: who begins must not take
        what somebody has paused long ago."""
        await self._asked.wait()

    async def change(self, timeout_s: float) -> None:
        """Return when something else is paused, when `end` is called, or when time is up."""
        if self._ended:
            return
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    def end(self) -> None:
        """Let go whoever waits, for good."""
        self._ended = True
        self._asked.set()
        self._news.set()

    def _take(self, paused: frozenset[str]) -> None:
        if paused == self._paused:
            return
        self._paused = paused
        self._news.set()
        log.info("pauses_changed", paused=sorted(paused))
