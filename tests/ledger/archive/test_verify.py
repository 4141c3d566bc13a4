"""What was done to an archive is found and named, and nothing is named where nothing was done."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest
from msgspec.structs import replace

from ledger.archive import tiles
from ledger.archive.checkpoint import Checkpoint
from ledger.archive.compression import compress, decompress
from ledger.archive.index import key_of
from ledger.archive.key_list import introduce, pack_keys, unpack_keys
from ledger.archive.keys import ArchiveKeys, KeyFile
from ledger.archive.notes import BadNote, Note, NoteSigner, pack_notes, unpack_notes
from ledger.archive.verify import log
from ledger.archive.verify.bundles import unpacked_tile
from ledger.archive.verify.faults import (
    FAULTS_NAMED_MAX,
    Fault,
    Faults,
    Kind,
    LogReport,
    Verdict,
    verdict_of,
)
from ledger.archive.verify.history import History, Point
from ledger.archive.verify.listing import Listing
from ledger.archive.verify.log import Options
from ledger.archive.verify.segments import Index, check_segment
from ledger.archive.verify.tasks import Last, LastEvents
from ledger.archive.verify.trust import Trust
from ledger.codec import encode
from ledger.objects.local_folder import LocalFolder
from ledger.store import Position, Recorded
from ledger.system.events import ArchiveHalted
from tests.ledger.archive.kept import PREFIX, Kept, keys_of, sealed, some_events, verified
from tests.ledger.archive.sealed import EPOCH, key_file, opened, seal, system_event

LEFT: Final = b'{"task_type":"health_check","kb_id":"kb","payload":null}'
EVENTS = some_events(300)
CUTS = (100, 256, 270, 300)
ROTATED_AT = 256
LATER: Final = Position(0, "1963811000000-0")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    return key_file(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def archive(keys: KeyFile) -> Kept:
    return asyncio.run(sealed(EVENTS, keys, *CUTS, rotate_at=ROTATED_AT))


def lines(report: LogReport) -> str:
    return "\n".join(fault.line for fault in report.faults)


def only(report: LogReport) -> Fault:
    assert len(report.faults) == 1, lines(report)
    return report.faults[0]


# -- nothing was done -------------------------------------------------------------------------


async def test_an_archive_is_as_it_was_sealed(archive: Kept, keys: KeyFile) -> None:
    report = await verified(archive, Options(keys=keys_of(keys)[:1]), EVENTS)

    assert report.faults == () and report.notices == ()
    assert report.verdict is Verdict.FINE
    assert (report.size, report.checkpoints, report.in_stream) == (300, len(CUTS), 300)
    assert report.keys == tuple(key.vkey for key in keys_of(keys))


async def test_who_trusts_the_newest_key_trusts_those_before_it(
    archive: Kept, keys: KeyFile
) -> None:
    report = await verified(archive, Options(keys=keys_of(keys)[-1:]))

    assert report.faults == ()


async def test_every_size_is_as_it_was_sealed(keys: KeyFile) -> None:
    for size in (1, 2, 255, 256, 257):
        report = await verified(await sealed(EVENTS[:size], keys, size))

        assert (report.faults, report.size) == ((), size)


async def test_the_events_of_the_service_are_verified_too(keys: KeyFile) -> None:
    first = replace(system_event(1), version=1)
    second = replace(system_event(2, prev=first.position.entry), version=2)

    report = await verified(await sealed([first, second], keys, 1, 2), stream=[first, second])

    assert (report.faults, report.tasks, report.in_stream) == ((), 0, 2)


async def test_what_was_not_sealed_yet_follows_on(archive: Kept, keys: KeyFile) -> None:
    kept = await sealed(EVENTS[:200], keys, 200)

    report = await verified(kept, stream=EVENTS[50:])

    assert (report.faults, report.in_stream, report.not_sealed) == ((), 150, 100)
    # and tasks are those of the events that were sealed
    assert report.tasks == len({event.task_id for event in EVENTS[:200]})


async def test_what_cannot_be_sealed_is_not_missed(archive: Kept) -> None:
    # given an event of the ledger that has more meta than a leaf may have
    before = Position(0, f"{EVENTS[0].position.order[0] - 1}-0")
    long = replace(EVENTS[0], position=before, meta=b'"%b"' % (b"m" * 70_000))

    report = await verified(archive, stream=[long, *EVENTS])

    assert report.verdict is Verdict.FINE
    [notice] = report.notices
    assert notice.startswith(f"an event of the ledger cannot be sealed, and was left out: {before}")


async def test_that_sealing_was_halted_once_is_told(keys: KeyFile) -> None:
    data = encode(ArchiveHalted(0, "the ledger ends at 0:1-0"))
    halted = replace(system_event(1), type="ArchiveHalted", data=data)

    report = await verified(await sealed([halted], keys, 1))

    assert report.verdict is Verdict.FINE
    [notice] = report.notices
    assert notice == (
        f"at {halted.position} the sealing of partition 0 halted, until somebody let it go on:"
        " the ledger ends at 0:1-0"
    )


async def test_a_clock_that_went_back_is_told(keys: KeyFile) -> None:
    back = [replace(EVENTS[0]), replace(EVENTS[1], at=EVENTS[1].at - 60_000)]

    report = await verified(await sealed(back, keys, 2))

    assert report.verdict is Verdict.FINE
    assert report.notices == (f"at {back[1].position} the clock went back by 60000 ms",)


# -- every byte -------------------------------------------------------------------------------


def flipped(packed: bytes, at: int) -> bytes:
    return packed[:at] + bytes([packed[at] ^ 1 + at % 255]) + packed[at + 1 :]


async def test_flipped_bytes_are_found_and_the_object_is_named(archive: Kept) -> None:
    """Of each object, the first byte, the last one, and some between."""
    for name in archive.names:
        packed = archive[name]
        for at in sorted({*range(0, len(packed), 1 + len(packed) // 5), len(packed) - 1}):
            report = await verified(archive.but(**{name: flipped(packed, at)}))

            assert report.verdict is Verdict.TAMPERED, (name, at)
            assert any(name in fault.where for fault in report.faults), (name, at, lines(report))


def is_compressed(name: str) -> bool:
    return name.startswith(("data/", "tile/entries/"))


def test_every_flipped_byte_of_what_is_compressed_is_found(archive: Kept) -> None:
    """As verify does it first of all with these objects. Of the largest one, some are flipped."""
    for name in filter(is_compressed, archive.names):
        packed = archive[name]
        for at in range(0, len(packed), 1 + len(packed) // 5_000):
            with pytest.raises(ValueError, match="damaged"):
                decompress(flipped(packed, at))


def test_every_flipped_byte_of_tiles_is_found(archive: Kept) -> None:
    for name in [each for each in archive.names if tiles_hashes(each)]:
        packed = archive[name]
        right = tiles.hashes_in(packed)
        for at in range(len(packed)):
            faults = Faults()
            found = unpacked_tile(name, flipped(packed, at), len(right), faults)
            assert found != right


def tiles_hashes(name: str) -> bool:
    return name.startswith("tile/") and not is_compressed(name)


async def test_every_flipped_byte_of_what_is_signed_is_found(tmp_path: Path) -> None:
    archive = await sealed(EVENTS[:2], key_file(tmp_path), 1, 2, rotate_at=1)
    for name in ("checkpoint", "checkpoints/000", "keys"):
        packed = archive[name]
        assert not faults_of_signed(archive, name, packed)
        for at in range(len(packed)):
            assert faults_of_signed(archive, name, flipped(packed, at)), (name, at)


def faults_of_signed(archive: Kept, name: str, packed: bytes) -> Faults:
    """What is found of the checkpoints and keys, where one of their objects is another."""
    faults = Faults()
    origin = f"ledgerq/{EPOCH}/0"
    changed = archive.but(**{name: packed})
    trust = Trust(())
    try:
        trust.introduce("keys", origin, unpack_keys(changed["keys"]), faults)
    except BadNote as error:
        faults.add(Kind.ALTERED, name, str(error))
        return faults
    if name != "keys":
        history = History(origin, trust, faults)
        history.add_list(0, changed["checkpoints/000"], is_last=True)
        history.add_published(changed["checkpoint"])
    return faults


def test_every_flipped_byte_of_the_index_is_found(archive: Kept) -> None:
    for name in [each for each in archive.names if each.startswith("index/")]:
        start, end = map(int, name.removeprefix("index/").split("-"))
        index = Index()
        for size in segment_ends(start, end):
            index.add([key_of(event.task_id) for event in EVENTS[index.size : size]])
            index.root()
        right = index.fresh[start, end]
        check_segment(archive[name], right)
        for at in range(len(archive[name])):
            with pytest.raises(ValueError):
                check_segment(flipped(archive[name], at), right)


def segment_ends(start: int, end: int) -> Sequence[int]:
    return [start, end] if start else [end]


async def test_flipped_bytes_in_a_folder_are_found(archive: Kept, tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    for key, packed in archive.objects.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(packed)
    store = LocalFolder(folder)
    assert (await verified(store)).faults == ()

    for name in archive.names:
        path, packed = folder / PREFIX / name, archive[name]
        path.write_bytes(flipped(packed, len(packed) // 2))
        report = await verified(store)
        path.write_bytes(packed)
        assert any(name in fault.where for fault in report.faults), name
    await store.close()


async def test_a_list_that_a_late_writer_wrote_lacks_the_last_checkpoint_for_a_while(
    archive: Kept,
) -> None:
    notes = unpack_notes(archive["checkpoints/000"])

    report = await verified(archive.but(**{"checkpoints/000": pack_notes(notes[:-1])}))

    assert (report.faults, report.size) == ((), 300)


class Late(Kept):
    """One that has its first checkpoint alone, until it is read again."""

    reads = 0

    async def read(self, key: str) -> bytes:
        found = await super().read(key)
        if key == PREFIX + "checkpoint" and not self.reads:
            return unpack_notes(self["checkpoints/000"])[0].whole.encode()
        if key == PREFIX + "checkpoints/000":
            self.reads += 1
            return found if self.reads > 1 else pack_notes(unpack_notes(found)[:1])
        return found


async def test_a_replaced_key_cannot_sign_another_history(
    archive: Kept, keys: KeyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stole it seals everything anew, and keeps the genuine list of keys."""
    monkeypatch.setattr(log, "FIRST_SIGNATURE_S", 0.0)
    stolen = KeyFile(tmp_path / "stolen")
    stolen.path.write_text(ArchiveKeys(keys.keys().salts, keys.keys().seeds[:1]).text)
    stolen.path.chmod(0o600)
    rewritten = await sealed([*EVENTS[:-1], replace(EVENTS[-1], at=EVENTS[-1].at + 1)], stolen, 300)
    forged = rewritten.but(keys=archive["keys"])

    for known in ((), keys_of(keys)[:1], keys_of(keys)[-1:]):
        fault = only(await verified(forged, Options(keys=known)))

        assert (fault.kind, fault.where) == (Kind.FORGED, "checkpoints/000 (size 300)")
        assert f"not signed by {keys_of(keys)[-1].vkey}" in fault.reason


async def test_a_key_that_was_just_listed_signs_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "FIRST_SIGNATURE_S", 0.0)
    file = key_file(tmp_path)
    after = await sealed(EVENTS, file, 256, 300, rotate_at=256)
    report = await verified(Late(after.objects), Options(keys=keys_of(file)[-1:]))

    assert (report.faults, report.size) == ((), 300)


# -- what is missing --------------------------------------------------------------------------


async def test_a_missing_object_is_named_and_nothing_else_is_wrong(archive: Kept) -> None:
    needed = [
        name
        for name in archive.names
        if name not in ("checkpoint", "index/256-270") and not name.endswith(".p/14")
    ]
    for name in needed:
        report = await verified(archive.but(**{name: None}), stream=EVENTS)

        assert report.verdict is Verdict.INCOMPLETE, (name, lines(report))
        assert only(report).where == name


async def test_a_stray_list_of_checkpoints_is_told_of_in_few_words(archive: Kept) -> None:
    # given an object where a list would be after some hundred million of others
    stray = "checkpoints/x999/x999/999"

    report = await verified(archive.but(**{stray: b"no notes"}), stream=EVENTS)

    # then of what would have to be before it, the first ones are named, and the others counted
    missing = [fault for fault in report.faults if fault.kind is Kind.MISSING]
    assert [fault.where for fault in missing] == [f"checkpoints/00{n}" for n in range(1, 7)]
    assert missing[-1].reason == (
        f"999,999,993 objects of the list of the checkpoints, before {stray}, are not there"
    )
    others = [fault.where for fault in report.faults if fault.kind is not Kind.MISSING]
    assert sorted(others) == ["checkpoints/000", stray]


async def test_a_truncated_bundle_is_named(archive: Kept) -> None:
    name = "tile/entries/000"

    report = await verified(archive.but(**{name: archive[name][:-100]}), stream=EVENTS)

    assert (only(report).kind, only(report).where) == (Kind.TRUNCATED, name)


async def test_an_archive_that_lost_its_end_is_found_by_who_saw_it(
    archive: Kept, keys: KeyFile
) -> None:
    seen = Point("a witness", 300, b"", None, "")
    older = await sealed(EVENTS[:200], keys, 200)

    report = await verified(older, Options(seen=(seen,)))

    assert (only(report).kind, only(report).where) == (Kind.TRUNCATED, "a witness")


# -- what was done to bundles by somebody without the key --------------------------------------

Leaves = list[bytes]


def rewritten(archive: Kept, change: Callable[[Leaves], object]) -> Kept:
    name = "tile/entries/000"
    entries = tiles.unpack_entries(decompress(archive[name]))
    change(entries)
    return archive.but(**{name: compress(tiles.pack_entries(entries))})


def drop(entries: Leaves) -> None:
    del entries[5]


def cut(entries: Leaves) -> None:
    del entries[-1]


def swap(entries: Leaves) -> None:
    entries[5], entries[6] = entries[6], entries[5]


def double(entries: Leaves) -> None:
    entries.insert(5, entries[5])


def forge(entries: Leaves) -> None:
    entries.insert(5, entries[5][:-1])


def alter(entries: Leaves) -> None:
    entries[5] = entries[5].replace(b'"version":', b'"version":1')


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [
        (drop, Kind.DROPPED, "5"),
        (cut, Kind.TRUNCATED, "255"),
        (swap, Kind.REORDERED, "5, 6"),
        (double, Kind.FORGED, "257"),
        (forge, Kind.FORGED, "257"),
        (alter, Kind.ALTERED, f"leaf 5 at {EVENTS[5].position.entry}"),
    ],
)
async def test_what_was_done_to_leaves_is_named(
    archive: Kept, change: Callable[[Leaves], object], kind: Kind, named: str
) -> None:
    report = await verified(rewritten(archive, change), stream=EVENTS)

    assert only(report).kind is kind
    assert named in only(report).line


async def test_altered_data_is_named_by_its_event(archive: Kept) -> None:
    stored = tiles.unpack_data(decompress(archive["data/000"]))
    stored[9] = replace(stored[9], data=stored[9].data.replace(b"}", b" }"))

    report = await verified(archive.but(**{"data/000": compress(tiles.pack_data(stored))}))

    assert (only(report).kind, only(report).where) == (Kind.ALTERED, str(EVENTS[9].position))


async def test_an_altered_tile_is_told_from_altered_leaves(archive: Kept) -> None:
    name = "tile/0/000"

    report = await verified(archive.but(**{name: flipped(archive[name], 32 * 7)}))

    assert (only(report).kind, only(report).where) == (Kind.ALTERED, name)
    assert "leaf 7" in only(report).reason


async def test_leaves_altered_together_with_their_tile_are_found(
    archive: Kept, keys: KeyFile
) -> None:
    other = await sealed([replace(EVENTS[0], at=EVENTS[0].at + 1), *EVENTS[1:]], keys, *CUTS)
    names = ("tile/entries/000", "tile/0/000", "data/000")

    report = await verified(archive.but(**{name: other[name] for name in names}))

    assert report.verdict is Verdict.TAMPERED
    assert "leaves 0 to 255 are not what was sealed" in lines(report)


# -- what somebody with the key did -----------------------------------------------------------


async def resealed(events: Sequence[Recorded], keys: KeyFile) -> Kept:
    """Another history, signed as the first one was."""
    return await sealed(events, keys, len(events))


async def test_a_rewritten_history_is_found_through_the_ledger(keys: KeyFile) -> None:
    altered = replace(EVENTS[120], meta=b'{"actor":"somebody else","commit":"c"}')
    kept = await resealed([*EVENTS[:120], altered, *EVENTS[121:]], keys)
    assert (await verified(kept)).faults == ()

    report = await verified(kept, stream=EVENTS[100:])

    assert (only(report).kind, only(report).where) == (Kind.ALTERED, str(altered.position))
    assert "its meta" in only(report).reason


async def test_a_rewritten_history_is_found_through_who_saw_the_first_one(
    archive: Kept, keys: KeyFile
) -> None:
    altered = replace(EVENTS[120], meta=b'{"actor":"somebody else","commit":"c"}')
    kept = await resealed([*EVENTS[:120], altered, *EVENTS[121:]], keys)
    first = (await history_of(archive))[1]

    report = await verified(kept, Options(seen=(replace(first, where="a witness"),)))

    assert only(report).where == "a witness"


async def history_of(archive: Kept) -> list[Point]:
    notes = unpack_notes(archive["checkpoints/000"])
    found = [Checkpoint.parse(note.text) for note in notes]
    return [Point("", each.size, each.root, each.index_root, each.last) for each in found]


async def test_a_last_event_that_was_left_out_is_found_through_the_ledger(keys: KeyFile) -> None:
    report = await verified(await resealed(EVENTS[:-2] + EVENTS[-1:], keys), stream=EVENTS)

    assert any(
        (each.kind, each.where) == (Kind.DROPPED, str(EVENTS[-2].position))
        for each in report.faults
    )


async def test_a_ledger_that_lost_its_newest_events_is_told(archive: Kept) -> None:
    report = await verified(archive, stream=EVENTS[:290])

    assert only(report).kind is Kind.DROPPED
    assert "lost its newest events" in only(report).reason


async def test_an_event_that_was_taken_out_of_the_ledger_is_told(archive: Kept) -> None:
    report = await verified(archive, stream=EVENTS[100:150] + EVENTS[151:])

    assert (only(report).kind, only(report).where) == (Kind.DROPPED, str(EVENTS[150].position))


def without_one(events: list[Recorded]) -> None:
    del events[20]


def twice(events: list[Recorded]) -> None:
    events.insert(21, events[20])


def in_another_order(events: list[Recorded]) -> None:
    events[20], events[21] = events[21], events[20]


def same_version_again(events: list[Recorded]) -> None:
    events.append(replace(events[-1], position=LATER, prev=events[-1].position.entry))


def after_the_end(events: list[Recorded]) -> None:
    end = next(event for event in reversed(events) if event.type == "TaskCompleted")
    events.append(following(end, "TaskReleased", b"{}"))


def of_another_attempt(events: list[Recorded]) -> None:
    start = next(event for event in reversed(events) if event.type == "TaskStarted")
    events.append(following(start, "TaskProgressed", b'{"attempt":2,"progress":1}'))


def unreadable(events: list[Recorded]) -> None:
    start = next(event for event in reversed(events) if event.type == "TaskStarted")
    events.append(following(start, "TaskCompleted", b"{"))


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [
        (without_one, Kind.DROPPED, "was dropped"),
        (twice, Kind.REORDERED, "comes after"),
        (in_another_order, Kind.REORDERED, "comes after"),
        (same_version_again, Kind.FORGED, "stood at"),
        (after_the_end, Kind.FORGED, "TaskReleased cannot happen to a completed task"),
        (of_another_attempt, Kind.FORGED, "attempt 2, while attempt 1 ran"),
        (unreadable, Kind.FORGED, "cannot be read"),
    ],
)
async def test_histories_that_cannot_be_are_named(
    keys: KeyFile, change: Callable[[list[Recorded]], None], kind: Kind, named: str
) -> None:
    events = list(EVENTS)
    change(events)

    report = await verified(await resealed(events, keys))

    assert any(fault.kind is kind and named in fault.line for fault in report.faults), lines(report)


def following(last: Recorded, kind: str, data: bytes) -> Recorded:
    """The next event of the same task, after all others."""
    version, prev = last.version + 1, last.position.entry
    return replace(last, position=LATER, type=kind, version=version, prev=prev, data=data)


async def test_two_histories_that_were_both_signed_are_found(archive: Kept, keys: KeyFile) -> None:
    altered = replace(EVENTS[10], at=EVENTS[10].at + 1)
    other = await sealed([*EVENTS[:10], altered, *EVENTS[11:]], keys, 120)
    notes = unpack_notes(archive["checkpoints/000"])
    notes.insert(1, unpack_notes(other["checkpoints/000"])[0])

    report = await verified(archive.but(**{"checkpoints/000": pack_notes(notes)}))

    assert any("of another history" in fault.reason for fault in report.faults), lines(report)


async def test_an_index_that_leaves_an_event_out_is_found(archive: Kept, keys: KeyFile) -> None:
    """Signed as it is: only who recomputes the index sees that it hides an event of a task."""
    origin = f"ledgerq/{EPOCH}/0"
    signer = keys.keys().signers(origin)[-1]
    notes = unpack_notes(archive["checkpoints/000"])
    last = Checkpoint.parse(notes[-1].text)
    forged = replace(last, index_root=bytes(32))
    note = Note(forged.text, (signer.sign(forged.text),))
    notes[-1] = note

    report = await verified(
        archive.but(**{"checkpoints/000": pack_notes(notes), "checkpoint": note.whole.encode()})
    )

    assert only(report).kind is Kind.FORGED
    assert "index" in only(report).reason


# -- other keys, other ledgers ----------------------------------------------------------------


async def test_a_checkpoint_by_another_key_is_named(archive: Kept) -> None:
    stranger = NoteSigner(f"ledgerq/{EPOCH}/0", b"?" * 32)
    notes = unpack_notes(archive["checkpoints/000"])
    notes[-1] = Note(notes[-1].text, (stranger.sign(notes[-1].text),))

    report = await verified(archive.but(**{"checkpoints/000": pack_notes(notes)}))

    assert report.verdict is Verdict.TAMPERED
    assert stranger.verifier.vkey.split("+")[1] in lines(report)


async def test_an_archive_that_another_key_signed_is_not_believed(
    archive: Kept, tmp_path: Path
) -> None:
    other = key_file(tmp_path)

    report = await verified(archive, Options(keys=keys_of(other)))

    assert report.verdict is Verdict.TAMPERED
    assert "signed by no key that is trusted" in lines(report)


async def test_a_key_that_was_replaced_signs_no_more(archive: Kept, keys: KeyFile) -> None:
    first = keys.keys().signers(f"ledgerq/{EPOCH}/0")[0]
    notes = unpack_notes(archive["checkpoints/000"])
    notes[-1] = Note(notes[-1].text, (first.sign(notes[-1].text),))

    report = await verified(archive.but(**{"checkpoints/000": pack_notes(notes)}))

    assert "had replaced" in lines(report)


async def test_nobody_becomes_trusted_by_a_line_below_a_checkpoint(
    archive: Kept, keys: KeyFile
) -> None:
    stranger = NoteSigner(f"ledgerq/{EPOCH}/0", b"?" * 32)
    own = introduce(stranger, None)
    notes = unpack_notes(archive["checkpoints/000"])
    notes[-1] = Note(notes[-1].text, (*notes[-1].signatures, stranger.sign(notes[-1].text)))
    listed = pack_keys([*(each.note for each in unpack_keys(archive["keys"])), own])

    report = await verified(
        archive.but(**{"checkpoints/000": pack_notes(notes), "keys": listed}),
        Options(keys=keys_of(keys)[:1]),
    )

    assert report.verdict is Verdict.TAMPERED
    assert stranger.verifier.vkey not in report.keys


async def test_a_checkpoint_of_another_ledger_is_named(archive: Kept) -> None:
    moved = archive["checkpoints/000"].replace(EPOCH.encode(), EPOCH[::-1].encode())

    report = await verified(archive.but(**{"checkpoints/000": moved}))

    assert report.verdict is Verdict.TAMPERED
    assert f"it is of the log ledgerq/{EPOCH[::-1]}/0" in lines(report)


# -- erased data ------------------------------------------------------------------------------


async def test_erased_data_is_no_fault_where_an_event_says_so(keys: KeyFile) -> None:
    kept, _ = await an_erasure(keys)

    report = await verified(kept, Options(keys=keys_of(keys)))

    assert report.faults == (), lines(report)
    assert (report.erased_events, report.erased_tasks) == (1, 1)


@pytest.mark.parametrize("is_removed", [False, True])
async def test_an_erasure_that_is_not_sealed_yet_is_of_the_ledger_alone(
    keys: KeyFile, *, is_removed: bool
) -> None:
    """Whose events may be gone from there. The archive's data is to stay until it is sealed."""
    removed, at = await an_erasure(keys, until=50)
    kept = removed if is_removed else await sealed(EVENTS[:50], keys, 50)
    erased = [each for each in EVENTS[:50] if each.task_id == EVENTS[at].task_id]
    said = erased_event(erased[-1], hashlib.sha256(LEFT).hexdigest())
    stream = [each for each in EVENTS[:50] if each not in erased] + [said]

    report = await verified(kept, stream=stream)

    assert report.not_sealed == 1
    if is_removed:
        assert (only(report).kind, only(report).where) == (Kind.ALTERED, str(EVENTS[at].position))
        assert "is not sealed" in only(report).reason
    else:
        assert report.faults == (), lines(report)
        assert report.notices == ("the data of 1 events that were erased is still there",)


async def test_an_erasure_that_is_sealed_meanwhile_is_no_fault(keys: KeyFile) -> None:
    done = next(at for at, event in enumerate(EVENTS) if event.type == "TaskCompleted")
    first = next(at for at, e in enumerate(EVENTS) if e.task_id == EVENTS[done].task_id)
    said = erased_event(EVENTS[done], hashlib.sha256(LEFT).hexdigest())
    kept = await sealed([*EVENTS[:299], said], keys, 299, 300)
    stored = tiles.unpack_data(decompress(kept["data/000"]))
    stored[first] = tiles.Stored(b"", LEFT, erased=True)
    erased = kept.but(**{"data/000": compress(tiles.pack_data(stored))})

    report = await verified(Late(erased.objects))

    assert (report.faults, report.size, report.erased_events) == ((), 300, 1)


async def test_erased_data_that_still_lies_apart_is_told(keys: KeyFile) -> None:
    """As that of a leaf which never lay there."""
    kept, at = await an_erasure(keys)
    beside = at + 1
    names = [tiles.apart_name(each) for each in (at, beside)]

    report = await verified(kept.but(**dict.fromkeys(names, compress(b"payload"))))

    assert (report.faults, report.verdict) == ((), Verdict.FINE)
    assert report.notices == (
        f"{names[0]} is still there, and the data of its leaf was erased",
        f"{names[1]} is still there, and the data of its leaf lies elsewhere",
    )


def test_a_name_with_a_number_beyond_all_leaves_is_none_of_an_archive() -> None:
    listing = Listing()
    name = "data/apart/" + "x999/" * 9 + "999"
    for each in (name, "data/apart/x001/000", "data/apart/007"):
        listing.add(each)

    listing.add(other := "checkpoints/x000/007")

    assert listing.unexpected == [name, other]
    assert list(listing.apart_in(0, 1_000)) == [7]
    assert list(listing.apart_in(7, 1_001)) == [7, 1_000]


async def test_what_is_left_of_erased_data_is_sealed_too(keys: KeyFile) -> None:
    kept, at = await an_erasure(keys, left=b'{"task_type":"other"}')

    report = await verified(kept)

    assert (only(report).kind, only(report).where) == (Kind.ALTERED, str(EVENTS[at].position))


async def test_data_that_was_removed_without_a_word_is_named(archive: Kept) -> None:
    stored = tiles.unpack_data(decompress(archive["data/000"]))
    stored[9] = tiles.Stored(b"", b"", erased=True)

    report = await verified(archive.but(**{"data/000": compress(tiles.pack_data(stored))}))

    assert only(report).where == str(EVENTS[9].position)
    assert "no event of its task says that it was erased" in only(report).reason


async def an_erasure(keys: KeyFile, left: bytes = LEFT, until: int = 51) -> tuple[Kept, int]:
    """An archive in which the first event of a finished task lost its payload, and which event that
    is. Of 51 events, the last one is the TaskErased."""
    done = next(at for at, event in enumerate(EVENTS) if event.type == "TaskCompleted")
    task_id = EVENTS[done].task_id
    first = next(at for at, event in enumerate(EVENTS) if event.task_id == task_id)
    events = [*EVENTS[:50], erased_event(EVENTS[done], hashlib.sha256(LEFT).hexdigest())]
    kept = await sealed(events[:until], keys, until)
    name = tiles.data_name(0, until)
    stored = tiles.unpack_data(decompress(kept[name]))
    stored[first] = tiles.Stored(b"", left, erased=True)
    return kept.but(**{name: compress(tiles.pack_data(stored))}), first


def erased_event(last: Recorded, digest: str) -> Recorded:
    data = msgspec.json.encode({"reason": "asked for", "redacted": {"1": digest}})
    return following(last, "TaskErased", data)


def test_what_is_not_named_any_more_counts_all_the_same() -> None:
    faults = Faults()
    for number in range(FAULTS_NAMED_MAX):
        faults.add(Kind.MISSING, number, "gone")
    faults.add(Kind.FORGED, "one more", "not named")

    assert (len(faults.named), faults.more) == (FAULTS_NAMED_MAX, 1)
    assert verdict_of(faults.kinds) is Verdict.TAMPERED


async def test_what_is_trimmed_meanwhile_is_no_fault(
    archive: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.archive.verify.stream.READ_COUNT", 10)
    for left in (20, 0):
        stream = list(EVENTS)

        async def trim(_: Kept, stream: list[Recorded] = stream, left: int = left) -> None:
            del stream[: len(stream) - left]

        report = await verified(Growing(archive, "tile/entries/000", trim), stream=stream)

        assert report.faults == (), lines(report)
        assert report.in_stream == 10 + left


# -- many tasks -------------------------------------------------------------------------------


def test_last_events_are_the_same_from_memory_and_from_the_file() -> None:
    last = LastEvents(in_memory=8)
    for version in (1, 2):
        for task in range(50):
            last.put(key(task), Last(version, 0, 1, bytes([task]) * 32, f"{task}-{version}"))

    found = [last.get(key(task)) for task in range(50)]

    assert [(each.version, each.entry) for each in found if each] == [
        (2, f"{task}-2") for task in range(50)
    ]
    assert last.get(key(50)) is None
    last.close()


def key(task: int) -> bytes:
    return task.to_bytes(16, "big")


# -- while it grows ---------------------------------------------------------------------------


class Growing(Kept):
    """An archive that is sealed further, once, when somebody reads a certain object."""

    def __init__(self, archive: Kept, at: str, grow: Callable[["Growing"], Awaitable[None]]):
        super().__init__(archive.objects)
        self._at, self._grow = PREFIX + at, grow

    async def read(self, key: str) -> bytes:
        if key == self._at:
            self._at = ""
            await self._grow(self)
        return await super().read(key)


@pytest.mark.parametrize(
    "at", ["tile/entries/000", "tile/entries/001.p/44", "tile/1/000.p/1", "index/256-300"]
)
async def test_an_archive_is_verified_while_it_grows(tmp_path: Path, at: str) -> None:
    """And its key is replaced."""
    keys = key_file(tmp_path)
    archive = await sealed(EVENTS, keys, *CUTS)
    stream = EVENTS[:300]

    async def grow(kept: Growing) -> None:
        stream.extend(more[300:])
        writer = await opened(kept, keys)
        keys.rotate()
        await seal(writer, more[300:560], 130)
        await seal(writer, more[560:], 40)  # what the size of 300 needed is gone by now

    more = some_events(600)
    report = await verified(Growing(archive, at, grow), stream=stream)

    assert report.faults == (), lines(report)
    assert (report.size, report.in_stream) in ((600, 600), (300, 300))
