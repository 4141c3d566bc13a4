"""Estimates for whoever asks: what they rest on is kept in the process, and read again aside.

It is read once a second while somebody asks, and not at all while nobody does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

import structlog
from redis.exceptions import RedisError

from api.estimate import Load, completion_ms
from api.loads import Sample, keep, loads
from ledger.codec import Undecodable
from ledger.redis_store import ForeignKey
from ledger.rejections import Rejection
from ledger.store import Store, limit_share
from ledger.system.events import LimitScope
from ledger.task import Status, Task
from projections.figures import Figures
from projections.readers import Unavailable
from projections.starts import Start, running

log = structlog.get_logger("estimates")

REFRESH_S: Final = 1.0
IDLE_S: Final = 5.0
"""So long after the last question nothing is read any more."""

STALE_S: Final = 3.0
"""What is older is not used."""

STEP_MS: Final = 100
"""Estimates are rounded up to this: more would claim too much, and tasks share the text of their
times then."""

FIRST_WAIT_S: Final = 0.25
"""How long the first question waits for what it needs; then there is no estimate."""


class Estimates:
    """`of` a task; `close` in the end."""

    def __init__(
        self,
        store: Store,
        read_figures: Callable[[], Awaitable[Mapping[str, Figures]]],
        read_starts: Callable[[Sequence[str]], Awaitable[Mapping[str, Start]]],
    ) -> None:
        """`read_figures` and `read_starts` (of tasks with these ids) may raise Unavailable."""
        self._store = store
        self._read_figures = read_figures
        self._read_starts = read_starts
        self._samples: list[Sample] = []
        self._loads: Mapping[str, Load] = {}
        self._full: Collection[tuple[int, str]] = ()
        """Partitions and the knowledge bases that are at their limits there."""
        self._loaded_at = self._asked_at = float("-inf")
        self._loaded = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None
        self._failing = False
        self._closed = False

    async def of(self, task: Task, position: int) -> int | None:
        """When the task is likely to be completed (ms); None when that cannot be told."""
        if task.finished:
            return None
        load = (await self._current()).get(task.submission.task_type)
        if load is None or self._is_held_back(task):
            return None
        at = completion_ms(task, position, load, self._store.now_ms())
        return None if at is None else -(-at // STEP_MS) * STEP_MS

    async def close(self) -> None:
        """Read no more."""
        self._closed = True
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    def _is_held_back(self, task: Task) -> bool:
        """Whether it waits, and its knowledge base is at its limit: nobody knows for how long."""
        if task.status is Status.PROCESSING or not self._full:
            return False
        return (self._store.partition_of(task.id), task.submission.kb_id) in self._full

    async def _current(self) -> Mapping[str, Load]:
        loop = asyncio.get_running_loop()
        self._asked_at = loop.time()
        if self._refreshing is None and not self._closed:
            self._loaded.clear()
            self._refreshing = loop.create_task(self._refresh(), name="estimates")
        if self._closed or self._asked_at - self._loaded_at <= STALE_S:
            return self._loads
        try:
            async with asyncio.timeout(FIRST_WAIT_S):
                await self._loaded.wait()
        except TimeoutError:
            return {}
        return self._loads

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._loads = await self._load()
                self._loaded_at = loop.time()
                self._loaded.set()
                await asyncio.sleep(REFRESH_S)
                if loop.time() - self._asked_at > IDLE_S:
                    return
        finally:
            self._refreshing = None

    async def _load(self) -> Mapping[str, Load]:
        """What is known now; nothing while the ledger or the read model cannot be read."""
        try:
            workers, system = await asyncio.gather(self._store.workers(), self._store.load_system())
            sample = Sample(asyncio.get_running_loop().time(), await self._read_figures())
            ids = running(workers)
            starts = await self._read_starts(ids)
            full = await self._full_kbs(system.state.kb_limits)
        except (Rejection, ForeignKey, Undecodable, RedisError, Unavailable) as error:
            if not self._failing:
                log.warning("no_estimates", reason=str(error))
            self._failing, self._samples = True, []
            return {}
        self._failing, self._full = False, full
        self._samples = keep(self._samples, sample)
        return loads(self._samples, workers, starts, system.state)

    async def _full_kbs(self, limits: Mapping[str, int]) -> frozenset[tuple[int, str]]:
        partitions = range(self._store.partitions)
        names = list(limits)
        counts = await asyncio.gather(
            *(self._store.admitted(LimitScope.KB, names, partition) for partition in partitions)
        )
        return frozenset(
            (partition, name)
            for partition, admitted in zip(partitions, counts, strict=True)
            for name, n in zip(names, admitted, strict=True)
            if n >= limit_share(limits[name], len(partitions))
        )
