"""Makes the proof of a task's history from its log."""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from ledger.archive import merkle
from ledger.archive.index import key_of, unpack_record
from ledger.archive.leaf import unpack_leaf
from ledger.archive.multiproof import covering_ranges
from ledger.archive.proof import (
    FORMAT,
    BadProof,
    IncompleteProof,
    Proof,
    ProvedEvent,
    ProvedRecord,
    ProvedSegment,
)
from ledger.archive.proof_check import ERASURE, check_history, redacted_by
from ledger.archive.reader import Archive, Damaged, Incomplete, SealedLog
from ledger.archive.segment import Directory, Place
from ledger.archive.tiles import Stored
from ledger.erasure import redacted_data
from ledger.identity import partition_of

_LOOKS_MAX: Final = 2
"""What a checkpoint needs may be gone when it is asked for: there is a newer one then."""


class NotSealed(Exception):
    """The archive has not got all events of a task yet; it will, with its next checkpoint."""

    def __init__(self, task_id: str, sealed: int, version: int) -> None:
        super().__init__(
            f"the task {task_id} is at version {version}, and is sealed up to version {sealed}"
            if sealed
            else f"no event of the task {task_id} is sealed yet"
        )
        self.sealed = sealed
        self.version = version


async def prove_task(archive: Archive, task_id: str, version: int | None) -> Proof | None:
    """The proof of a task that has so many events (None: the ledger's server has not got it); None
    where there is no such task. Raises NotSealed, and as `prove`."""
    proof = await _newest(archive, partition_of(task_id, archive.partitions), task_id)
    sealed = 0 if proof is None else unpack_leaf(0, proof.events[-1].leaf.encode()).version
    if version is not None and sealed < version:
        raise NotSealed(task_id, sealed, version)
    return proof


async def prove_from(archive: Archive, partitions: Sequence[int], task_id: str) -> Proof | None:
    """The proof by an archive alone, which does not say how many partitions its ledger has: of
    these it has a log. None where none of them has the task. Raises as `prove`."""
    for partition in partitions:
        if proof := await _newest(archive, partition, task_id):
            return proof
    return None


async def _newest(archive: Archive, partition: int, task_id: str) -> Proof | None:
    for look in range(1, _LOOKS_MAX + 1):
        log = await archive.log(partition)
        try:
            return None if log is None else await prove(log, task_id)
        except Incomplete:
            if look == _LOOKS_MAX:
                raise
    return None


async def prove(log: SealedLog, task_id: str) -> Proof | None:
    """The proof of what a log has of a task; None where it has nothing. It was checked, but for the
    signature. Raises Damaged, Incomplete, ObjectStoreError."""
    found = await log.places_of(task_id)
    key = key_of(task_id)
    leaves = [leaf for segment, places in found for leaf in _leaves_in(key, segment, places)]
    if not leaves:
        return None
    proof = Proof(
        FORMAT,
        task_id,
        *await _signed(log),
        _without_erased([await _event(log, *each) for each in await log.records(leaves)]),
        tuple([await log.range_hash(each) for each in covering_ranges(log.size, leaves)]),
        tuple(_segment(segment, places) for segment, places in found),
    )
    try:
        check_history(proof, log.checkpoint)
    except IncompleteProof:
        pass  # it says so itself
    except BadProof as error:
        raise Damaged(f"the log of partition {log.partition}", str(error)) from error
    return proof


async def _signed(log: SealedLog) -> tuple[str, tuple[str, ...]]:
    """The checkpoint, and the notes that lead from the log's first key to those who signed it. Of
    anybody else who did, nothing could be checked: those lines are left out."""
    listed = await log.keys()
    lines = {(each.name, each.key_id): each for each in log.note.signatures}
    known = [
        number
        for number, each in enumerate(listed)
        if (each.verifier.name, each.verifier.key_id) in lines
    ]
    last = max((number for number in known if not listed[number].is_witness), default=-1)
    notes = [
        each.note.whole
        for number, each in enumerate(listed)
        if (number in known if each.is_witness else each.after is not None and number <= last)
    ]
    ids = {(listed[number].verifier.name, listed[number].verifier.key_id) for number in known}
    signatures = tuple(line for own, line in lines.items() if own in ids)
    return replace(log.note, signatures=signatures).whole, tuple(notes)


def _leaves_in(key: bytes, segment: Directory, places: Sequence[Place]) -> Sequence[int]:
    own = [place for place in places if place.key == key]
    return unpack_record(own[0].record, segment.covered[0])[1] if own else ()


async def _event(log: SealedLog, index: int, entry: bytes, stored: Stored) -> ProvedEvent:
    data = await log.data(index, stored)
    salt = b"" if stored.erased else stored.salt
    return ProvedEvent.of(index, entry.decode(), salt, data, stored.erased)


def _without_erased(events: Sequence[ProvedEvent]) -> tuple[ProvedEvent, ...]:
    """What was decided to be erased is shown no more, though it may be there for a while."""
    kinds = [unpack_leaf(0, event.leaf.encode()) for event in events]
    redacted: set[str] = set()
    for leaf, event in zip(kinds, events, strict=True):
        if leaf.type == ERASURE and not event.erased:
            redacted.update(redacted_by(event.content))
    return tuple(
        event
        if event.erased or str(leaf.version) not in redacted
        else ProvedEvent.of(
            event.index, event.leaf, b"", redacted_data(leaf.type, event.content), True
        )
        for leaf, event in zip(kinds, events, strict=True)
    )


def _segment(segment: Directory, places: Sequence[Place]) -> ProvedSegment:
    known = {
        covered: root
        for place in places
        for covered, root in zip(
            merkle.inclusion_ranges(place.number, segment.records), place.proof, strict=True
        )
    }
    needed = covering_ranges(segment.records, [place.number for place in places])
    return ProvedSegment(
        segment.records,
        tuple(ProvedRecord(place.number, place.record) for place in places),
        tuple(known[covered] for covered in needed),
    )
