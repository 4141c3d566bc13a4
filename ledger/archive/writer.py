"""Writes a partition's log: seals events, from one checkpoint to the next.

Everything that a checkpoint is about is durable, and was read back, before it is signed; it is
durable in the list of all that were ever signed before it is published. So whoever comes after a
writer that was killed, wherever it was, finds the last one that was signed, and goes on from there;
what was written for another is the same bytes once more, or is cleared away.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol, Self

import msgspec

from ledger.archive import tiles
from ledger.archive.checkpoint import Checkpoint, origin_of
from ledger.archive.growth import End, Growth, Made, SegmentPlan, Tail
from ledger.archive.head import Head, find_head
from ledger.archive.index import NoSegment, Summary, segment_name, segment_ranges
from ledger.archive.introductions import Introductions
from ledger.archive.keys import KeyFile
from ledger.archive.last_leaves import LastLeaves
from ledger.archive.leaf import (
    PLAIN_TYPES,
    Leaf,
    NoLeaf,
    data_hash,
    entry_of,
    pack_leaf,
    unpack_leaf,
)
from ledger.archive.leftovers import Leftovers
from ledger.archive.log_objects import Gathered, LogObjects
from ledger.archive.merkle import leaf_hash
from ledger.archive.notes import (
    BadNote,
    Note,
    NoteSigner,
    Signature,
    Verifier,
    pack_notes,
    signers_of,
)
from ledger.archive.reader import Archive, Damaged, SealedLog, log_prefix
from ledger.archive.salts import Salts
from ledger.archive.tiles import TILE_WIDTH
from ledger.objects import ObjectStoreError
from ledger.objects.together import all_done
from ledger.store import Position, Recorded


class NotSigned(Exception):
    """A log whose last checkpoint none of our keys signed; says where, and what to do."""


class LostFence(Exception):
    """Somebody else seals this partition by now: nothing was signed."""


class Cosigners(Protocol):
    """Those who are asked to confirm what was signed."""

    @property
    def verifiers(self) -> Sequence[Verifier]:
        """Their keys."""
        ...

    async def cosign(self, note: Note, sealed: SealedLog) -> Sequence[Signature]:
        """Cosignatures of a checkpoint, as far as they can be had soon. Raises nothing."""
        ...


class LastLeaf(msgspec.Struct, frozen=True):
    """What a log ends with."""

    leaf: Leaf
    hash: bytes
    salt: bytes

    @classmethod
    def of(cls, partition: int, end: End) -> Self:
        return cls(unpack_leaf(partition, end.entry), leaf_hash(end.entry), end.salt)

    @property
    def position(self) -> Position:
        """Of its event."""
        return self.leaf.position

    def is_of(self, event: Recorded) -> bool:
        """Whether it is that of an event."""
        salt = b"" if event.type in PLAIN_TYPES else self.salt
        try:
            made = pack_leaf(event, self.leaf.prev, data_hash(salt, event.data))
        except NoLeaf:
            return False
        return leaf_hash(made) == self.hash


class _Cut(msgspec.Struct, frozen=True):
    """What a checkpoint is to be about."""

    size: int
    root: bytes
    last: str
    plans: Sequence[SegmentPlan]
    names: Sequence[str]


class LogWriter:
    """The log of one partition. `open` it, `add` events and `seal` them, again and again; or
    `begin` to seal them and add more, before that is `finish`ed.

    Every method may raise ObjectStoreError, Damaged, Incomplete, BadKeyFile and NotSigned. After
    any error, of whatever kind, `close` it and open another one: what was added may be sealed or
    not.
    """

    def __init__(
        self,
        archive: Archive,
        partition: int,
        key_file: KeyFile,
        leaves_kept: int = 65_536,
        cosigners: Cosigners | None = None,
        *,
        write_s: float | None = None,
    ) -> None:
        """`leaves_kept`: of so many tasks it remembers the last leaf. `write_s`: for so long, after
        `may_sign`, it may take to write one of the objects that one writer alone may write."""
        self._archive = archive
        self._partition = partition
        self._origin = origin_of(archive.epoch, partition)
        self._prefix = log_prefix(archive.epoch, partition)
        self._objects = LogObjects(archive.objects, self._prefix)
        self._gathered = Gathered(self._objects)
        self._leftovers = Leftovers(self._objects)
        self._introductions = Introductions(self._objects, self._prefix)
        self._key_file = key_file
        self._head: Head | None = None
        self._log: SealedLog | None = None
        self._salts = Salts(key_file.keys().salts, partition)
        self._growth = Growth(Tail(), self._salts)
        self._last = LastLeaves(partition, leaves_kept)
        self._end: End | None = None
        self._cosigners = cosigners
        self._write_s = write_s
        self._sealing: asyncio.Task[None] | None = None
        self._writing: Sequence[asyncio.Task[None]] = ()
        """Objects of the checkpoint that is being made."""

    @property
    def log(self) -> SealedLog | None:
        """The log at the last checkpoint; None where nothing was sealed yet."""
        return self._log

    @property
    def size(self) -> int:
        """Leaves of the last checkpoint."""
        return 0 if self._head is None else self._head.checkpoint.size

    @property
    def added(self) -> int:
        """Events that no checkpoint is about yet, nor one that is being made."""
        return self._growth.added

    @property
    def base(self) -> int:
        """Leaves of the last checkpoint, or of the one that is being made."""
        return self._growth.base

    @property
    def last(self) -> LastLeaf | None:
        """The last leaf, sealed or not."""
        return None if self._end is None else LastLeaf.of(self._partition, self._end)

    @property
    def last_hash(self) -> bytes:
        """Its hash; empty where there is none."""
        return b"" if self._end is None else leaf_hash(self._end.entry)

    # -- opening ------------------------------------------------------------------------------

    async def open(self) -> None:
        """Find where the log ends, and finish what another writer began."""
        self._head = head = await find_head(self._archive, self._partition)
        if head is None:
            return
        self._check_signed(head)
        self._log = log = self._archive.log_at(self._partition, head.note, head.checkpoint)
        tail = await self._tail(log)
        self._growth = growth = Growth(tail, self._salts)
        if growth.root != head.checkpoint.root:
            raise Damaged(self._prefix, f"its tiles are not what its checkpoint of {log.size} says")
        if growth.index_root != head.checkpoint.index_root:
            raise Damaged(self._prefix, f"its index is not what its checkpoint of {log.size} says")
        if log.size:
            entries = await log.entries((log.size - 1) // TILE_WIDTH)
            [*_, beside] = await log.stored((log.size - 1) // TILE_WIDTH)
            # What is erased has lost its own.
            salts = self._salts.of_bundle(entry_of(entries[0]))
            self._end = End(entries[-1], beside.salt or salts[len(entries) - 1])
        published = await self._archive.log(self._partition)
        if published is None or published.size < log.size:
            await self._publish(head)
        else:
            self._head = self._cosigned_before(head, published.note)
        await self._leftovers.find(log.size)

    def _cosigned_before(self, head: Head, published: Note) -> Head:
        """With the cosignatures of the last checkpoint, which the list has only with the next one:
        they must not be lost when others are added."""
        found: list[Signature] = []
        for verifier in self._cosigners.verifiers if self._cosigners is not None else ():
            with contextlib.suppress(BadNote):
                if not verifier.lines_in(head.note) and verifier.signed(published):
                    found += verifier.lines_in(published)
        if not found or published.text != head.note.text:
            return head
        note = Note(head.note.text, (*head.note.signatures, *found))
        return Head(head.number, (*head.notes[:-1], note), head.checkpoint)

    def _check_signed(self, head: Head) -> None:
        try:
            signers_of(head.note, self._key_file.keys().verifiers(self._origin))
        except BadNote as error:
            raise NotSigned(
                f"the checkpoint of {head.checkpoint.size} leaves of {self._prefix} is signed by no"
                f" key in {self._key_file.path} ({error}): put back the file that has the key"
            ) from error

    async def _tail(self, log: SealedLog) -> Tail:
        hashes: list[Sequence[bytes]] = []
        level, above = 0, log.size
        while above:
            above, width = divmod(above, TILE_WIDTH)
            hashes.append(await log.hashes(level, above) if width else ())
            level += 1
        number, width = divmod(log.size, TILE_WIDTH)
        entries = await log.entries(number) if width else []
        stored = await log.stored(number) if width else []
        summaries = [(await log.directory(c)).summary for c in segment_ranges(log.size)]
        return Tail(log.size, tuple(hashes), entries, stored, summaries)

    # -- adding -------------------------------------------------------------------------------

    async def add(self, events: Sequence[Recorded]) -> list[NoLeaf]:
        """The partition's next events; what of them cannot be sealed, and is left out."""
        if self._log is not None:
            await self._last.find(events, self._log)
        left_out = self._growth.add(events, self._last)
        self._end = self._growth.end or self._end
        self._last.forget()
        # Meanwhile more may be added.
        self._gathered.add(self._growth.take_whole())
        return left_out

    # -- sealing ------------------------------------------------------------------------------

    async def seal(self, may_sign: Callable[[], Awaitable[None]]) -> None:
        """Make a checkpoint of what was added. `may_sign` raises LostFence, or whatever speaks
        against it: it is asked when all is written, and before each object that makes it known."""
        await self.begin(may_sign)
        await self.finish()

    async def begin(self, may_sign: Callable[[], Awaitable[None]]) -> None:
        """Begin to make a checkpoint of what was added, once the one before is finished."""
        await self.finish()
        growth = self._growth
        self._gathered.add(growth.take())
        self._writing, names = self._gathered.take()
        last = "" if self._end is None else entry_of(self._end.entry)
        cut = _Cut(growth.size, growth.root, last, growth.plan(), names)
        self._sealing = asyncio.create_task(self._seal(cut, may_sign))

    async def finish(self) -> None:
        """Wait for the checkpoint that is being made, if there is one."""
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            await sealing

    async def _seal(self, cut: _Cut, may_sign: Callable[[], Awaitable[None]]) -> None:
        await all_done(self._writing)
        self._growth.planned(await self._index(cut.plans))
        await may_sign()
        signers = self._key_file.keys().signers(self._origin)
        async with self._soon():
            await self._introductions.of_signers(signers)
        old, self._head = self.size, self._signed(cut, signers)
        head = self._head
        name = tiles.checkpoints_name(head.number)
        await may_sign()
        async with self._soon():
            await self._objects.store([Made(name, pack_notes(head.notes))])
        await may_sign()
        async with self._soon():
            await self._publish(head)
        self._log = self._archive.log_at(self._partition, head.note, head.checkpoint)
        await self._leftovers.remove(old, cut.size, cut.names)
        if self._cosigners is not None:
            await self._cosign(head, self._log, self._cosigners, may_sign)

    async def _cosign(
        self,
        head: Head,
        log: SealedLog,
        cosigners: Cosigners,
        may_sign: Callable[[], Awaitable[None]],
    ) -> None:
        """Publish a checkpoint once more, with what others say of it. The next one's list has that
        too."""
        signatures = await cosigners.cosign(head.note, log)
        if not signatures:
            return
        await may_sign()
        async with self._soon():
            signer = self._key_file.keys().signers(self._origin)[-1]
            await self._introductions.of_witnesses(cosigners.verifiers, signer)
        note = Note(head.note.text, (*head.note.signatures, *signatures))
        self._head = Head(head.number, (*head.notes[:-1], note), head.checkpoint)
        await may_sign()
        async with self._soon():
            await self._publish(self._head)

    async def publish_again(self, may_sign: Callable[[], Awaitable[None]]) -> None:
        """Where an older checkpoint than the last one is published, put that in its place: somebody
        was slow to publish it. Ask those who have not cosigned it. Not while one is being made."""
        head = self._head
        if head is None:
            return
        if await self._published_size() < head.checkpoint.size:
            await may_sign()
            async with self._soon():
                await self._publish(head)
        if self._cosigners is not None and self._log is not None:
            await self._cosign(head, self._log, self._cosigners, may_sign)

    @contextlib.asynccontextmanager
    async def _soon(self) -> AsyncGenerator[None]:
        """What may be written only by whoever holds the fence: it ends while that is so. Raises
        ObjectStoreError when that is too early."""
        try:
            async with asyncio.timeout(self._write_s):
                yield
        except TimeoutError as error:
            raise ObjectStoreError(
                f"{self._prefix}: a checkpoint could not be written within {self._write_s} s"
            ) from error

    async def close(self) -> None:
        """Let what is being written come to an end."""
        working = [*self._gathered.drop(), *self._writing]
        if self._sealing is not None:
            working.append(self._sealing)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

    async def _index(self, plans: Sequence[SegmentPlan]) -> list[Summary]:
        """Write segments of the index, from those that they take the place of."""
        made = [await self._make(plan) for plan in plans]
        await self._objects.store([segment for segment, _ in made])
        return [summary for _, summary in made]

    async def _make(self, plan: SegmentPlan) -> tuple[Made, Summary]:
        names = [segment_name((part.start, part.end)) for part in plan.parts]
        packed = [await self._objects.read(name) for name in names]
        try:
            return await asyncio.to_thread(plan.make, packed)
        except NoSegment as error:
            raise Damaged(self._prefix + ", ".join(names), str(error)) from error

    def _signed(self, cut: _Cut, signers: Sequence[NoteSigner]) -> Head:
        before, index_root = self._head, self._growth.index_root
        checkpoint = Checkpoint(self._origin, cut.size, cut.root, index_root, cut.last)
        *older, newest = signers
        signing = [newest]
        if before is not None and not newest.verifier.signed(before.note):
            # So that who trusts the key before comes to trust this one.
            signing = [each for each in older if each.verifier.signed(before.note)] + signing
        text = checkpoint.text
        note = Note(text, tuple(signer.sign(text) for signer in signing))
        return (
            Head(0, (note,), checkpoint) if before is None else before.followed_by(note, checkpoint)
        )

    async def _publish(self, head: Head) -> None:
        """Raises LostFence rather than put an older checkpoint in the place of a newer one."""
        if await self._published_size() > head.checkpoint.size:
            raise LostFence
        await self._objects.store([Made(tiles.CHECKPOINT, head.note.whole.encode())])

    async def _published_size(self) -> int:
        published = await self._archive.log(self._partition)
        return -1 if published is None else published.size
