"""A ledger with an archive, whose time can be moved on, and its letting go."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from msgspec import Raw

from consumers.meters import Meter
from consumers.retention_status import Terms
from consumers.trimming import Trimming
from ledger.archive.evicted import EvictedTasks
from ledger.archive.reader import Archive
from ledger.commands import CompleteTask, FailAttempt, StartTask, SubmitTask
from ledger.events import ErrorKind
from ledger.keys import PartitionKeys
from ledger.objects.local_folder import LocalFolder
from ledger.redis_store import RedisStore, StoreOptions
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.store import Position, Recorded
from ledger.task import Task
from ledger.transact import transact
from tests.archives import seal
from tests.given import a_submission

KEYS: Final = PartitionKeys(0)
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
GENERATION: Final = 7


class LaterStore(RedisStore):
    """A store whose clock was moved on: events stay as old as the server makes them."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


class LettingGo:
    """`seal` what there is, `pass_time`, and `let_go` of what is old."""

    def __init__(self, store: LaterStore, folder: Path, terms: Terms) -> None:
        self.store = store
        self.subscriptions = RedisSubscriptions(store.client, store.partitions, 5_000)
        self.meter = Meter()
        self.terms = terms
        self.archive: Archive | None = None
        self._folder = folder
        self._sealed: list[Recorded] = []

    async def seal(self, **fields: str | int) -> None:
        """All that the ledger has, as an archiver would note it; `fields` are noted too."""
        store, sealed = self.store, self._sealed
        behind = sealed[-1].position if sealed else Position(0, "0-0")
        sealed += await store.events_after(behind, 10_000, 0)
        self.archive = archive = Archive(LocalFolder(self._folder), await store.epoch(), 1)
        await seal(archive.objects, sealed, epoch=archive.epoch)
        noted = {"generation": GENERATION, "entry": sealed[-1].position.entry, **fields}
        for field, value in {**noted, "size": len(sealed)}.items():
            await store.client.hset(KEYS.archive, field, str(value))
        if store.past is None:
            store.past = EvictedTasks(archive, store.epoch)

    async def lose_archive(self, *, trimmed: bool) -> None:
        """It is begun anew with the next seal, from where the stream begins; `trimmed`: that is
        behind all that there is now."""
        self._sealed = []
        shutil.rmtree(self._folder)
        if trimmed:
            await self.store.client.xtrim(KEYS.events, maxlen=0, approximate=False)

    async def let_go(self, generation: int | None = GENERATION) -> None:
        """Until there is nothing more to let go of now."""
        trimming = self._trimming(generation)
        while await trimming.step() == 0:
            pass

    async def step(self) -> float:
        """Let go of some; seconds until there may be more."""
        return await self._trimming(GENERATION).step()

    def _trimming(self, generation: int | None) -> Trimming:
        assert self.archive is not None
        return Trimming(
            self.store,
            self.subscriptions,
            self.archive,
            self.terms,
            lambda _: generation,
            self.meter,
        )

    def pass_time(self, ms: int) -> None:
        self.store.ahead_ms += ms

    async def is_in_memory(self, task: Task) -> bool:
        return bool(await self.store.client.exists(KEYS.task(task.id)))


async def opened(url: str) -> AsyncIterator[LaterStore]:
    """Of an empty server."""
    store = await LaterStore.open(url, StoreOptions())
    yield store
    await store.close()


async def submitted(store: RedisStore, task_id: str, **fields: object) -> Task:
    submission = a_submission(**fields)  # type: ignore[arg-type]
    return (await transact(store, task_id, SubmitTask(submission), known=None)).task


async def started(store: RedisStore, task_id: str, **fields: object) -> Task:
    task = await submitted(store, task_id, **fields)
    return (await transact(store, task.id, StartTask(1, "w1", 60_000))).task


async def completed(store: RedisStore, task_id: str, **fields: object) -> Task:
    task = await started(store, task_id, **fields)
    return (await transact(store, task.id, CompleteTask(1, Raw(b'{"n":1}')))).task


async def failed(store: RedisStore, task_id: str, **fields: object) -> Task:
    task = await started(store, task_id, **fields)
    command = FailAttempt(1, "no such file", ErrorKind.PERMANENT)
    return (await transact(store, task.id, command)).task
