"""Who looks up one task reads what that takes of the index, and finds what is in all of it."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.archive import merkle
from ledger.archive.checkpoint import Checkpoint, origin_of
from ledger.archive.compression import compress
from ledger.archive.index import (
    BLOCK,
    HEAD,
    Summary,
    index_root,
    key_of,
    pack_segment,
    segment_name,
    segment_ranges,
)
from ledger.archive.merkle import Range, leaf_hash
from ledger.archive.notes import Note
from ledger.archive.reader import FIRST_BYTES, Archive, Damaged, Incomplete, SealedLog
from ledger.archive.segment import Directory, Segment
from tests.ledger.archive.kept import PREFIX, Kept, sealed
from tests.ledger.archive.rows import rows_in, rows_of
from tests.ledger.archive.sealed import EPOCH, key_file, lives, opened, task_id_of

Read = tuple[str, int, int]


class Watched(Kept):
    """Objects that tell how they were read."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        super().__init__(objects)
        self.whole: list[str] = []
        self.ranges: list[Read] = []

    async def read(self, key: str) -> bytes:
        self.whole.append(key.removeprefix(PREFIX))
        return await super().read(key)

    async def read_range(self, key: str, start: int, length: int) -> bytes:
        found = await super().read(key)
        self.ranges.append((key.removeprefix(PREFIX), start, len(found[start : start + length])))
        return found[start : start + length]

    def taken(self) -> list[Read]:
        taken, self.ranges = self.ranges, []
        return taken


def task(number: int) -> str:
    return str(UUID(int=number))


def index_of(tasks: Sequence[str]) -> Watched:
    """The index of a log whose leaves are those of these tasks, and nothing else of it."""
    kept = Watched()
    for covered in segment_ranges(len(tasks)):
        packed_into(kept, tasks, covered)
    return kept


def packed_into(kept: Kept, tasks: Sequence[str], covered: Range) -> Summary:
    """One of its segments."""
    rows = rows_of((key_of(tasks[number]), number) for number in range(*covered))
    packed, summary = pack_segment(covered, rows, compress)
    kept.objects[PREFIX + segment_name(covered)] = packed
    return summary


def log_of(kept: Kept, size: int) -> SealedLog:
    """Of which nothing was read yet."""
    segments = [Segment.parse(kept[segment_name(covered)]) for covered in segment_ranges(size)]
    root = index_root(each.summary for each in segments)
    checkpoint = Checkpoint(origin_of(EPOCH, 0), size, bytes(32), root)
    return Archive(kept, EPOCH, 1).log_at(0, Note(checkpoint.text, ()), checkpoint)


@pytest.fixture
def small_reads() -> Iterator[int]:
    """Segments of some hundred leaves are large ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledger.archive.reader.FIRST_BYTES", 200)
        yield 200


async def test_of_a_large_segment_its_directory_and_one_block_are_read():
    # given an index of a large segment and small ones
    size = 32_768 + 256 + 10
    kept = index_of([task_id_of(number // 3) for number in range(size)])
    log = log_of(kept, size)
    large, *small = [segment_name(covered) for covered in segment_ranges(size)]
    directory = Directory.parse(kept[large])
    # when a task is looked up
    assert await log.leaves_of(task_id_of(10_000)) == [30_000, 30_001, 30_002]
    # then a block of the large one is read beside its beginning, and the small ones at once
    start, end = directory.span(10_000 // 256)
    assert end - start < len(kept[large]) // 20
    expected = [(large, 0, FIRST_BYTES), (large, start, end - start)]
    assert sorted(kept.taken()) == sorted(
        [*expected, *((name, 0, len(kept[name])) for name in small)]
    )
    # and for the next one, of another block, that block
    await log.leaves_of(task_id_of(5_000))
    start, end = directory.span(5_000 // 256)
    assert kept.taken() == [(large, start, end - start)]
    # and for one beside that, and for its proof, nothing
    await log.leaves_of(task_id_of(5_001))
    await log.places_of(task_id_of(5_001))
    assert kept.taken() == []
    assert kept.whole == []


async def test_a_directory_that_is_longer_is_read_to_its_end(small_reads: int):
    # given a segment with more blocks than its first bytes tell of
    kept = index_of([task(number) for number in range(2_048)])
    log, [name] = log_of(kept, 2_048), ["index/0-2048"]
    directory = Directory.parse(kept[name])
    in_front = HEAD.size + 8 * BLOCK.size
    # when a task is looked up
    assert await log.leaves_of(task(1_000)) == [1_000]
    # then the rest of the directory is read, and a block
    start, end = directory.span(3)
    assert kept.taken() == [
        (name, 0, small_reads),
        (name, small_reads, in_front - small_reads),
        (name, start, end - start),
    ]


async def test_who_goes_on_with_a_log_reads_directories_alone(small_reads: int, tmp_path: Path):
    # given a log
    keys = key_file(tmp_path)
    kept = Watched((await sealed(lives(1_100), keys, 1_100)).objects)
    # when a writer opens it
    await opened(kept, keys)
    # then it has read as much of its index as it must know to add to it
    assert [name for name in kept.whole if name.startswith("index/")] == []
    read = sum(length for name, _, length in kept.taken() if name.startswith("index/"))
    assert read < sum(len(kept[name]) for name in kept.names if name.startswith("index/")) / 4


@given(
    tasks=st.lists(st.integers(min_value=0, max_value=3_000), min_size=1, max_size=700),
    asked=st.lists(st.integers(min_value=0, max_value=3_001), min_size=1, max_size=5),
    spread=st.sampled_from([1, 700]),
    first_bytes=st.sampled_from([HEAD.size, 150, 400, 4_000, FIRST_BYTES]),
    together=st.sampled_from([1, 2, 64]),
)
def test_what_is_looked_up_is_what_the_whole_index_has(
    tasks: list[int], asked: list[int], spread: int, first_bytes: int, together: int
):
    # given an index, with segments of several blocks
    ids = [task(number) for number in (*tasks, *range(0, 700 * spread, spread))]
    kept = Watched()
    summaries = {c: packed_into(kept, ids, c) for c in segment_ranges(len(ids))}
    segments = [Segment.parse(kept[segment_name(covered)]) for covered in summaries]
    whole = [dict[bytes, Sequence[int]](rows_in(each)) for each in segments]

    async def look_up() -> None:
        log = log_of(kept, len(ids))
        for number in asked:
            key = key_of(task(number))
            # when a task is looked up, then its leaves are those that all records together say
            expected = [leaf for rows in whole for leaf in rows.get(key, ())]
            assert await log.leaves_of(task(number)) == expected
            # and what proves them is proved by the segment's root
            found = await log.places_of(task(number))
            for (directory, places), rows in zip(found, whole, strict=True):
                summary = summaries[directory.covered]
                assert directory.summary == summary
                assert [place.key for place in places] == proving(key, rows)
                for place in places:
                    root = merkle.root_from_inclusion(
                        place.number, summary.records, leaf_hash(place.record), place.proof
                    )
                    assert root == summary.root

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledger.archive.reader.FIRST_BYTES", first_bytes)
        patch.setattr("ledger.archive.segment.BLOCKS_TOGETHER", together)
        asyncio.run(look_up())


def proving(key: bytes, rows: dict[bytes, Sequence[int]]) -> list[bytes]:
    """The task's own record, or those beside where it would stand."""
    if key in rows:
        return [key]
    before = [each for each in rows if each < key]
    after = [each for each in rows if each > key]
    return [*before[-1:], *after[:1]]


async def outcome(kept: Kept, size: int, root_of: SealedLog) -> object:
    """What a look-up finds, or what is said to be damaged."""
    log = Archive(kept, EPOCH, 1).log_at(0, root_of.note, root_of.checkpoint)
    try:
        return [await log.leaves_of(task(number)) for number in (1, size // 2, size - 2, size)]
    except (Damaged, Incomplete) as error:
        return type(error), error.name


async def test_damage_is_named_and_hides_no_task(small_reads: int):
    # given a segment of several blocks
    size = 512
    kept = index_of([task(number) for number in range(size)])
    sound, name, packed = log_of(kept, size), "index/0-512", kept["index/0-512"]
    cut = [packed[:length] for length in range(0, len(packed), 37)]
    flipped = [
        packed[:at] + bytes([packed[at] ^ bits]) + packed[at + 1 :]
        for at in (*range(HEAD.size + 2 * BLOCK.size), *range(HEAD.size, len(packed), 41))
        for bits in (0x11, 0x01)
    ]
    right, damaged = await outcome(kept, size, sound), (Damaged, PREFIX + name)
    for first_bytes in (small_reads, FIRST_BYTES):
        named = 0
        for other in (*cut, *flipped, b"", packed + b"!"):
            # when any byte is another one, or it ends sooner
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("ledger.archive.reader.FIRST_BYTES", first_bytes)
                found = await outcome(kept.but(**{name: other}), size, sound)
            # then each look-up finds what is there, or that is said
            assert found in (right, damaged)
            named += found == damaged
        assert named > len(flipped) // 2


async def test_an_index_that_was_begun_anew_takes_the_place_of_the_one_before(small_reads: int):
    # given a log of which the directory was read, and a block
    size = 1_024
    kept = index_of([task(number) for number in range(size)])
    log = log_of(kept, size)
    assert await log.leaves_of(task(10)) == [10]
    # when the archive is lost, and has other events afterwards
    kept.objects = index_of([task(2 * number) for number in range(size)]).objects
    # then look-ups are of those as soon as they meet a block that is not in the directory
    assert await log.leaves_of(task(1_000)) == [500]
    # and nothing is left of the one before
    assert await log.leaves_of(task(10)) == [5]
    [(_, [place])] = await log.places_of(task(2_000))
    assert place.number == 1_000


async def test_a_segment_that_is_taken_away_meanwhile_is_missing(small_reads: int):
    # given a log whose directories were read
    size = 512
    kept = index_of([task(number) for number in range(size)])
    log = log_of(kept, size)
    await log.leaves_of(task(1))
    # when a segment is removed, since there is a larger one, then who still asks it is told
    kept.objects.clear()
    with pytest.raises(Incomplete, match="index/0-512 is missing"):
        await log.leaves_of(task(400))
