"""Subscriptions in plain dictionaries: the reference that those on a server are compared with."""

from collections.abc import Callable
from typing import Final

import msgspec

from ledger.memory_store import MemoryStore
from ledger.subscriptions import (
    BEGINNING,
    GROUPS_MAX,
    HALT_CHARACTERS_MAX,
    Checkpoint,
    Ends,
    Group,
    Halted,
    Held,
    PartitionView,
    Reading,
    Taken,
    TooManyGroups,
    order_of,
)

SEEN_MS: Final = 5_000
"""So long at least, one who lives is there: all say so once a second."""


class Kept(msgspec.Struct):
    """What is kept of a group in one partition."""

    checkpoint: Checkpoint
    generation: int = 0
    until: int = 0
    lasts_ms: int = 0
    owner: str = ""
    halted: str = ""


class MemorySubscriptions:
    """The Subscriptions of a ledger in memory."""

    def __init__(self, store: MemoryStore, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._groups: dict[str, Group] = {}
        self._members: dict[str, dict[str, int]] = {}
        self._kept: list[dict[str, Kept]] = [{} for _ in range(store.partitions)]

    @property
    def partitions(self) -> int:
        return self._store.partitions

    async def register(self, name: str, group: Group) -> Group:
        if name not in self._groups and len(self._groups) >= GROUPS_MAX:
            raise TooManyGroups
        return self._groups.setdefault(name, group)

    async def groups(self) -> dict[str, Group]:
        return dict(self._groups)

    async def group(self, name: str) -> Group | None:
        return self._groups.get(name)

    async def remove(self, name: str) -> bool:
        group = self._groups.pop(name, None)
        if group is None:
            return False
        for kept in self._kept:
            kept.pop(group.tag(name), None)
        self._members.pop(name, None)
        return True

    async def beat(self, name: str, member: str, lease_ms: int) -> list[str]:
        members = self._members.setdefault(name, {})
        members[member] = self._now_ms() + lease_ms
        if lease_ms:
            latest = self._now_ms() + max(lease_ms, SEEN_MS)
            members.update({name: min(until, latest) for name, until in members.items()})
        return await self.members(name)

    async def members(self, name: str) -> list[str]:
        now, known = self._now_ms(), self._members.get(name, {})
        return sorted(member for member, until in known.items() if until > now)

    async def claim(
        self, partition: int, tag: str, member: str, lease_ms: int, start: Checkpoint
    ) -> Held | Taken | Halted:
        kept = self._kept[partition].setdefault(tag, Kept(start))
        if kept.halted:
            return Halted(kept.halted)
        if kept.until > self._now_ms() and kept.owner != member:
            # Longer than it lasts: the clock was set back.
            kept.until = min(kept.until, self._now_ms() + kept.lasts_ms)
            return Taken(kept.owner)
        kept.generation += 1
        kept.until, kept.owner = self._now_ms() + lease_ms, member
        kept.lasts_ms = lease_ms
        return Held(kept.generation, kept.checkpoint)

    async def keep(
        self,
        partition: int,
        tag: str,
        generation: int,
        lease_ms: int,
        checkpoint: Checkpoint | None = None,
    ) -> bool:
        kept = self._kept[partition].get(tag)
        if kept is None or kept.generation != generation:
            return False
        if checkpoint is not None and checkpoint.order > kept.checkpoint.order:
            kept.checkpoint = checkpoint
        kept.until = self._now_ms() + lease_ms if lease_ms else 0
        return True

    async def halt(self, partition: int, tag: str, generation: int, reason: str) -> bool:
        if not await self.keep(partition, tag, generation, 0):
            return False
        self._kept[partition][tag].halted = reason[:HALT_CHARACTERS_MAX]
        return True

    async def seek(self, partition: int, tag: str, checkpoint: Checkpoint) -> None:
        kept = self._kept[partition].setdefault(tag, Kept(checkpoint))
        kept.checkpoint, kept.generation = checkpoint, kept.generation + 1
        kept.until, kept.owner, kept.halted = 0, "", ""

    async def view(self, partition: int) -> PartitionView:
        now = self._now_ms()
        readings = {
            tag: Reading(
                kept.checkpoint,
                kept.generation,
                kept.owner if kept.until > now else "",
                kept.halted,
            )
            for tag, kept in self._kept[partition].items()
        }
        return PartitionView(now, await self.ends(partition), readings, ())

    async def ends(self, partition: int) -> Ends:
        entries = self._entries(partition)
        if not entries:
            return Ends(BEGINNING, BEGINNING, 0, 0)
        return Ends(entries[0], entries[-1], len(entries), len(entries))

    async def first_after(self, partition: int, entry: str) -> str | None:
        return next(iter(self._after(partition, entry)), None)

    async def count_after(self, partition: int, entry: str, up_to: str | None = None) -> int:
        after = self._after(partition, entry)
        return len([e for e in after if up_to is None or order_of(e) <= order_of(up_to)])

    def _entries(self, partition: int) -> list[str]:
        return [event.position.entry for event in self._store.contents[partition].events]

    def _after(self, partition: int, entry: str) -> list[str]:
        return [e for e in self._entries(partition) if order_of(e) > order_of(entry)]
