"""The objects of one log, as whoever makes them writes them: what was written is read back."""

import asyncio
from collections.abc import Sequence
from typing import Final

from ledger.archive.growth import Made
from ledger.archive.reader import Incomplete
from ledger.objects import ObjectStore, ObjectStoreError

WRITE_BYTES: Final = 16 * 1024 * 1024
"""So much, before it is compressed, is written and synced together, or what there is when a
checkpoint is due."""


class LogObjects:
    """Under a prefix of an object store. Every method may raise ObjectStoreError."""

    def __init__(self, objects: ObjectStore, prefix: str) -> None:
        self._objects = objects
        self._prefix = prefix

    async def store(self, made: Sequence[Made]) -> None:
        """Write objects, and see that they are there."""
        keys = [self._prefix + each.name for each in made]
        packed = await asyncio.to_thread(lambda: [each.pack() for each in made])
        await self._objects.write_all(list(zip(keys, packed, strict=True)))
        try:
            found = await self._objects.read_all(keys)
        except FileNotFoundError as error:
            raise ObjectStoreError(f"{error}, which was just written") from error
        for key, before, after in zip(keys, packed, found, strict=True):
            if before != after:
                raise ObjectStoreError(f"{key}: what was written is not what is read back")

    async def read(self, name: str) -> bytes:
        """One of them. Raises Incomplete where it is missing."""
        found = await self.find(name)
        if found is None:
            raise Incomplete(self._prefix + name)
        return found

    async def find(self, name: str) -> bytes | None:
        """One of them, if it is there."""
        try:
            return await self._objects.read(self._prefix + name)
        except FileNotFoundError:
            return None

    async def names(self, folder: str) -> list[str]:
        """Those in a folder."""
        pages = self._objects.listed(self._prefix + folder)
        return [each.key.removeprefix(self._prefix) async for page in pages for each in page]

    async def remove(self, name: str) -> None:
        """One of them, if it is there."""
        await self._objects.delete(self._prefix + name)


class Gathered:
    """Objects of the next checkpoint: they are written together, much at a time. However much that
    is, it is in memory until `take`: whoever adds has to make checkpoints."""

    def __init__(self, objects: LogObjects) -> None:
        self._objects = objects
        self._made: list[Made] = []
        self._made_bytes = 0
        self._names: list[str] = []
        self._writing: list[asyncio.Task[None]] = []

    def add(self, made: Sequence[Made]) -> None:
        """More of them."""
        self._made += made
        self._made_bytes += sum(len(each.content) for each in made)
        if self._made_bytes >= WRITE_BYTES:
            self._write()

    def take(self) -> tuple[list[asyncio.Task[None]], list[str]]:
        """What writes all that was added, and the names of that. What is added from now on belongs
        to another checkpoint."""
        self._write()
        taken = self._writing, self._names
        self._writing, self._names = [], []
        return taken

    def drop(self) -> list[asyncio.Task[None]]:
        """Begin no more writing; what writes now."""
        self._made = []
        return self._writing

    def _write(self) -> None:
        made, self._made, self._made_bytes = self._made, [], 0
        self._names += [each.name for each in made]
        if made:
            self._writing.append(asyncio.create_task(self._objects.store(made)))
