"""Proofs of a task's history: what they show, and that no edit of one goes unnoticed."""

import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest
from msgspec.structs import replace

from examples import check_proof as script
from ledger.archive import tiles
from ledger.archive.checkpoint import Checkpoint, origin_of
from ledger.archive.key_list import introduce, introduce_witness, pack_keys
from ledger.archive.leaf import data_hash
from ledger.archive.merkle import leaf_hash, root_from_inclusion
from ledger.archive.multiproof import covering_ranges
from ledger.archive.notes import COSIGNATURE, Note, NoteSigner, Verifier
from ledger.archive.proof import (
    BadProof,
    IncompleteProof,
    Proof,
    ProvedEvent,
    ProvedRecord,
    ProvedSegment,
    read_proof,
    write_proof,
)
from ledger.archive.proof_check import Shown, check_proof, tree_of
from ledger.archive.prover import NotSealed, prove, prove_task
from ledger.archive.reader import Archive, Damaged, log_prefix
from ledger.archive.tiles import Stored
from ledger.archive.tlog_proof import tlog_proofs
from ledger.erasure import redacted_data
from ledger.moments import LAST_MS
from ledger.objects.local_folder import LocalFolder
from tests.archives import a_task, histories
from tests.ledger.archive.proving import (
    SEEDS,
    key_of,
    proved,
    put_in_place,
    seal,
)
from tests.ledger.archive.sealed import EPOCH, START_MS

KEY: Final = key_of(0)
LEFT: Final = b'{"erased":true}'


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncGenerator[LocalFolder]:
    store = LocalFolder(tmp_path)
    yield store
    await store.close()


async def a_proof(objects: LocalFolder) -> Proof:
    """Of a task of three events among two tasks, in a log whose key was changed."""
    await seal(objects, histories(2, 3), rotated_at=(3,))
    return await proved(objects, a_task(0))


def size_of(proof: Proof) -> int:
    return Checkpoint.parse(Note.parse(proof.checkpoint).text).size


def checked(written: bytes, *keys: Verifier) -> Shown:
    return check_proof(read_proof(written), keys or [KEY])


def script_accepts(written: bytes, *keys: Verifier) -> bool:
    """Whether the script that shares no code with us does."""
    try:
        script.check(written, [script.parse_key(key.vkey) for key in keys or [KEY]])
    except (script.Wrong, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return False
    return True


# -- what a proof shows ---------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [1, 2, 70, 250])
async def test_it_shows_all_events_of_a_task(objects: LocalFolder, tasks: int) -> None:
    events = histories(tasks)
    await seal(objects, events)

    for number in range(0, tasks, 7):
        written = write_proof(await proved(objects, a_task(number)))
        shown = checked(written)

        assert [leaf.position for leaf in shown.events] == [
            event.position for event in events[number::tasks]
        ]
        assert (shown.task_id, shown.size) == (a_task(number), len(events))
        assert shown.last == events[-1].position
        assert shown.signed_by == (KEY,)
        assert script_accepts(written)


async def test_it_shows_that_a_range_of_the_log_has_none_of_its_events(
    objects: LocalFolder,
) -> None:
    others = histories(400, 2)
    own = [
        replace(event, task_id=other, prev="", version=1)
        for event, other in zip(others[:3], map(a_task, (-1, -2, -3)), strict=True)
    ]
    ids = sorted([a_task(number) for number in range(400)])
    smallest, largest = "00000000-0000-7000-8000-000000000000", "f" * 8 + ids[0][8:]
    own += [
        replace(others[3], task_id=smallest, version=1, prev=""),
        replace(others[4], task_id=largest, version=1, prev=""),
    ]
    await seal(objects, own + others[5:400] + others[405:])

    for event in own:
        written = write_proof(await proved(objects, event.task_id))

        assert len(checked(written).events) == 1
        assert script_accepts(written)


async def test_a_task_that_the_log_does_not_have_is_not_proved(objects: LocalFolder) -> None:
    await seal(objects, histories(3))
    log = await Archive(objects, EPOCH, 1).log(0)

    assert log is not None
    assert await prove(log, a_task(99)) is None


async def test_data_that_is_no_text_is_proved_too(objects: LocalFolder) -> None:
    first, *others = histories(2)
    await seal(objects, [replace(first, data=b"\xff\x00"), *others])

    written = write_proof(await proved(objects, a_task(0)))

    assert checked(written).events[0].data_hash != hashlib.sha256(b"\xff\x00").digest()
    assert script_accepts(written)


async def test_events_of_the_service_are_proved_as_a_task_is(objects: LocalFolder) -> None:
    events = histories(3)
    system = [
        replace(event, task_id="system") if event.task_id == a_task(1) else event
        for event in events
    ]
    await seal(objects, system)

    written = write_proof(await proved(objects, "system"))

    assert len(checked(written).events) == 4
    assert script_accepts(written)


@pytest.mark.parametrize("rotated_at", [(4, 8, 9), (4, 8, 11)])
async def test_whoever_trusts_a_key_trusts_those_that_took_its_place(
    objects: LocalFolder, rotated_at: Sequence[int]
) -> None:
    """The first checkpoint after a change is signed by both keys."""
    await seal(objects, histories(3), rotated_at=rotated_at)
    written = write_proof(await proved(objects, a_task(0)))

    for number in range(4):
        shown = checked(written, key_of(number))
        assert key_of(3) in shown.signed_by
        assert script_accepts(written, key_of(number))


async def test_a_key_whose_place_was_not_taken_does_not_help(objects: LocalFolder) -> None:
    await seal(objects, histories(3), first_key=1, rotated_at=(4,))
    written = write_proof(await proved(objects, a_task(0)))

    with pytest.raises(BadProof, match="signed by none of the keys that are trusted"):
        checked(written, key_of(0))
    assert not script_accepts(written, key_of(0))


async def test_a_key_is_good_for_all_logs_of_its_ledger(objects: LocalFolder) -> None:
    await seal(objects, histories(3, partition=5), partition=5)
    await seal(objects, histories(3), epoch="f" * 32)
    written = write_proof(await proved(objects, a_task(0), partition=5))
    elsewhere = write_proof(await proved(objects, a_task(0), epoch="f" * 32))

    assert checked(written).origin == origin_of(EPOCH, 5)
    assert script_accepts(written)
    with pytest.raises(BadProof, match=f"of the log ledgerq/{'f' * 32}/0, and the keys are for"):
        checked(elsewhere)
    assert not script_accepts(elsewhere)


WITNESS: Final = NoteSigner("witness.example", bytes(32), COSIGNATURE)
STRANGER: Final = NoteSigner("stranger.example", bytes(32), COSIGNATURE)


async def a_cosigned_proof(objects: LocalFolder) -> Proof:
    """Of a log whose last checkpoint a witness cosigned that it names, and somebody else."""
    await seal(objects, histories(2, 3), rotated_at=(3,))
    log = await Archive(objects, EPOCH, 1).log(0)
    assert log is not None
    lines = (WITNESS.cosign(log.note.text, 7), STRANGER.cosign(log.note.text, 8))
    note = replace(log.note, signatures=(*log.note.signatures, *lines))
    signer = NoteSigner(origin_of(EPOCH, 0), SEEDS[1])
    listed = [each.note for each in await log.keys()]
    listed.append(introduce_witness(WITNESS.verifier, signer))
    prefix = log_prefix(EPOCH, 0)
    await objects.write(prefix + tiles.KEYS, pack_keys(listed))
    await objects.write(prefix + tiles.CHECKPOINT, note.whole.encode())
    return await proved(objects, a_task(0))


async def test_witnesses_that_must_have_cosigned_tell_when(objects: LocalFolder) -> None:
    proof = await a_cosigned_proof(objects)

    shown = check_proof(proof, [KEY], [WITNESS.verifier])

    assert [(each.name, each.at_s) for each in shown.cosigned_by] == [("witness.example", 7)]
    assert script_accepts(write_proof(proof))
    with pytest.raises(BadProof, match=r"the witness stranger\.example did not cosign it"):
        check_proof(proof, [KEY], [STRANGER.verifier])


async def test_every_byte_that_is_changed_in_a_signature_is_found(objects: LocalFolder) -> None:
    """Also where several signed."""
    proof = await a_cosigned_proof(objects)
    note = proof.checkpoint.encode()
    assert len(Note.parse(proof.checkpoint).signatures) == 2

    for at in range(len(note)):
        changed = bytearray(note)
        changed[at] ^= 1 << at % 7
        try:
            text = changed.decode()
        except UnicodeDecodeError:
            continue
        forged = replace(proof, checkpoint=text)
        with pytest.raises(BadProof):
            check_proof(forged, [KEY])
        assert not script_accepts(write_proof(forged)), f"byte {at}"


async def test_a_signature_that_stands_there_twice_is_found(objects: LocalFolder) -> None:
    proof = await a_proof(objects)
    note = Note.parse(proof.checkpoint)

    forged = replace(proof, checkpoint=replace(note, signatures=note.signatures * 2).whole)

    with pytest.raises(BadProof, match=r"it is signed by .* twice"):
        check_proof(forged, [KEY])
    assert not script_accepts(write_proof(forged))


async def test_a_history_without_beginning_is_told_as_incomplete(objects: LocalFolder) -> None:
    await seal(objects, histories(3)[3:])
    proof = await proved(objects, a_task(0))

    with pytest.raises(IncompleteProof, match="begins with version 2"):
        check_proof(proof, [KEY])
    assert script_accepts(write_proof(proof)), "it says so with another exit code"


async def test_a_task_whose_last_events_are_not_sealed_is_not_proved_yet(
    objects: LocalFolder,
) -> None:
    archive = Archive(objects, EPOCH, 1)
    with pytest.raises(NotSealed, match=r"no event of the task .* is sealed yet"):
        await prove_task(archive, a_task(0), 1)

    await seal(objects, histories(3)[:3])
    with pytest.raises(NotSealed, match="is at version 2, and is sealed up to version 1"):
        await prove_task(archive, a_task(0), 2)

    assert await prove_task(archive, a_task(0), 1) is not None
    assert await prove_task(archive, a_task(0), None) is not None, "it left the ledger's memory"
    assert await prove_task(archive, a_task(9), None) is None


# -- erasure --------------------------------------------------------------------------------------


async def an_erased_proof(objects: LocalFolder, left: bytes = LEFT) -> Proof:
    """Of a task whose first event's data was erased."""
    events = histories(3)
    redacted = msgspec.json.encode(
        {"reason": "asked", "redacted": {"1": hashlib.sha256(LEFT).hexdigest()}}
    )
    events[9] = replace(events[9], type="TaskErased", data=redacted)
    await seal(objects, events)
    await put_in_place(objects, {0: Stored(b"", left, erased=True)}, len(events))
    return await proved(objects, a_task(0))


async def test_erased_data_is_shown_as_what_is_left_of_it(objects: LocalFolder) -> None:
    proof = await an_erased_proof(objects)
    written = write_proof(proof)

    assert checked(written).erased == (1,)
    assert proof.events[0].content == LEFT
    assert script_accepts(written)


async def test_what_is_yet_to_be_erased_is_not_shown_any_more(objects: LocalFolder) -> None:
    events = histories(3)
    left = redacted_data(events[0].type, events[0].data)
    redacted = {"reason": "asked", "redacted": {"1": hashlib.sha256(left).hexdigest()}}
    events[9] = replace(events[9], type="TaskErased", data=msgspec.json.encode(redacted))
    await seal(objects, events)

    proof = await proved(objects, a_task(0))

    assert checked(write_proof(proof)).erased == (1,)
    assert proof.events[0].content == left != events[0].data
    assert script_accepts(write_proof(proof))


async def test_data_that_no_event_tells_was_erased_is_missing(objects: LocalFolder) -> None:
    proof = await a_proof(objects)
    event = proof.events[1]
    stripped = replace(event, salt=b"", data="", erased=True)

    with pytest.raises(BadProof, match=r"event 2 \(TaskStarted\): no TaskErased event"):
        check_proof(replace(proof, events=(proof.events[0], stripped, *proof.events[2:])), [KEY])


async def test_what_is_left_of_erased_data_cannot_be_changed(objects: LocalFolder) -> None:
    with pytest.raises(Damaged, match=r"event 1 \(TaskSubmitted\): no TaskErased event"):
        await an_erased_proof(objects, left=b'{"erased":false}')


# -- edits ----------------------------------------------------------------------------------------


async def test_every_byte_that_is_changed_is_found(objects: LocalFolder) -> None:
    written = write_proof(await a_proof(objects))
    assert script_accepts(written)

    for at in range(len(written)):
        changed = bytearray(written)
        changed[at] ^= 1 << at % 8
        with pytest.raises(BadProof):
            checked(bytes(changed))
        assert not script_accepts(bytes(changed)), f"byte {at}"


async def test_every_line_that_is_removed_doubled_or_moved_is_found(objects: LocalFolder) -> None:
    lines = write_proof(await a_proof(objects)).splitlines(keepends=True)

    for at, line in enumerate(lines):
        removed = [*lines[:at], *lines[at + 1 :]]
        doubled = [*lines[:at], line, *lines[at:]]
        moved = [*removed[: at + 1], line, *removed[at + 1 :]]
        for edited in (removed, doubled, moved):
            if edited != lines:
                with pytest.raises(BadProof):
                    checked(b"".join(edited))
                assert not script_accepts(b"".join(edited)), f"line {at}"


async def test_other_ways_to_write_the_same_are_refused(objects: LocalFolder) -> None:
    written = write_proof(await a_proof(objects))

    for edited in (
        written[:-1],
        written + b"\n",
        b" " + written,
        b"\xef\xbb\xbf" + written,
        msgspec.json.format(written, indent=2),
        written.replace(b"\n", b"\r\n"),
        written.replace(b'"hashes": [', b'"hashes":  ['),
        written.replace("nächste".encode(), b"n\\u00e4chste"),
        written.replace(b'"index": 2,', b'"index": 2.0,'),
        written.replace(b'"index": 2,', b'"index": 2,\n   "index": 2,'),
        written.replace(b'"records": 2,', b'"records": 2,\n   "more": 1,'),
        written + b"{}",
    ):
        assert edited != written
        with pytest.raises(BadProof):
            checked(edited)
        assert not script_accepts(edited)


Forge = Callable[[Proof, Proof], Proof]
"""From the proofs of two tasks, a false one of the first."""


def with_events(proof: Proof, events: Sequence[ProvedEvent]) -> Proof:
    """A proof of some of its events alone that leads to the same root."""
    size = size_of(proof)
    needed = covering_ranges(size, sorted({event.index for event in events}))
    tree = tree_of(proof, size)
    return replace(proof, events=tuple(events), hashes=tuple(tree[each] for each in needed))


def with_segment(proof: Proof, segment: ProvedSegment) -> Proof:
    return replace(proof, segments=(segment, *proof.segments[1:]))


def with_event(proof: Proof, number: int, **changes: object) -> Proof:
    events = list(proof.events)
    events[number] = replace(events[number], **changes)
    return replace(proof, events=tuple(events))


def with_altered_data(proof: Proof, _: Proof) -> Proof:
    return with_event(proof, 3, data='{"number":8}')


def with_data_that_fits_another_leaf(proof: Proof, _: Proof) -> Proof:
    event = proof.events[3]
    data = b'{"number":8}'
    old, new = (data_hash(event.salt, each).hex() for each in (event.content, data))
    return with_event(proof, 3, data=data.decode(), leaf=event.leaf.replace(old, new))


def with_another_beginning(proof: Proof, _: Proof) -> Proof:
    return with_event(proof, 0, leaf=proof.events[0].leaf.replace("somebody", "nobody"))


def of_another_name(proof: Proof, _: Proof) -> Proof:
    changed = [
        replace(event, leaf=event.leaf.replace(proof.task, a_task(1))) for event in proof.events
    ]
    return replace(proof, task=a_task(1), events=tuple(changed))


def with_another_index(proof: Proof, _: Proof) -> Proof:
    return with_event(proof, 3, index=10)


def with_a_record_of_fewer(proof: Proof, _: Proof) -> Proof:
    record = bytearray(proof.segments[0].places[0].record[:-1])
    record[16] -= 1
    place = replace(proof.segments[0].places[0], record=bytes(record))
    segment = replace(proof.segments[0], places=(place,))
    return with_segment(with_events(proof, proof.events[:-1]), segment)


def with_a_record_without_end(proof: Proof, _: Proof) -> Proof:
    place = proof.segments[0].places[0]
    altered = ProvedRecord(place.number, place.record[:16] + b"\x7f" + b"\xff" * 9)
    return with_segment(proof, replace(proof.segments[0], places=(altered,)))


def with_the_index_of_another(proof: Proof, other: Proof) -> Proof:
    return replace(proof, segments=other.segments)


def with_an_event_of_another(proof: Proof, other: Proof) -> Proof:
    return replace(proof, events=(*proof.events, other.events[-1]))


def with_other_places(*places: int) -> Forge:
    def forge(proof: Proof, other: Proof) -> Proof:
        record = other.segments[0].places[0].record
        others = tuple(ProvedRecord(number, record) for number in places)
        return with_segment(proof, replace(proof.segments[0], places=others))

    return forge


def of_checkpoint(**changes: object) -> Forge:
    def forge(proof: Proof, _: Proof) -> Proof:
        note = Note.parse(proof.checkpoint)
        text = replace(Checkpoint.parse(note.text), **changes).text
        return replace(proof, checkpoint=replace(note, text=text).whole)

    return forge


def with_a_time_that_none_has(proof: Proof, _: Proof) -> Proof:
    """In its last event, which no other one has the hash of."""
    leaf = proof.events[-1].leaf
    at = msgspec.json.decode(leaf)["at"]
    return with_event(proof, 3, leaf=leaf.replace(f'"at":{at}', f'"at":{LAST_MS + 1}'))


FORGERIES: Final[dict[str, tuple[Forge, str]]] = {
    "data altered": (with_altered_data, r"event 4 \(TaskCompleted\): its data is not what its"),
    "data and leaf altered": (with_data_that_fits_another_leaf, "do not lead to the root"),
    "first leaf altered": (with_another_beginning, "event 2, which follows 1, does not follow"),
    "salt altered": (lambda p, _: with_event(p, 3, salt=bytes(16)), "its data is not what"),
    "salt gone": (lambda p, _: with_event(p, 3, salt=b""), "its data is not what"),
    "data gone": (lambda p, _: with_event(p, 3, data=""), "its data is not what"),
    "data in another form": (
        lambda p, _: with_event(p, 3, data="", data_base64=p.events[3].content),
        "its data is not written as it must be",
    ),
    "data twice": (
        lambda p, _: with_event(p, 3, data_base64=b"\xff"),
        "its data is not written as it must be",
    ),
    "called erased": (lambda p, _: with_event(p, 3, erased=True), "no TaskErased event"),
    "another task's name": (of_another_name, "does not follow from it"),
    "another task": (lambda p, o: replace(p, task=o.task), "event 1 is of another task"),
    "no task": (lambda p, _: replace(p, task="../x"), "expected a task's id"),
    "events gone": (lambda p, _: with_events(p, p.events[:-1]), "are the leaves 0, 3, 6, 9; got"),
    "first event gone": (lambda p, _: with_events(p, p.events[1:]), "before version 2 are missing"),
    "an event between gone": (
        lambda p, _: with_events(p, (p.events[0], *p.events[2:])),
        "is not the next one: events are missing",
    ),
    "no events": (lambda p, _: with_events(p, ()), "it has no events"),
    "event gone, hashes as they were": (
        lambda p, _: replace(p, events=p.events[:-1]),
        "the task's events are the leaves 0, 3, 6, 9; got 0, 3, 6",
    ),
    "event gone, and from the index": (with_a_record_of_fewer, "lead to the root of the index"),
    "event doubled": (
        lambda p, _: with_events(p, (*p.events, p.events[-1])),
        "event 4, which follows 4, is not the next one",
    ),
    "event added": (with_an_event_of_another, "event 5 is of another task"),
    "events swapped": (
        lambda p, _: with_events(p, (p.events[0], p.events[2], p.events[1], p.events[3])),
        "event 3, which follows 1, is not the next one",
    ),
    "events in reverse": (lambda p, _: with_events(p, p.events[::-1]), "version 4 are missing"),
    "another index": (with_another_index, "are the leaves 0, 3, 6, 9; got 0, 3, 6, 10"),
    "an index outside": (lambda p, _: with_event(p, 3, index=12), "got 0, 3, 6, 12"),
    "a leaf that is none": (lambda p, _: with_event(p, 0, leaf="{}"), "event 1: no leaf"),
    "a time beyond all": (with_a_time_that_none_has, "its time or version is out of range"),
    "hash gone": (lambda p, _: replace(p, hashes=p.hashes[1:]), "too few hashes"),
    "hash added": (lambda p, _: replace(p, hashes=(*p.hashes, bytes(32))), "too many hashes"),
    "hashes swapped": (lambda p, _: replace(p, hashes=p.hashes[::-1]), "do not lead to the root"),
    "short hash": (lambda p, _: replace(p, hashes=(b"", *p.hashes[1:])), "hashes of 32 bytes"),
    "index gone": (lambda p, _: replace(p, segments=()), "expected 1 segments"),
    "index doubled": (lambda p, _: replace(p, segments=p.segments * 2), "expected 1 segments"),
    "another's index": (with_the_index_of_another, "do not tell whether|are the leaves none"),
    "a record without end": (with_a_record_without_end, "number of the index is cut off"),
    "no record": (with_other_places(), "do not tell whether the task has events there"),
    "the same record twice": (with_other_places(0, 1), "do not tell whether"),
    "records in reverse": (with_other_places(1, 0), "do not tell whether"),
    "a record outside": (with_other_places(3), "expected records below 3"),
    "too many records": (
        lambda p, _: with_segment(p, replace(p.segments[0], records=13)),
        "expected records below 13",
    ),
    "an empty index": (
        lambda p, _: with_segment(p, ProvedSegment(0, (), ())),
        "lead to the root of the index",
    ),
    "a larger log": (of_checkpoint(size=13), "the signature by .* is not of this text"),
    "another root": (of_checkpoint(root=bytes(32)), "is not of this text"),
    "another end": (of_checkpoint(last=f"{START_MS}-7"), "is not of this text"),
    "another log": (of_checkpoint(origin=origin_of(EPOCH, 3)), "which is no key that is trusted"),
    "no note": (lambda p, _: replace(p, checkpoint="x"), "the checkpoint: expected text"),
    "another format": (lambda p, _: replace(p, format="ledgerq.proof/v2"), "the format is"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forgery_is_found_and_named(objects: LocalFolder, forgery: str) -> None:
    await seal(objects, histories(3))
    proof, other = await proved(objects, a_task(0)), await proved(objects, a_task(1))
    forge, named = FORGERIES[forgery]

    forged = write_proof(forge(proof, other))

    with pytest.raises(BadProof, match=named) as raised:
        checked(forged)
    assert "\n" not in str(raised.value)
    assert not script_accepts(forged)


async def test_a_proof_of_one_log_does_not_hold_for_another(objects: LocalFolder) -> None:
    await seal(objects, histories(3))
    await seal(objects, histories(3)[1:], partition=1)
    proof = await proved(objects, a_task(0))
    other = await proved(objects, a_task(1), partition=1)

    forged = replace(proof, checkpoint=other.checkpoint)

    with pytest.raises(BadProof):
        check_proof(forged, [KEY])
    assert not script_accepts(write_proof(forged))


async def test_whoever_else_signs_is_not_believed(objects: LocalFolder) -> None:
    await seal(objects, histories(3))
    proof = await proved(objects, a_task(0))
    note = Note.parse(proof.checkpoint)
    beside = NoteSigner(origin_of(EPOCH, 0), SEEDS[1]).sign(note.text)
    written = write_proof(
        replace(proof, checkpoint=replace(note, signatures=(*note.signatures, beside)).whole)
    )

    with pytest.raises(BadProof, match="which is no key that is trusted or introduced"):
        checked(written)
    assert not script_accepts(written)
    with pytest.raises(BadProof, match="which is no key that is trusted or introduced"):
        checked(write_proof(proof), key_of(1))
    assert not script_accepts(write_proof(proof), key_of(1))


async def test_a_key_that_signed_beside_another_did_not_take_its_place(
    objects: LocalFolder,
) -> None:
    """Anybody can add his line to a note that somebody signed."""
    await seal(objects, histories(3), rotated_at=(6,))
    proof = await proved(objects, a_task(0))
    mallory = NoteSigner(origin_of(EPOCH, 0), SEEDS[3])
    checkpoint = Note.parse(proof.checkpoint)
    introduced = Note.parse(proof.keys[0])
    of_mallory = introduce(mallory, NoteSigner(origin_of(EPOCH, 0), SEEDS[0]))
    forged_notes = (
        introduce(mallory, None),
        replace(of_mallory, signatures=of_mallory.signatures[1:]),
        replace(of_mallory, signatures=(introduced.signatures[0], of_mallory.signatures[1])),
        replace(introduced, signatures=(*introduced.signatures, mallory.sign(introduced.text))),
        replace(introduced, signatures=(introduced.signatures[0], mallory.sign(introduced.text))),
    )

    for note in forged_notes:
        forged = replace(
            proof,
            keys=(note.whole,),
            checkpoint=Note(checkpoint.text, (mallory.sign(checkpoint.text),)).whole,
        )
        with pytest.raises(BadProof):
            check_proof(forged, [KEY])
        assert not script_accepts(write_proof(forged))


# -- proofs of single events ----------------------------------------------------------------------


async def test_each_event_has_a_standard_proof_too(objects: LocalFolder) -> None:
    await seal(objects, histories(70))
    proof = await proved(objects, a_task(7))
    size = size_of(proof)

    texts = list(tlog_proofs(proof))

    assert len(texts) == 4
    for event, text in zip(proof.events, texts, strict=True):
        head, _, note = text.partition("\n\n")
        kind, extra, index, *hashes = head.split("\n")
        assert (kind, index) == ("c2sp.org/tlog-proof@v1", f"index {event.index}")
        leaf = msgspec.json.decode(f'"{extra.removeprefix("extra ")}"', type=bytes)
        path = msgspec.json.decode(msgspec.json.encode(hashes), type=list[bytes])
        root = root_from_inclusion(event.index, size, leaf_hash(leaf), path)
        assert root == Checkpoint.parse(Note.parse(note).text).root
