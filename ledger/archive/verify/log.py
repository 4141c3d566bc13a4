"""Verifies a partition's log: everything that a checkpoint is about, made anew from the bytes."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import msgspec

from ledger.archive import merkle, tiles
from ledger.archive.checkpoint import origin_of
from ledger.archive.compression import decompress
from ledger.archive.index import segment_name, segment_ranges
from ledger.archive.merkle import Range
from ledger.archive.notes import Verifier
from ledger.archive.reader import log_prefix
from ledger.archive.tiles import TILE_HEIGHT, TILE_WIDTH, Stored
from ledger.archive.verify import bundles
from ledger.archive.verify.bundles import Leaves, Raw
from ledger.archive.verify.faults import Faults, Kind, LogReport, verdict_of
from ledger.archive.verify.history import Point
from ledger.archive.verify.leaves import Checked, LeafChecks
from ledger.archive.verify.listing import Listing
from ledger.archive.verify.partials import Partials
from ledger.archive.verify.segments import Index, check_segment
from ledger.archive.verify.siblings import leads_to_root
from ledger.archive.verify.signed import Signed
from ledger.archive.verify.stream import StreamCheck
from ledger.archive.verify.tree import Tree
from ledger.archive.verify.trust import Trust, renamed
from ledger.objects import ObjectStore, ObjectStoreError

AHEAD: Final = 4
"""Bundles that are read before they are looked at."""

FIRST_SIGNATURE_S: Final = 1.0
"""A key stands in the list of keys before it signs; how long after that it is looked for anew."""

NEWER_MAX: Final = 20
"""How often the end of a log that grows meanwhile is looked for anew."""


class Options(msgspec.Struct, frozen=True):
    """What whoever verifies knows beforehand."""

    keys: tuple[Verifier, ...] = ()
    """That he trusts, whatever log they are named for; without any, the archive's own word."""
    witnesses: tuple[Verifier, ...] = ()
    """That must have cosigned."""
    seen: tuple[Point, ...] = ()
    """What others say that the log was."""
    told: tuple[int, bytes] = (0, b"")
    """What the ledger says was sealed: how many leaves, and the hash of the last one."""


class LogCheck:
    """One partition's log, verified once."""

    def __init__(
        self,
        objects: ObjectStore,
        epoch: str,
        partition: int,
        options: Options,
        stream: StreamCheck | None,
        faults: Faults,
        progress: Callable[[int], None],
    ) -> None:
        self._objects = objects
        self._partition = partition
        self._origin = origin_of(epoch, partition)
        self._prefix = log_prefix(epoch, partition)
        self._options = options
        self._stream = stream
        self._faults = faults
        self._progress = progress
        self._listing = Listing()
        self._partials = Partials(self._read, self._listing, faults)
        known = [renamed(key, self._origin) for key in options.keys]
        self._trust = Trust(known, options.witnesses)
        self._signed = Signed(self._origin, self._read, self._listing, self._trust, faults)
        self._leaves = LeafChecks(partition, faults)
        self._tree: Tree | None = Tree()
        self._index: Index | None = Index()
        self._segments_checked: set[Range] = set()
        self._points: deque[Point] = deque()
        self._wrong: list[Point] = []
        self._right_up_to = 0
        self._listed_size = 0
        self._size = self._tasks = 0
        self._has_waited = False

    async def run(self) -> LogReport:
        """Read it from one end to the other."""
        try:
            await self._run()
        except ObjectStoreError as error:
            self._faults.add(Kind.UNREADABLE, self._prefix, str(error))
        finally:
            self._leaves.close()
        return self._report()

    async def _run(self) -> None:
        await self._read_listing()
        await self._read_signed()
        if self._stream is not None:
            await self._stream.begin()
        await self._check_points(b"")
        for _ in range(NEWER_MAX):
            size = self._signed.head
            if await self._check_leaves(size) and await self._check_end(size):
                if not await self._is_explained_by_newer():
                    break
        self._leaves.end()
        self._tasks = self._leaves.chains.tasks  # the ledger may have more
        self._tell_wrong()
        self._tell_unused_key()
        self._tell_witnesses()
        if self._stream is not None:
            leaves = self._leaves
            await self._stream.finish(leaves.position, leaves.chains, leaves.erasures)
        self._faults.notices += self._leaves.erasures.finish()

    # -- what was signed ----------------------------------------------------------------------

    async def _read_listing(self) -> None:
        async for page in self._objects.listed(self._prefix):
            for each in page:
                self._listing.add(each.key.removeprefix(self._prefix))

    async def _read_signed(self) -> None:
        await self._signed.read_all()
        head = self._listed_size = self._signed.head
        for point in self._options.seen:
            if point.size > head:
                reason = f"the log has {head} leaves, and had {point.size} when it was seen"
                self._faults.add(Kind.TRUNCATED, point.where, reason)
        told = self._options.told[0]
        if told > head:
            reason = f"the log has {head} leaves, and the ledger knows of {told} sealed events"
            self._faults.add(Kind.TRUNCATED, tiles.CHECKPOINT, reason)
        self._line_up_points()

    async def _has_grown(self) -> bool:
        """Whether there is a newer checkpoint, which is taken then. What is gone of an older one
        was superseded."""
        is_newer = await self._signed.read_newer()
        self._line_up_points()
        if self._stream is not None:
            await self._stream.extend()
        return is_newer

    async def _is_explained_by_newer(self) -> bool:
        """Whether what is wrong may be so because the log has grown, which is taken then: data was
        erased by an event that was sealed meanwhile, or the newest key is about to sign, which is
        waited for once."""
        is_unused = self._trust.unused is not None and self._signed.head and not self._has_waited
        if is_unused:
            self._has_waited = True
            await asyncio.sleep(FIRST_SIGNATURE_S)
        elif not self._leaves.erasures.has_unexplained:
            return False
        return await self._has_grown()

    def _line_up_points(self) -> None:
        points = [*self._signed.points, *self._options.seen]
        points.sort(key=lambda point: point.size)
        self._points = deque(each for each in points if each.size > self._size or not self._size)

    # -- leaves -------------------------------------------------------------------------------

    async def _check_leaves(self, size: int) -> bool:
        """All leaves up to a size; False where the end of the log is another one by now."""
        async for raw in self._raws(size):
            is_gone = None in (raw.entries, raw.data, raw.tile)
            if is_gone and raw.width < TILE_WIDTH and await self._has_grown():
                return False
            await self._check_bundle(raw, size)
        return True

    async def _raws(self, size: int) -> AsyncIterator[Raw]:
        """The bundles up to a size that were not looked at, or not whole."""
        waiting: deque[asyncio.Task[Raw]] = deque()
        number, end = self._size // TILE_WIDTH, -(-size // TILE_WIDTH)
        try:
            while waiting or number < end:
                while number < end and len(waiting) < AHEAD:
                    width = tiles.width_of(number, 0, size)
                    waiting.append(asyncio.ensure_future(self._raw(number, width)))
                    number += 1
                yield await waiting.popleft()
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _raw(self, number: int, width: int) -> Raw:
        entries, data, tile = await asyncio.gather(
            self._read(tiles.entries_name(number, width)),
            self._read(tiles.data_name(number, width)),
            self._read(tiles.tile_name(0, number, width)),
        )
        return Raw(number, width, entries, data, tile)

    async def _check_bundle(self, raw: Raw, size: int) -> None:
        faults = self._faults
        entries = bundles.unpacked_entries(raw, faults)
        name = tiles.tile_name(0, raw.number, raw.width)
        tile = bundles.unpacked_tile(name, raw.tile, raw.width, faults)
        is_right = await self._which_is_right(raw, entries, tile)
        leaves = bundles.compared(raw, entries, tile, is_right, faults)
        data = bundles.unpacked_data(raw, faults)
        await self._partials.check(raw, leaves, data)
        if data is not None:
            await self._check_apart(raw.number * TILE_WIDTH, data)
        first = raw.number * TILE_WIDTH
        checked: list[Checked] = []
        if not leaves.hashes:
            self._lose_tree()
        self._check_told(first, leaves)
        at = self._size - first
        while at < raw.width:
            end = min(raw.width, self._points[0].size - first if self._points else raw.width)
            keys: list[bytes] = []
            for place in range(at, end):
                entry = leaves.entries[place] if leaves.entries else None
                if entry is None:
                    self._index = None
                    self._leaves.open_hole()
                    continue
                stored = data[place] if data is not None else None
                apart = None
                if stored is not None and stored.apart:
                    apart = await self._apart(first + place)
                hashed = leaves.hashes[place]
                found = self._leaves.check(first + place, entry, hashed, stored, apart)
                if found is None:
                    self._index = None
                    continue
                keys.append(found.key)
                checked.append(found)
            if self._index is not None:
                self._index.add(keys)
            if self._tree is not None:
                await self._grow(leaves.hashes[at:end], size)
            at, self._size = end, first + end
            await self._check_points(leaves.entries[at - 1] if leaves.entries else None)
        if self._stream is not None:
            await self._stream.compare(checked, self._leaves.chains)
        self._progress(len(checked))

    def _check_told(self, first: int, leaves: Leaves) -> None:
        size, hashed = self._options.told
        if self._size < size <= first + len(leaves.hashes):
            if leaves.hashes[size - 1 - first] != hashed:
                reason = "it is not what the ledger knows was sealed there"
                self._faults.add(Kind.ALTERED, f"leaf {size - 1}", reason)

    async def _apart(self, index: int) -> bytes | None:
        """The data of a leaf, where it lies apart; None where it is not there, or not to be
        read, which was told then."""
        name = tiles.apart_name(index)
        packed = await self._read(name)
        if packed is None:
            self._faults.add(Kind.MISSING, name, f"the data of leaf {index}")
            return None
        try:
            return decompress(packed)
        except ValueError as error:
            self._faults.add(bundles.kind_of(error), name, f"the data of leaf {index}: {error}")
            return None

    async def _check_apart(self, first: int, data: Sequence[Stored]) -> None:
        """No data lies apart but that of leaves that say so. An erasure that was interrupted has
        it removed later on."""
        start = max(first, self._size)
        for index in self._listing.apart_in(start, first + len(data)):
            if data[index - first].apart:
                continue
            name = tiles.apart_name(index)
            if await self._read(name) is not None:
                is_of = "was erased" if data[index - first].erased else "lies elsewhere"
                self._faults.notice(f"{name} is still there, and the data of its leaf {is_of}")

    # -- the tree and the index ---------------------------------------------------------------

    async def _grow(self, hashes: Sequence[bytes], size: int) -> None:
        assert self._tree is not None  # noqa: S101 - the caller looked
        for level, number, found in list(self._tree.add(hashes)):
            if level:
                await self._check_tile(level, number, found, size)

    async def _check_tile(self, level: int, number: int, right: Sequence[bytes], size: int) -> None:
        """A tile above those of the leaves, which those say."""
        name = tiles.tile_name(level, number, len(right))
        found = bundles.unpacked_tile(name, await self._read(name), len(right), self._faults)
        await self._partials.check_tiles(level, number, right)
        for at, (a, b) in enumerate(zip(right, found or right, strict=True)):
            if a == b:
                continue
            below = number * TILE_WIDTH + at << TILE_HEIGHT * level
            covered = (below, below + (1 << TILE_HEIGHT * level))
            if await self._leads_to_root(covered, [b], size):
                reason = f"leaves {covered[0]} to {covered[1] - 1} are not what was sealed"
                self._faults.add(Kind.ALTERED, name, f"{reason}, nor are their tiles")
                self._lose_tree()
            else:
                reason = f"its hash of leaves {covered[0]} to {covered[1] - 1} is not theirs"
                self._faults.add(Kind.ALTERED, name, reason)

    def _lose_tree(self) -> None:
        """Nobody knows any more what the root is."""
        self._tree = self._index = None

    async def _which_is_right(
        self, raw: Raw, entries: Sequence[bytes] | None, tile: Sequence[bytes] | None
    ) -> bool | None:
        """Whether it is the tile; None where it is not known, or does not matter."""
        if entries is None or tile is None:
            return None
        hashes = [merkle.leaf_hash(entry) for entry in entries]
        if hashes == tile:
            return None
        first = raw.number * TILE_WIDTH
        covered = (first, first + raw.width)
        if await self._leads_to_root(covered, tile, self._signed.head):
            return True
        return False if await self._leads_to_root(covered, hashes, self._signed.head) else None

    async def _leads_to_root(self, covered: Range, hashes: Sequence[bytes], size: int) -> bool:
        points = self._signed.points
        root = next((each.root for each in reversed(points) if each.size == size), b"")
        return await leads_to_root(root, covered, hashes, size, self._read)

    async def _check_points(self, entry: bytes | None) -> None:
        """What was signed of the leaves so far; `entry`: the last one of them."""
        while self._points and self._points[0].size <= self._size:
            point = self._points.popleft()
            if self._tree is not None and self._tree.root() != point.root:
                self._wrong.append(point)
            elif self._tree is not None:
                self._right_up_to = point.size
            if point.last and entry is not None:
                self._check_last(point)
            if self._index is not None:
                await self._check_index(point)

    def _check_last(self, point: Point) -> None:
        entry = self._leaves.position.entry
        if point.last != entry:
            reason = f"it says that the last event stands at {point.last}, not {entry}"
            self._faults.add(Kind.FORGED, point.where, reason)

    async def _check_index(self, point: Point) -> None:
        assert self._index is not None  # noqa: S101 - the caller looked
        root = self._index.root()
        if point.index_root not in (None, root):
            reason = "its index is not that of its leaves: it has tasks' events wrong, or not all"
            self._faults.add(Kind.FORGED, point.where, reason)
        for covered, right in self._index.fresh.items():
            is_listed = covered in self._listing.segments or point.size > self._listed_size
            if is_listed and (packed := await self._read(segment_name(covered))) is not None:
                self._segments_checked.add(covered)
                try:
                    check_segment(packed, right)
                except ValueError as error:
                    self._faults.add(Kind.ALTERED, segment_name(covered), str(error))

    async def _check_end(self, size: int) -> bool:
        """What there is of a log of this size, and not of a larger one; False where it is gone,
        since the log has grown."""
        partial = [] if self._tree is None else [each for each in self._tree.partial() if each[0]]
        names = [tiles.tile_name(level, number, len(some)) for level, number, some in partial]
        needed = {segment_name(c): c for c in segment_ranges(size)}
        names += [name for name, c in needed.items() if c not in self._segments_checked]
        gone = [name for name in names if await self._read(name) is None]
        if gone and await self._has_grown():
            return False
        for level, number, some in partial:
            await self._check_tile(level, number, some, size)
        for name in gone:
            if name in needed:
                self._faults.add(Kind.MISSING, name, "this segment of the index is not there")
        return True

    # -- what it comes to ---------------------------------------------------------------------

    def _tell_wrong(self) -> None:
        """Checkpoints whose root is not that of the leaves."""
        if not self._wrong:
            return
        if self._right_up_to == self._signed.head:
            for point in self._wrong:
                reason = "it is of another history than what was sealed after it"
                self._faults.add(Kind.FORGED, point.where, reason)
            return
        first = next(each for each in self._wrong if each.size > self._right_up_to)
        where = f"leaves {self._right_up_to} to {first.size - 1}"
        reason = f"they are not what was sealed: {first.where} has another root"
        self._faults.add(Kind.ALTERED, where, reason)

    def _tell_unused_key(self) -> None:
        newest = self._trust.unused
        if newest is not None and self._signed.points:
            reason = (
                f"it is the newest, and not signed by {newest.vkey}, the newest key: whoever has an"
                " older one may have rewritten all (or the archiver was stopped as it changed its"
                " key, and has sealed nothing since)"
            )
            self._faults.add(Kind.FORGED, self._signed.points[-1].where, reason)

    def _tell_witnesses(self) -> None:
        head = self._signed.head
        for each in self._options.witnesses:
            size = self._signed.history.witnessed.get(each)
            if size is None:
                reason = f"the witness {each.vkey} has cosigned no checkpoint"
                self._faults.add(Kind.MISSING, tiles.CHECKPOINT, reason)
            elif size < head:
                self._faults.notice(f"{each.name} has cosigned {size} of {head} leaves")

    def _report(self) -> LogReport:
        unknown = self._leaves.chains.unknown_types
        for name, count in unknown.items():
            reason = f"{count} events of the type {name!r}: this version does not know it"
            self._faults.add(Kind.UNREADABLE, self._prefix, reason)
        listing = self._listing
        if listing.unexpected:
            more = f" and {listing.more_unexpected} more" if listing.more_unexpected else ""
            names = ", ".join(listing.unexpected)
            self._faults.notice(f"objects that are none of an archive: {names}{more}")
        stream = self._stream
        return LogReport(
            verdict_of(self._faults.kinds),
            self._partition,
            self._origin,
            self._size,
            len(self._signed.points),
            self._tasks,
            tuple(each.vkey for each in self._trust.signed),
            self._leaves.erasures.events,
            len(self._leaves.erasures.tasks),
            stream.same if stream else 0,
            stream.beyond if stream else 0,
            {each.vkey: size for each, size in self._signed.history.witnessed.items()},
            tuple(self._faults.named),
            self._faults.more,
            tuple(self._faults.notices),
        )

    async def _read(self, name: str) -> bytes | None:
        """An object, or None where there is none."""
        try:
            return await self._objects.read(self._prefix + name)
        except FileNotFoundError:
            return None
