"""Removes uploaded files that came to no task: what is left where an API process was killed between
storing a file and submitting its task, or could not find out whether it was submitted.

An object belongs to the task whose id is in its key, and to it only if the task's payload names it.
No upload takes longer than `upload_timeout_s`; so an object that is older by far, and has no such
task, will never have one. Any number of schedulers may look: deleting twice does no harm.

Only the ledger that a file was uploaded to can tell. Its epoch is in the key, so another ledger on
the same store, or an empty server in place of the one that was, never looks at it.

This goes by the ledger alone, which has every task that there is. Once tasks leave it (for an
archive), they must not do so within DAYS: older objects are never looked at.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import structlog

from consumers.meters import Meter
from consumers.service import Service
from ledger.codec import Undecodable
from ledger.objects import Listed, ObjectStore, ObjectStoreError, task_of
from ledger.objects.keys import day_prefix
from ledger.settings import Settings
from ledger.store import Store
from ledger.task import Task

log = structlog.get_logger("orphans")

EVERY_S: Final = 600.0
DAYS: Final = 7
"""How far back a process looks that has just started."""

LOADS_MAX: Final = 100
"""Tasks that are asked for at once."""

CLOCKS_APART: Final = timedelta(hours=1)
"""More than the clocks of the store and of this machine can be."""


class _Payload(msgspec.Struct, frozen=True):
    file_path: str = ""


_payload_of = msgspec.json.Decoder(_Payload).decode


def oldest_upload(settings: Settings) -> timedelta:
    """What is older can belong to no upload that still runs."""
    return 2 * timedelta(seconds=settings.upload_timeout_s) + CLOCKS_APART


class Orphans:
    """A role: `service.run()`, to be cancelled whenever one likes."""

    def __init__(
        self, store: Store, objects: ObjectStore, meter: Meter, *, older_than: timedelta
    ) -> None:
        self._store = store
        self._objects = objects
        self._meter = meter
        self._older_than = older_than
        self._looked_until = datetime.now(UTC) - timedelta(days=DAYS)
        """What was stored before was looked at, and stays."""
        self._failing = False
        self.service = Service("orphans", self.step)

    async def step(self) -> float:
        """Look once; seconds until the next time."""
        until = datetime.now(UTC) - self._older_than
        try:
            removed = await self._sweep(until)
        except ObjectStoreError as error:
            if not self._failing:
                log.warning("object_store_failed", reason=str(error))
            self._failing = True
            return EVERY_S
        self._failing = False
        self._looked_until = until
        if removed:
            log.info("orphans_removed", count=removed)
        return EVERY_S

    async def _sweep(self, until: datetime) -> int:
        removed, epoch = 0, await self._store.epoch()
        day = (self._looked_until - timedelta(days=1)).date()
        while day <= until.date():
            async for page in self._objects.listed(day_prefix(epoch, day)):
                found = [o for o in page if self._looked_until <= o.modified < until]
                for start in range(0, len(found), LOADS_MAX):
                    removed += await self._remove_orphans(epoch, found[start : start + LOADS_MAX])
            day += timedelta(days=1)
        return removed

    async def _remove_orphans(self, epoch: str, objects: Sequence[Listed]) -> int:
        belong = await asyncio.gather(*(self._belongs(each.key) for each in objects))
        orphans = [each.key for each, kept in zip(objects, belong, strict=True) if not kept]
        # Asked last: if another ledger has taken its place, it may have been what answered.
        if orphans and await self._store.epoch() != epoch:
            return 0
        for key in orphans:
            await self._objects.delete(key)
            log.info("orphan_removed", key=key)
        self._meter.orphans_removed(len(orphans))
        return len(orphans)

    async def _belongs(self, key: str) -> bool:
        """Whether a task has the object, or it is none of ours."""
        task_id = task_of(key)
        if task_id is None:
            return True
        try:
            task = await self._store.load(task_id)
        except Undecodable:
            return True
        return task is not None and _has(task, key)


def _has(task: Task, key: str) -> bool:
    try:
        return _payload_of(task.submission.payload).file_path == key
    except msgspec.MsgspecError:
        return False
