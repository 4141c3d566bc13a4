"""The lease under which an archiver seals a partition, and says how far."""

import contextlib

import structlog

from ledger.archive.writer import LostFence
from ledger.codec import Undecodable
from ledger.redis_archive import Hold, RedisArchive, Sealed
from ledger.redis_calls import ForeignKey
from ledger.rejections import Rejection
from ledger.subscriptions import Halted, Taken

log = structlog.get_logger("archiver")


class PartitionLease:
    """Of one partition, for one archiver. Every method may raise ForeignKey, Undecodable and
    Rejection(SERVICE_UNAVAILABLE)."""

    def __init__(self, fence: RedisArchive, partition: int, owner: str, lease_ms: int) -> None:
        self._fence = fence
        self._partition = partition
        self._owner = owner
        self._lease_ms = lease_ms
        self._hold: Hold | None = None
        self._said = ""

    @property
    def is_held(self) -> bool:
        """As far as one knows: another one may have taken it meanwhile."""
        return self._hold is not None

    @property
    def held(self) -> Hold:
        """Raises LostFence without one."""
        if self._hold is None:
            raise LostFence
        return self._hold

    @property
    def generation(self) -> int | None:
        """None without one."""
        return None if self._hold is None else self._hold.generation

    @property
    def accepted(self) -> str:
        """As in Hold; empty without one."""
        return "" if self._hold is None else self._hold.accepted

    async def take(self) -> bool:
        """Take it where nobody has it. Why not is logged, once."""
        match await self._fence.take(self._partition, self._owner, self._lease_ms):
            case Hold() as hold:
                self._hold, self._said = hold, ""
                return True
            case Taken(owner):
                self._say_once("archiver_stands_by", owner=owner)
            case Halted(reason):
                self._say_once("archive_halted", reason=reason)
        return False

    async def keep(self) -> None:
        """Renew it, if it is held."""
        if self._hold is not None:
            generation = self._hold.generation
            if not await self._fence.keep(self._partition, generation, self._lease_ms):
                self._lose(generation)

    async def keep_or_raise(self) -> None:
        """Renew it. Raises LostFence where another one has it."""
        generation = self.held.generation
        if not await self._fence.keep(self._partition, generation, self._lease_ms):
            self._lose(generation)
            raise LostFence

    async def tell_sealed(self, sealed: Sealed, *, went_on: bool = False) -> None:
        """Renew it, and say how far is sealed; `went_on`: as RedisArchive.keep has it. Raises
        LostFence."""
        hold = self.held
        if sealed == hold.sealed:
            return
        if not await self._fence.keep(
            self._partition, hold.generation, self._lease_ms, sealed, went_on=went_on
        ):
            self._lose(hold.generation)
            raise LostFence
        # Only now: what may not have been heard is told again.
        self._hold = Hold(hold.generation, sealed, "" if went_on else hold.accepted)

    async def halt(self, reason: str) -> bool:
        """Give it back, and let nobody take it until somebody decides. False where another one has
        it."""
        hold, self._hold = self._hold, None
        log.error("archive_halted", partition=self._partition, reason=reason)
        self._said = "archive_halted"
        if hold is None:
            return False
        return await self._fence.halt(self._partition, hold.generation, reason)

    async def release(self) -> None:
        """Let others have it at once. Raises nothing."""
        hold, self._hold = self._hold, None
        if hold is not None:
            with contextlib.suppress(Rejection, ForeignKey, Undecodable):
                await self._fence.keep(self._partition, hold.generation, 0)

    def forget(self) -> None:
        """Another one has it."""
        self._hold = None

    def _lose(self, generation: int) -> None:
        if self._hold is not None and self._hold.generation == generation:
            self._hold = None
            log.warning("archiver_lost_partition", partition=self._partition)

    def _say_once(self, event: str, **details: str) -> None:
        if self._said != event:
            self._said = event
            log.warning(event, partition=self._partition, **details)
