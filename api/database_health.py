"""How the read model is, for /health."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from redis.exceptions import RedisError

from api.lag import Lag
from ledger.rejections import Rejection
from projections import sqlite
from projections.model_files import PROJECTOR_LOCK, ModelFiles
from projections.read_model import Checkpoint, Stopped, read_checkpoints, read_stopped
from projections.readers import Unavailable


class DatabaseStatus(StrEnum):
    """What lists, statistics and queues can be told from."""

    HEALTHY = "healthy"
    REBUILDING = "rebuilding"
    NOT_USED = "not_used"
    STOPPED = "stopped"
    STALLED = "stalled"
    DAMAGED = "damaged"
    UNAVAILABLE = "unavailable"


WELL: Final = frozenset(
    (DatabaseStatus.HEALTHY, DatabaseStatus.REBUILDING, DatabaseStatus.NOT_USED)
)
"""Nobody has to do anything: it is as it should be, or comes to be so by itself."""

STALLED_AFTER_S: Final = 30.0
"""A projector that is there and takes nothing for so long, while there is something to take, hangs
or is locked out. It waits five seconds for a lock at a time, and commits every few seconds when it
has much to do."""


class StoppedProjection(msgspec.Struct, frozen=True):
    """A projection that gave up."""

    at: Annotated[str, Meta(description="The position of the event that it could not take.")]
    reason: Annotated[str, Meta(description="Why, and how to go on.")]


class Database(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of the read model. Single tasks, submissions and workers need none of it."""

    status: DatabaseStatus
    message: str = ""
    lag_events: (
        Annotated[int, Meta(ge=0, description="Events that it has still to take.")] | None
    ) = None
    stopped: Annotated[
        dict[str, StoppedProjection], Meta(description="By the projection's name.")
    ] = {}


class Standing(msgspec.Struct, frozen=True):
    """What the file says of itself."""

    checkpoints: Mapping[int, Checkpoint]
    stopped: Mapping[str, Stopped]


def read_standing(db: sqlite3.Connection) -> Standing:
    return Standing(read_checkpoints(db), read_stopped(db))


class DatabaseHealth:
    """Asks the read model of a folder, and who looks after it."""

    def __init__(
        self,
        files: ModelFiles,
        lag: Lag,
        look: Callable[[Callable[[sqlite3.Connection], Standing]], Awaitable[Standing]],
    ) -> None:
        self._files = files
        self._lag = lag
        self._look = look
        self._behind_at: Mapping[int, Checkpoint] | None = None
        self._behind_since_s = 0.0

    async def check(self) -> Database:
        """How it is now."""
        try:
            standing = await self._look(read_standing)
        except Unavailable as error:
            return self._without(error)
        damage = self._files.damage_met()
        if damage is not None:
            return Database(
                DatabaseStatus.DAMAGED,
                f"a part of the read model cannot be read ({damage}): the projector looks into it,"
                " and makes it again. Single tasks still answer",
            )
        stopped = {n: StoppedProjection(s.at, s.reason) for n, s in standing.stopped.items()}
        try:
            behind = sum((await self._lag.events(standing.checkpoints)).values())
        except (Rejection, RedisError):
            behind = None
        if stopped:
            names = ", ".join(stopped)
            return Database(
                DatabaseStatus.STOPPED, f"stopped: {names}; see the reason", behind, stopped
            )
        if behind and not self._has_projector():
            return Database(
                DatabaseStatus.STALLED,
                "no projector runs on this node: start `ledgerq projector`",
                behind,
            )
        unmoved_s = self._unmoved_s(standing.checkpoints, behind)
        if behind and unmoved_s >= STALLED_AFTER_S:
            # Not before: an outage is over for the projector a little later than for others.
            reason = self._files.hindrance() or (
                "it hangs, or the read model is locked; its log may say more. Start it again"
            )
            return Database(
                DatabaseStatus.STALLED,
                f"the projector has taken nothing for {unmoved_s:.0f} s: {reason}",
                behind,
            )
        return Database(DatabaseStatus.HEALTHY, "", behind)

    def _unmoved_s(self, checkpoints: Mapping[int, Checkpoint], behind: int | None) -> float:
        """For how long it has been behind, at these checkpoints, as far as was seen here."""
        now_s = asyncio.get_running_loop().time()
        if not behind:
            self._behind_at = None
        elif checkpoints != self._behind_at:
            self._behind_at, self._behind_since_s = checkpoints, now_s
        return 0.0 if self._behind_at is None else now_s - self._behind_since_s

    def _without(self, error: Unavailable) -> Database:
        cause, path = error.__cause__, self._files.current()
        if path is None or not path.exists():
            if self._has_projector():
                hindrance = self._files.hindrance()
                if hindrance is not None:
                    told = f"the projector cannot go on: {hindrance}"
                    return Database(DatabaseStatus.STALLED, told)
                return Database(DatabaseStatus.REBUILDING, "the projector is making it")
            if path is None:
                return Database(DatabaseStatus.NOT_USED, str(error))
        if isinstance(cause, sqlite3.Error) and sqlite.is_damage(cause):
            return Database(DatabaseStatus.DAMAGED, str(error))
        return Database(DatabaseStatus.UNAVAILABLE, str(error))

    def _has_projector(self) -> bool:
        """Asked in trouble only: a projector that begins at that very moment waits a second."""
        if not self._files.folder.is_dir():
            return False
        with self._files.lock(PROJECTOR_LOCK) as free:
            return not free
