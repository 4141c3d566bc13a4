"""Make another read model in the shadow of the live one, and put it in its place.

The live one serves, and goes on being written, until the other is level with it.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Collection, Generator, Mapping
from pathlib import Path
from typing import Final

import structlog

from ledger.store import Events
from projections import retention, sqlite
from projections.catch_up import bring_level, still_there
from projections.fold import GO_ON_HINT, Poison
from projections.model_files import ModelFiles
from projections.read_model import ReadModel, read_checkpoints, read_fact, transaction

log = structlog.get_logger("projections")

NEAR_EVENTS: Final = 5_000
"""How far apart the two may be for the live one to be held up while the other draws level."""


class Rebuild:
    """One file in the making. `build`, again after an outage; then `swap`, or `discard`."""

    def __init__(
        self,
        files: ModelFiles,
        ledger: Events,
        *,
        skipped: Collection[str] = (),
        progress: Callable[[int], None] = lambda events: None,
    ) -> None:
        """Whoever makes one holds the REBUILD_LOCK until the end. `progress` is told of events
        taken."""
        self._files = files
        self._ledger = ledger
        self._skipped = skipped
        self._progress = progress
        self._path: Path | None = None
        self._model: ReadModel | None = None
        self._loaded = False

    @property
    def model(self) -> ReadModel:
        """What is being built."""
        assert self._model is not None  # noqa: S101 - `build` was called
        return self._model

    async def build(self, ends: Mapping[int, str] | None = None) -> None:
        """Read the whole ledger, or up to the entries `ends` and no further, and make the indexes.
        Called again, after a Rejection or with later ends, it goes on where it was.

        Raises as `bring_level`.
        """
        if self._model is None:
            await self._begin()
        await self._bring_level(ends)
        if not self._loaded:
            await self._finish()
            self._loaded = True
        await self.forget_finished_before(retention.evicted_before(self.model.db))

    async def forget_finished_before(self, at_ms: int) -> None:
        """Let those tasks go that the live read model has let go of."""
        left = 1
        while left:
            left = self.model.evict(at_ms)
            await asyncio.sleep(0)

    async def end_at(self, poison: Poison) -> None:
        """Make do with what came before an event that cannot be read; the rest stops there."""
        self.model.commit()
        self.model.stop_all(str(poison.position), f"{poison}; {GO_ON_HINT}")
        await self._finish()
        self._loaded = True

    async def swap(self) -> Path:
        """Draw level with the live read model, and take its place; returns the file.

        Raises as `bring_level`, and FileNotFoundError when somebody took the file away.
        """
        live = self._files.current()
        if not self.model.stopped:
            await self._draw_near(live)
        await self.forget_finished_before(_evicted_before(live))
        with _held(live) as db:
            if db is not None:
                if not self.model.stopped:
                    await self._bring_level(await ends_of(db, self._ledger))
                # It may have let go of more tasks meanwhile.
                await self.forget_finished_before(_read_evicted_before(db))
            path = self._close()
            self._files.install(path)
        return path

    def discard(self) -> None:
        """Remove what was made, if it is not in its place."""
        if self._model is not None:
            self._model.db.interrupt()
            self._model.db.close()
            self._model = None
        if self._path is not None:
            self._files.remove(self._path)
            self._path = None

    async def _begin(self) -> None:
        self._files.remove_others()
        epoch, partitions = await self._ledger.epoch(), self._ledger.partitions
        self._path = self._files.next_path()
        db = sqlite.create(self._path)
        self._model = ReadModel(db, partitions=partitions, epoch=epoch, skipped=self._skipped)
        # What left the live one is not taken in again.
        with transaction(db):
            retention.set_evicted_before(db, _evicted_before(self._files.current()))

    async def _finish(self) -> None:
        making = asyncio.get_running_loop().run_in_executor(None, sqlite.finish, self.model.db)
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            self.model.db.interrupt()
            await asyncio.wait([making])
            raise

    async def _bring_level(self, ends: Mapping[int, str] | None = None) -> None:
        await bring_level(self.model, self._ledger, ends, self._progress)

    async def _draw_near(self, live: Path | None) -> None:
        """Catch up without holding anybody up, until little is left."""
        while True:
            before = self.model.events
            await self._bring_level()
            if live is None or self.model.events - before <= NEAR_EVENTS:
                return

    def _close(self) -> Path:
        assert self._path is not None  # noqa: S101 - `build` was called
        db = self.model.db
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        self._model = None
        return self._path


async def ends_of(live: sqlite3.Connection, ledger: Events) -> dict[int, str] | None:
    """How far a read model came, by partition; None when that is no part of this ledger, or cannot
    be read."""
    try:
        epoch, checkpoints = read_fact(live, "epoch"), read_checkpoints(live)
    except sqlite3.Error:
        return None
    if epoch != await ledger.epoch():
        return None
    for partition, checkpoint in checkpoints.items():
        if not await still_there(ledger, partition, checkpoint):
            return None
    return {partition: checkpoint.entry for partition, checkpoint in checkpoints.items()}


@contextlib.contextmanager
def _held(live: Path | None) -> Generator[sqlite3.Connection | None]:
    """The live read model, locked so that nobody writes to it; None when it cannot be had, since
    there is none, or what there is is damaged or not in this version's shape."""
    if live is None:
        yield None
        return
    try:
        db = sqlite.open_writer(live)
    except (sqlite.Damaged, sqlite3.Error):
        yield None
        return
    try:
        db.execute("BEGIN IMMEDIATE")
        locked = True
    except sqlite3.DatabaseError:
        locked = False
    try:
        yield db if locked else None
    finally:
        db.close()


def _evicted_before(live: Path | None) -> int:
    if live is None:
        return 0
    try:
        with contextlib.closing(sqlite.open_writer(live)) as db:
            return _read_evicted_before(db)
    except (sqlite.Damaged, sqlite3.Error):
        return 0


def _read_evicted_before(live: sqlite3.Connection) -> int:
    """0 when it cannot be read: another version's file may be of any shape."""
    try:
        return retention.evicted_before(live)
    except (sqlite3.Error, ValueError):
        return 0
