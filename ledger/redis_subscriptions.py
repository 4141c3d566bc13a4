"""Subscriptions on a server: a registry beside the ledger, and a hash in each partition."""

import asyncio
import contextlib
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ledger import keys
from ledger.codec import Undecodable, encode
from ledger.keys import PartitionKeys
from ledger.redis_calls import of_ours
from ledger.redis_connection import Caller, Script
from ledger.script_format import Argument
from ledger.subscriptions import (
    BEGINNING,
    GROUPS_MAX,
    HALT_CHARACTERS_MAX,
    Checkpoint,
    Ends,
    ForeignGroup,
    Group,
    Halted,
    Held,
    PartitionView,
    Reading,
    Taken,
    TooManyGroups,
    checkpoint_text,
    decode_group,
    read_checkpoint,
    read_lease,
)

log = structlog.get_logger("ledger")

COUNT_CHUNK: Final = 200
"""Entries counted in one call: with payloads of 1 MiB each, a server is held up for a moment."""

CALLS_AT_ONCE: Final = 8
"""Connections that this may take."""

CLAIM = Script("subscribe_claim")
KEEP = Script("subscribe_keep")
SEEK = Script("subscribe_seek")
BEAT = Script("subscribe_beat")
COUNT = Script("subscribe_count")


class RedisSubscriptions:
    """The Subscriptions of the ledger that `client` leads to."""

    def __init__(self, client: Redis, partitions: int, timeout_ms: int) -> None:
        self._caller = Caller(client, timeout_ms)
        self._keys = [PartitionKeys(p) for p in range(partitions)]
        self._few = asyncio.Semaphore(CALLS_AT_ONCE)

    @property
    def partitions(self) -> int:
        return len(self._keys)

    # -- groups -------------------------------------------------------------------------------

    async def register(self, name: str, group: Group) -> Group:
        known = await self.group(name)
        if known is not None:
            return known
        if await self._ask(keys.SUBSCRIPTIONS, "HLEN") >= GROUPS_MAX:
            raise TooManyGroups
        await self._ask(keys.SUBSCRIPTIONS, "HSETNX", name, encode(group))
        return await self.group(name) or group

    async def groups(self) -> dict[str, Group]:
        flat = await self._ask(keys.SUBSCRIPTIONS, "HGETALL")
        found: dict[str, Group] = {}
        for stored_name, stored in zip(flat[::2], flat[1::2], strict=True):
            name = stored_name.decode(errors="replace")
            try:
                found[name] = decode_group(name, stored)
            except Undecodable as error:
                log.warning("subscription_unreadable", group=name, reason=str(error))
        return found

    async def group(self, name: str) -> Group | None:
        stored = await self._ask(keys.SUBSCRIPTIONS, "HGET", name)
        return None if stored is None else decode_group(name, stored)

    async def remove(self, name: str) -> bool:
        stored = await self._ask(keys.SUBSCRIPTIONS, "HGET", name)
        if stored is None:
            return False
        await self._ask(keys.SUBSCRIPTIONS, "HDEL", name)
        # What a member writes from now on stands under the tag of a group that is no more.
        prefix = f"{name}/"
        with contextlib.suppress(Undecodable):
            prefix = f"{decode_group(name, stored).tag(name)}:"
        for partition in self._keys:
            fields = await self._ask(partition.checkpoints, "HKEYS")
            ours = [field for field in fields if field.startswith(prefix.encode())]
            if ours:
                await self._ask(partition.checkpoints, "HDEL", *ours)
        await self._command("DEL", keys.members(name))
        return True

    # -- members ------------------------------------------------------------------------------

    async def beat(self, name: str, member: str, lease_ms: int) -> list[str]:
        known = await self._run(BEAT, keys.members(name), member, lease_ms)
        return sorted(one.decode(errors="replace") for one in known)

    async def members(self, name: str) -> list[str]:
        return await self.beat(name, "", 0)

    async def claim(
        self, partition: int, tag: str, member: str, lease_ms: int, start: Checkpoint
    ) -> Held | Taken | Halted:
        generation, told = await self._run(
            CLAIM,
            self._keys[partition].checkpoints,
            *(tag, member, lease_ms, checkpoint_text(start)),
        )
        text = told.decode(errors="replace")
        match generation:
            case 0:
                return Taken(text)
            case -1:
                return Halted(text)
            case _:
                return Held(generation, read_checkpoint(text))

    async def keep(
        self,
        partition: int,
        tag: str,
        generation: int,
        lease_ms: int,
        checkpoint: Checkpoint | None = None,
    ) -> bool:
        at = "" if checkpoint is None else checkpoint_text(checkpoint)
        return await self._keep(partition, tag, generation, lease_ms, at, "")

    async def halt(self, partition: int, tag: str, generation: int, reason: str) -> bool:
        text = reason[:HALT_CHARACTERS_MAX]
        return await self._keep(partition, tag, generation, 0, "", text)

    async def _keep(
        self, partition: int, tag: str, generation: int, lease_ms: int, at: str, halted: str
    ) -> bool:
        key = self._keys[partition].checkpoints
        return bool(await self._run(KEEP, key, tag, generation, lease_ms, at, halted))

    async def seek(self, partition: int, tag: str, checkpoint: Checkpoint) -> None:
        key = self._keys[partition].checkpoints
        await self._run(SEEK, key, tag, checkpoint_text(checkpoint))

    # -- looks --------------------------------------------------------------------------------

    async def view(self, partition: int) -> PartitionView:
        names = self._keys[partition]
        (seconds, micros), ends, flat, foreign = await asyncio.gather(
            self._command("TIME"),
            self.ends(partition),
            self._ask(names.checkpoints, "HGETALL"),
            self._foreign(names.events),
        )
        now_ms = int(seconds) * 1_000 + int(micros) // 1_000
        return PartitionView(now_ms, ends, _readings(flat, now_ms), foreign)

    async def ends(self, partition: int) -> Ends:
        told = _pairs(await self._of_stream("STREAM", self._keys[partition].events))
        if not told:
            return Ends(BEGINNING, BEGINNING, 0, 0)
        first = told[b"first-entry"]
        return Ends(
            BEGINNING if first is None else first[0].decode(),
            told[b"last-generated-id"].decode(),
            told[b"entries-added"],
            told[b"length"],
        )

    async def first_after(self, partition: int, entry: str) -> str | None:
        key = self._keys[partition].events
        found = await self._command("XRANGE", key, f"({entry}", "+", "COUNT", 1)
        return found[0][0].decode() if found else None

    async def count_after(self, partition: int, entry: str, up_to: str | None = None) -> int:
        total, key = 0, self._keys[partition].events
        while True:
            count, last = await self._run(COUNT, key, entry, COUNT_CHUNK, up_to or "+")
            total, entry = total + count, last.decode()
            if count < COUNT_CHUNK:
                return total

    async def _foreign(self, stream: str) -> tuple[ForeignGroup, ...]:
        rows = await self._of_stream("GROUPS", stream)
        return tuple([await self._foreign_group(stream, _pairs(row)) for row in rows])

    async def _foreign_group(self, stream: str, told: dict[bytes, Any]) -> ForeignGroup:
        name, oldest = told[b"name"], ""
        if told[b"pending"]:
            pending = await self._command("XPENDING", stream, name, "-", "+", 1)
            oldest = pending[0][0].decode() if pending else ""
        return ForeignGroup(
            name.decode(errors="replace"),
            told[b"last-delivered-id"].decode(),
            told[b"pending"],
            oldest,
            told.get(b"lag"),
        )

    # -- calls --------------------------------------------------------------------------------

    async def _of_stream(self, what: str, stream: str) -> list[Any]:
        try:
            return await of_ours((stream,), self._command("XINFO", what, stream))
        except ResponseError as error:
            if "no such key" in str(error):
                return []
            raise

    async def _command(self, *arguments: Argument) -> Any:
        async with self._few:
            return await self._caller.command(*arguments)

    async def _ask(self, key: str, command: str, *arguments: str | bytes | int) -> Any:
        return await of_ours((key,), self._command(command, key, *arguments))

    async def _run(self, script: Script, key: str, *arguments: str | int) -> Any:
        async with self._few:
            reply, _ = await of_ours((key,), self._caller.script(script, (key,), arguments))
        return reply


def _pairs(flat: list[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _readings(flat: list[bytes], now_ms: int) -> dict[str, Reading]:
    fields = {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in _pairs(flat).items()
    }
    found: dict[str, Reading] = {}
    for name, value in fields.items():
        tag, _, field = name.rpartition(":")
        if field != "at":
            continue
        try:
            generation, owner = read_lease(fields.get(f"{tag}:lease", "0 0 "), now_ms)
            halted = fields.get(f"{tag}:halted", "")
            found[tag] = Reading(read_checkpoint(value), generation, owner, halted)
        except Undecodable as error:
            log.warning("checkpoint_unreadable", group=tag, reason=str(error))
    return found
