"""Letting go of what is sealed, on a server."""

from collections.abc import Awaitable, Sequence
from typing import Any, Final

import structlog

from ledger.codec import Undecodable, encode
from ledger.redis_calls import LedgerCalls, of_ours
from ledger.redis_connection import Script
from ledger.retention import (
    BEGINNING,
    ArchiveState,
    Ended,
    Projection,
    read_projection,
)
from ledger.script_format import Argument, read_number
from ledger.store import Position

log = structlog.get_logger("ledger")

TRIM = Script("trim", after=("entries",))
EVICT = Script("evict", after=("entries",))
RESTORE = Script("restore", after=("entries",))
TELL = Script("tell_projection")
ERASE = Script("erase")

_STATE: Final = ("generation", "entry", "size", "trimmed", "evicted", "looked", "halted", "erased")


class RedisRetention(LedgerCalls):
    """The Retention of a ledger on a server, and the way back."""

    async def archive_state(self, partition: int) -> ArchiveState:
        names = self._keys[partition]
        told = await self._of(names.archive, self._caller.command("HMGET", names.archive, *_STATE))
        generation, sealed, size, trimmed, evicted, looked, halted, erased = told
        return ArchiveState(
            read_number(generation),
            _entry(sealed),
            read_number(size),
            _entry(trimmed),
            _entry(evicted),
            read_number(looked),
            "" if halted is None else halted.decode(errors="replace"),
            _entry(erased),
        )

    async def trim(self, partition: int, generation: int, up_to: str, count: int) -> int | None:
        names = self._keys[partition]
        gone = await self._run(TRIM, (names.events, names.archive), (generation, up_to, count))
        return None if gone < 0 else gone

    async def evict(
        self, partition: int, generation: int, reached: str, looked: int, ended: Sequence[Ended]
    ) -> int | None:
        names = self._keys[partition]
        script_keys = (names.archive, *(names.task(each.task_id) for each in ended))
        arguments: list[Argument] = [generation, reached, looked]
        for each in ended:
            arguments += (each.version, each.entry)
        gone = await self._run(EVICT, script_keys, arguments)
        return None if gone < 0 else gone

    async def erase(
        self, partition: int, generation: int, entries: Sequence[str], reached: str = ""
    ) -> int | None:
        """Take events out of the stream that were erased in the archive; how many went. `reached`:
        up to which entry all erasures are carried out then. None as `trim`."""
        names = self._keys[partition]
        script_keys = (names.events, names.archive, names.erased)
        gone = await self._run(ERASE, script_keys, (generation, reached, *entries))
        return None if gone < 0 else gone

    async def is_erased(self, position: Position) -> bool:
        """Whether the event that stood there was taken out because it was erased."""
        key = self._keys[position.partition].erased
        score = await self._of(key, self._caller.command("ZSCORE", key, position.entry))
        return score is not None

    async def restored(self, partition: int, before_ms: int, count: int) -> list[Ended]:
        key = self._keys[partition].restored
        told = await self._of(
            key,
            self._caller.command("ZRANGE", key, 0, before_ms, "BYSCORE", "LIMIT", 0, count),
        )
        return [_read_ended(member) for member in told]

    async def forget_restored(self, partition: int, ended: Sequence[Ended]) -> None:
        if ended:
            key = self._keys[partition].restored
            await self._caller.command("ZREM", key, *map(_ended_text, ended))

    async def restore(
        self, partition: int, ended: Ended, submission: bytes, state: bytes
    ) -> int | None:
        """Put back the snapshot of a task that was evicted as it ended; the version that it is at
        afterwards. None when it cannot have been evicted."""
        names = self._keys[partition]
        version = await self._run(
            RESTORE,
            (names.archive, names.restored, names.task(ended.task_id)),
            (ended.version, submission, state, ended.entry, _ended_text(ended)),
        )
        return None if version < 0 else version

    async def tell_projection(self, partition: int, node: str, projection: Projection) -> None:
        key = self._keys[partition].projections
        await self._run(TELL, (key,), (node, encode(projection)))

    async def projections(self, partition: int) -> dict[str, Projection]:
        key = self._keys[partition].projections
        flat = await self._of(key, self._caller.command("HGETALL", key))
        found: dict[str, Projection] = {}
        for stored_node, stored in zip(flat[::2], flat[1::2], strict=True):
            node = stored_node.decode(errors="replace")
            try:
                found[node] = read_projection(node, stored)
            except Undecodable as error:
                log.warning("projection_unreadable", node=node, reason=str(error))
        return found

    async def forget_projection(self, node: str) -> bool:
        gone = 0
        for names in self._keys:
            gone += await self._caller.command("HDEL", names.projections, node)
        return gone > 0

    async def _run(
        self, script: Script, script_keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:
        return await self._of(script_keys[0], self._call(script, script_keys, arguments))

    async def _of(self, key: str, call: Awaitable[Any]) -> Any:
        return await of_ours((key,), call)


def _entry(stored: bytes | None) -> str:
    return BEGINNING if stored is None else stored.decode()


def _ended_text(ended: Ended) -> str:
    return f"{ended.task_id} {ended.version} {ended.entry}"


def _read_ended(member: bytes) -> Ended:
    task_id, _, rest = member.decode(errors="replace").partition(" ")
    version, _, entry = rest.partition(" ")
    return Ended(task_id, int(version), entry)
