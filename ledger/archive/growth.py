"""What a log grows by: from events to the objects that its next checkpoint is about.

Nothing here reads or writes. Whoever does must be ready to begin anew from the last checkpoint:
what was added cannot be taken back.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from ledger.archive import index, merkle, tiles
from ledger.archive.compression import compress, decompress
from ledger.archive.index import Summary, segment_name, segment_ranges
from ledger.archive.leaf import PLAIN_TYPES, NoLeaf, data_hash, entry_of, pack_leaf
from ledger.archive.merging import merge
from ledger.archive.merkle import Range, leaf_hash
from ledger.archive.salts import Salts
from ledger.archive.segment import Segment
from ledger.archive.tiles import APART_BYTES, TILE_WIDTH, Stored
from ledger.store import Recorded


class Made(NamedTuple):
    """An object of the log."""

    name: str
    content: bytes
    compressed: bool = False
    """It lies in the store as `compress` gives it."""

    def pack(self) -> bytes:
        """As it lies in the store. Takes its time, where it is compressed."""
        return compress(self.content) if self.compressed else self.content


class Tail(msgspec.Struct, frozen=True):
    """A log of some size, as far as it must be known to add to it."""

    size: int = 0
    tiles: tuple[Sequence[bytes], ...] = ()
    """By level, the hashes of the last tile, where that is partial."""
    entries: Sequence[bytes] = ()
    """The leaves of the last bundle, where that is partial."""
    stored: Sequence[Stored] = ()
    summaries: Sequence[Summary] = ()
    """Of the segments that its size has."""


class SegmentPlan(msgspec.Struct, frozen=True):
    """A segment to be made: of those before, which it takes the place of, and of new leaves."""

    covered: Range
    parts: tuple[Summary, ...]
    records: list[bytes]

    def make(self, packed_parts: Sequence[bytes]) -> tuple[Made, Summary]:
        """The segment, given those it is made of. Takes its time. Raises NoSegment where one of
        these is not what was committed to."""
        segments = [Segment.parse(packed) for packed in packed_parts]
        for segment, expected in zip(segments, self.parts, strict=True):
            if segment.summary != expected:
                raise index.NoSegment(f"the segment {segment.covered} was altered")
        packed, summary = merge(self.covered, segments, self.records, compress, decompress)
        return Made(segment_name(self.covered), packed), summary


class Chains(Protocol):
    """The hash of each task's last leaf."""

    def of(self, task_id: str) -> bytes:
        """Empty for a task that has no leaf."""
        ...

    def put(self, task_id: str, hashed: bytes) -> None:
        """This is its last one now."""
        ...


class End(NamedTuple):
    """A log's last leaf."""

    entry: bytes
    salt: bytes
    """Of its event's data, if that has one."""


class Growth:
    """A log's end, as events are added to it: `add` some, then `take` what was made of them."""

    def __init__(self, tail: Tail, salts: Salts) -> None:
        self.size = tail.size
        self._salts = salts
        self._levels = [list(hashes) for hashes in tail.tiles] or [[]]
        self._entries = list(tail.entries)
        self._bundle_salts = salts.of_bundle(entry_of(tail.entries[0])) if tail.entries else []
        self._records = [tiles.pack_stored(each) for each in tail.stored]
        self.end: End | None = None
        """The last leaf that was added here."""
        self._owners: list[str] = []
        """Whose leaves those are that the index does not have."""
        self._base = tail.size
        """The size that the last checkpoint has, or will have."""
        self._summaries = list(tail.summaries)
        self._kept = 0
        """How many of these the size has that was planned for last."""
        self._made: list[Made] = []

    def add(self, events: Sequence[Recorded], chains: Chains) -> list[NoLeaf]:
        """Events become the next leaves, each with the hash of its task's last one, which it takes
        the place of in `chains`. Returns what speaks against those that cannot be leaves; they are
        left out."""
        left_out: list[NoLeaf] = []
        at = 0
        while at < len(events):
            some = events[at : at + TILE_WIDTH - len(self._entries)]
            left_out += self._add(some, chains)
            at += len(some)
        return left_out

    def _add(self, events: Sequence[Recorded], chains: Chains) -> list[NoLeaf]:
        """No more of them than the bundle has room for."""
        entries, hashes, records = self._entries, self._levels[0], self._records
        left_out, before = list[NoLeaf](), len(entries)
        for event in events:
            number, data, task_id = len(entries), event.data, event.task_id
            if not number:
                self._bundle_salts = self._salts.of_bundle(event.position.entry)
            salt = b"" if event.type in PLAIN_TYPES else self._bundle_salts[number]
            try:
                entry = pack_leaf(event, chains.of(task_id), data_hash(salt, data))
            except NoLeaf as error:
                left_out.append(error)
                continue
            apart = len(data) > APART_BYTES
            if apart:
                self._made.append(Made(tiles.apart_name(self.size), data, compressed=True))
            records.append(tiles.pack_datum(salt, b"" if apart else data, apart=apart))
            hashed = leaf_hash(entry)
            chains.put(task_id, hashed)
            hashes.append(hashed)
            entries.append(entry)
            self._owners.append(task_id)
            self.size += 1
        if len(entries) > before:
            self.end = End(entries[-1], self._bundle_salts[len(entries) - 1])
        if len(entries) == TILE_WIDTH:
            self._end_bundle()
        return left_out

    def _end_bundle(self) -> None:
        self._made += self._bundles()
        self._entries, self._records = [], []
        self._end_tile()

    @property
    def base(self) -> int:
        """The size of the last checkpoint, or of the one that is being made."""
        return self._base

    @property
    def added(self) -> int:
        """Leaves that no checkpoint has yet."""
        return self.size - self._base

    @property
    def root(self) -> bytes:
        """Of the tree."""
        subtrees: list[bytes] = []
        for hashes in reversed(self._levels):
            at = 0
            for height, _ in merkle.nodes_of(0, len(hashes)):
                subtrees.append(merkle.root(hashes[at : at + (1 << height)]))
                at += 1 << height
        return merkle.fold(subtrees)

    @property
    def index_root(self) -> bytes:
        """Of the index, once its segments were made."""
        return index.index_root(self._summaries)

    def take_whole(self) -> list[Made]:
        """What was made since and will not change any more."""
        made, self._made = self._made, []
        return made

    def take(self) -> list[Made]:
        """What was made since, but for the index."""
        made = self.take_whole()
        made += self._bundles()
        for level, hashes in enumerate(self._levels):
            if hashes:
                made.append(self._tile(level, self.size >> (tiles.TILE_HEIGHT * (level + 1))))
        return made

    def plan(self) -> list[SegmentPlan]:
        """The segments to be made for the size that it has now, which is to be that of a
        checkpoint; what is added from now on belongs to the next one. `planned` takes what came of
        it."""
        self._kept, plans = _kept(self._base, self.size), list[SegmentPlan]()
        parts, at = tuple(self._summaries[self._kept :]), 0
        for covered in segment_ranges(self.size)[self._kept :]:
            count = covered[1] - max(covered[0], self._base)
            owners, first = self._owners[at : at + count], covered[1] - count
            records = index.records_of(owners, first, covered[0])
            plans.append(SegmentPlan(covered, parts, records))
            parts, at = (), at + count
        self._base, self._owners = self.size, []
        return plans

    def planned(self, summaries: Iterable[Summary]) -> None:
        """These are the segments that were planned."""
        del self._summaries[self._kept :]
        self._summaries += summaries

    def _end_tile(self) -> None:
        """The tile of the lowest level is full: so may be those above it."""
        level = 0
        while len(self._levels[level]) == TILE_WIDTH:
            number = (self.size >> (tiles.TILE_HEIGHT * (level + 1))) - 1
            self._made.append(self._tile(level, number))
            hashed, self._levels[level] = merkle.root(self._levels[level]), []
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(hashed)

    def _tile(self, level: int, number: int) -> Made:
        hashes = self._levels[level]
        return Made(tiles.tile_name(level, number, len(hashes)), b"".join(hashes))

    def _bundles(self) -> Iterator[Made]:
        width = len(self._entries)
        if width:
            number = (self.size - 1) // TILE_WIDTH
            entries, data = tiles.pack_entries(self._entries), b"".join(self._records)
            yield Made(tiles.entries_name(number, width), entries, compressed=True)
            yield Made(tiles.data_name(number, width), data, compressed=True)


def superseded(old: int, new: int) -> Iterator[str]:
    """What a log of `old` leaves needs, and one of `new` does not: the segments that became part of
    larger ones, and the partial tiles and bundles that whole ones took the place of.

    Partial ones are left until the whole one is there: who reads the log at an older checkpoint
    goes to that one next (tlog-tiles).
    """
    for covered in segment_ranges(old)[_kept(old, new) :]:
        yield segment_name(covered)


def _kept(old: int, new: int) -> int:
    """How many segments of a log are the same at two sizes, the larger one last."""
    pairs = zip(segment_ranges(old), segment_ranges(new), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), len(segment_ranges(old)))
