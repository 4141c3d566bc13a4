"""A read model below the API under test, brought level when a test says so."""

from pathlib import Path
from typing import TYPE_CHECKING

from ledger.redis_store import RedisStore
from tests.read_models import bring_level, read_model

if TYPE_CHECKING:
    from projections.read_model import ReadModel


class Projection:
    """Stands for the projector: the read model is level after `catch_up`, and only then."""

    def __init__(self, store: RedisStore, folder: Path) -> None:
        self.folder = folder
        self._store = store
        self._model: ReadModel | None = None

    async def catch_up(self) -> None:
        """Make the read model if there is none, and read the ledger to its end."""
        if self._model is None:
            self._model = await read_model(self._store, self.folder)
        await bring_level(self._model, self._store)

    def evict(self, before_ms: int) -> None:
        """Let it go of what was finished before that time."""
        assert self._model is not None
        self._model.evict(before_ms)

    @property
    def path(self) -> Path:
        """The live file."""
        return self.folder / (self.folder / "current").read_text().strip()

    def close(self) -> None:
        """Let go of the file."""
        if self._model is not None:
            self._model.db.close()
            self._model = None
