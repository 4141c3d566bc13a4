"""Where a log ends: the last checkpoint that was ever signed, found in the list of all of them."""

from typing import Self

import msgspec

from ledger.archive import tiles
from ledger.archive.checkpoint import Checkpoint, NoCheckpoint, origin_of
from ledger.archive.notes import NOTES_AN_OBJECT, BadNote, Note, unpack_notes
from ledger.archive.reader import Archive, Damaged, Incomplete, log_prefix
from ledger.objects import ObjectStore


class Head(msgspec.Struct, frozen=True):
    """The last checkpoint, and those before it in the last object of the list of all."""

    number: int
    """Of that object."""
    notes: tuple[Note, ...]
    checkpoint: Checkpoint

    @property
    def note(self) -> Note:
        return self.notes[-1]

    def followed_by(self, note: Note, checkpoint: Checkpoint) -> Self:
        """With the next one."""
        if len(self.notes) == NOTES_AN_OBJECT:
            return type(self)(self.number + 1, (note,), checkpoint)
        return type(self)(self.number, (*self.notes, note), checkpoint)


async def find_head(archive: Archive, partition: int) -> Head | None:
    """The last one of a partition's log; None where nothing was signed. Raises ObjectStoreError,
    Damaged, Incomplete."""
    published = await archive.log(partition)
    listed = _Listed(archive.objects, log_prefix(archive.epoch, partition))
    number = await listed.last()
    if number is None:
        if published is None:
            return None
        raise Incomplete(listed.name(0))
    notes = await listed.notes(number)
    head = Head(
        number,
        tuple(notes),
        _checkpoint_of(notes[-1], listed.name(number), origin_of(archive.epoch, partition)),
    )
    if published is None or published.size <= head.checkpoint.size:
        return head
    # One that was signed last, and was overwritten in the list by a writer that came too late.
    return head.followed_by(published.note, published.checkpoint)


class _Listed:
    """The list of all checkpoints, in objects of NOTES_AN_OBJECT each."""

    def __init__(self, objects: ObjectStore, prefix: str) -> None:
        self._objects = objects
        self._prefix = prefix

    def name(self, number: int) -> str:
        return self._prefix + tiles.checkpoints_name(number)

    async def last(self) -> int | None:
        """The number of the last object: sought by doubling."""
        if not await self._is_there(0):
            return None
        low, step = 0, 1
        while await self._is_there(low + step):
            low, step = low + step, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            if await self._is_there(middle):
                low = middle
            else:
                high = middle
        return low

    async def notes(self, number: int) -> list[Note]:
        """Those of one object."""
        try:
            return unpack_notes(await self._objects.read(self.name(number)))
        except BadNote as error:
            raise Damaged(self.name(number), str(error)) from error
        except FileNotFoundError as error:
            raise Incomplete(self.name(number)) from error

    async def _is_there(self, number: int) -> bool:
        try:
            await self._objects.read(self.name(number))
        except FileNotFoundError:
            return False
        return True


def _checkpoint_of(note: Note, name: str, origin: str) -> Checkpoint:
    try:
        found = Checkpoint.parse(note.text)
    except NoCheckpoint as error:
        raise Damaged(name, str(error)) from error
    if found.origin != origin:
        raise Damaged(name, f"it is of the log {found.origin}, expected {origin}")
    return found
