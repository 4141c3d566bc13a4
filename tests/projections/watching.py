"""A projector driven step by step, and what it made, seen as a reader sees it."""

import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

from ledger.store import Events, Store
from projections.model_files import ModelFiles
from projections.projector import Projector, ProjectorOptions
from projections.sqlite import open_reader
from tests.projections.tables import tables_of

STEPS_MAX = 2_000
"""More than anything here takes: a projector that does not get there fails its test."""


class Watched:
    """A projector and its folder."""

    def __init__(
        self, store: Store, options: ProjectorOptions, events: Events | None = None
    ) -> None:
        self.projector = Projector(store, options, events)
        self.files = ModelFiles(options.folder)
        self._store = store

    async def level(self) -> None:
        """Step until everything that is in the ledger now is in the read model."""
        ends = [await self._store.last_position(p) for p in range(self._store.partitions)]
        wanted = {end.partition: end.entry for end in ends if end.entry != "0-0"}
        await self.until(lambda db: dict(db.execute(_CHECKPOINTS)) == wanted)

    async def until(self, seen: Callable[[sqlite3.Connection], bool]) -> None:
        """Step until the live read model is as wanted."""
        for _ in range(STEPS_MAX):
            with contextlib.suppress(sqlite3.Error), self.live() as db:
                if seen(db):
                    return
            await self.projector.step()
        raise AssertionError(f"not seen after {STEPS_MAX} steps")

    async def stopped(self) -> dict[str, str]:
        """Step until `tasks` is stopped; the reasons by projection."""
        await self.until(lambda db: "tasks" in reasons(db))
        with self.live() as db:
            return reasons(db)

    @contextlib.contextmanager
    def live(self) -> Generator[sqlite3.Connection]:
        """A connection of a reader."""
        path = self.files.current() or self.files.folder / "none yet"
        with contextlib.closing(open_reader(path)) as db:
            yield db

    def let_time_pass(self) -> None:
        """Have the next step look for old tasks."""
        self.projector.evict_at_s = 0.0

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        with self.live() as db:
            return tables_of(db)


_CHECKPOINTS = "SELECT partition, entry FROM checkpoints"


def reasons(db: sqlite3.Connection) -> dict[str, str]:
    """Why projections are stopped."""
    return dict(db.execute("SELECT name, reason FROM projections WHERE stopped_at != ''"))


@contextlib.asynccontextmanager
async def projecting(
    store: Store, folder: Path, events: Events | None = None, /, **options: Any
) -> AsyncGenerator[Watched]:
    """A projector on `store`, closed in the end."""
    watched = Watched(store, ProjectorOptions(folder, **options), events)
    try:
        yield watched
    finally:
        await watched.projector.close()
