"""What the ledger knows of its archive: who seals each partition, and how far it is sealed.

Whoever seals a partition, or changes what is sealed, holds it under a lease with a generation. Who
takes it over gets the next one, and what is said under an older one is refused.
"""

from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from ledger.codec import Undecodable
from ledger.keys import PartitionKeys
from ledger.redis_calls import of_ours
from ledger.redis_connection import Caller, Script
from ledger.script_format import Argument
from ledger.subscriptions import BEGINNING, HALT_CHARACTERS_MAX, Halted, Taken, order_of

TAKE: Final = Script("archive_take")
KEEP: Final = Script("archive_keep")


class Sealed(msgspec.Struct, frozen=True):
    """How far a partition is sealed, as its archiver said last; the log itself may be further."""

    size: int = 0
    """Leaves of its log."""
    entry: str = BEGINNING
    """Everything up to it is sealed, and was read back."""
    digest: str = ""
    """The hash of the last leaf, in hexadecimal."""
    passed: int = 0
    """Entries of the stream up to there, whether they are still there or not."""


class Hold(msgspec.Struct, frozen=True):
    """The partition is the caller's for as long as the lease lasts."""

    generation: int
    sealed: Sealed
    accepted: str = ""
    """The entry where the archive ends, which the ledger has not got, and where somebody decided to
    go on all the same; empty where nobody did."""


class ArchiveView(msgspec.Struct, frozen=True):
    """A partition, as others see it. `owner` is empty where nobody seals it now."""

    sealed: Sealed
    owner: str
    halted: str
    """Why nothing more is sealed, and must not be trimmed; empty where that is not so."""
    now_ms: int
    """By the server's clock."""


class RedisArchive:
    """The fence around the archive of the ledger that `client` leads to. Every method may raise
    ForeignKey, Undecodable, and Rejection(SERVICE_UNAVAILABLE)."""

    def __init__(self, client: Redis, partitions: int, timeout_ms: int) -> None:
        self._caller = Caller(client, timeout_ms)
        self._keys = [PartitionKeys(p).archive for p in range(partitions)]

    @property
    def partitions(self) -> int:
        return len(self._keys)

    async def take(
        self, partition: int, owner: str, lease_ms: int, *, force: bool = False
    ) -> Hold | Taken | Halted:
        """Take a partition that nobody holds, or that is the owner's already. `force`: take it from
        whoever holds it, who notices before he signs anything, and also where it was halted."""
        reply = await self._run(TAKE, partition, owner, lease_ms, "force" if force else "")
        generation, told = reply[0], reply[1].decode(errors="replace")
        match generation:
            case 0:
                return Taken(told)
            case -1:
                return Halted(told)
            case _:
                return Hold(generation, _sealed(*reply[1:5]), reply[5].decode(errors="replace"))

    async def keep(
        self,
        partition: int,
        generation: int,
        lease_ms: int,
        sealed: Sealed | None = None,
        *,
        went_on: bool = False,
    ) -> bool:
        """Extend a lease (0: give it back), and keep how far is sealed. `went_on`: events were
        sealed behind where somebody decided to go on; who meets the like decides again. False when
        the partition is another one's by now: nothing is changed."""
        told: list[Argument] = []
        if sealed is not None:
            told = [sealed.size, sealed.entry, sealed.digest, sealed.passed, int(went_on)]
        return bool(await self._run(KEEP, partition, generation, lease_ms, "", *told))

    async def halt(self, partition: int, generation: int, reason: str) -> bool:
        """Seal nothing more until somebody decides. False as `keep`."""
        text = reason[:HALT_CHARACTERS_MAX]
        return bool(await self._run(KEEP, partition, generation, 0, text))

    async def go_on(self, partition: int, accepted: str, evicted: str = "") -> None:
        """Let a halted partition be sealed on, behind the entry where its archive ends, whatever
        the ledger has there. `evicted`: so far must the archive go, from now on, before it is asked
        for finished tasks that were let go of; as before where it is empty."""
        key, told = self._keys[partition], ["accepted", accepted]
        if evicted:
            told += ["evicted", evicted]
        await of_ours((key,), self._caller.command("HSET", key, *told))
        await of_ours((key,), self._caller.command("HDEL", key, "halted"))

    async def view(self, partition: int) -> ArchiveView:
        """How far it is sealed, and by whom."""
        key = self._keys[partition]
        names = ("size", "entry", "digest", "passed", "owner", "until", "halted")
        values = await of_ours((key,), self._caller.command("HMGET", key, *names))
        size, entry, digest, passed, owner, until, halted = values
        seconds, micros = await self._caller.command("TIME")
        now_ms = int(seconds) * 1_000 + int(micros) // 1_000
        is_held = until is not None and until.isdigit() and int(until) > now_ms
        return ArchiveView(
            _sealed(size or b"0", entry or b"0-0", digest or b"", passed or b"0"),
            owner.decode(errors="replace") if owner is not None and is_held else "",
            halted.decode(errors="replace") if halted is not None else "",
            now_ms,
        )

    async def _run(self, script: Script, partition: int, *arguments: Argument) -> Any:
        key = self._keys[partition]
        reply, _ = await of_ours((key,), self._caller.script(script, (key,), arguments))
        return reply


def _sealed(size: bytes, entry: bytes, digest: bytes, passed: bytes) -> Sealed:
    try:
        found = Sealed(int(size), entry.decode(), digest.decode(), int(passed))
        order_of(found.entry)
    except ValueError as error:
        raise Undecodable(f"how far the archive goes cannot be read: {error}") from error
    return found
