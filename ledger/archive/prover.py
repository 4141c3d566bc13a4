"""Makes the proof of a task's history from its log."""

from collections.abc import Sequence

from ledger.archive import merkle
from ledger.archive.index import Place, Segment, key_of, unpack_record
from ledger.archive.multiproof import covering_ranges
from ledger.archive.notes import BadNote
from ledger.archive.proof import (
    FORMAT,
    BadProof,
    IncompleteProof,
    Proof,
    ProvedEvent,
    ProvedRecord,
    ProvedSegment,
)
from ledger.archive.proof_check import check_history
from ledger.archive.reader import Damaged, SealedLog
from ledger.archive.tiles import TILE_WIDTH


async def prove(log: SealedLog, task_id: str) -> Proof | None:
    """The proof of what a log has of a task; None where it has nothing. It was checked, but for the
    signature. Raises Damaged, Incomplete, ObjectStoreError, IncompleteProof."""
    found = await log.places_of(task_id)
    key = key_of(task_id)
    leaves = [leaf for segment, places in found for leaf in _leaves_in(key, segment, places)]
    if not leaves:
        return None
    proof = Proof(
        FORMAT,
        task_id,
        log.note.whole,
        await _keys(log),
        tuple([await _event(log, leaf) for leaf in leaves]),
        tuple([await log.range_hash(each) for each in covering_ranges(log.size, leaves)]),
        tuple(_segment(segment, places) for segment, places in found),
    )
    try:
        check_history(proof, log.checkpoint)
    except IncompleteProof:
        raise
    except BadProof as error:
        raise Damaged(f"the log of partition {log.partition}", str(error)) from error
    return proof


async def _keys(log: SealedLog) -> tuple[str, ...]:
    """The notes that lead from the log's first key to the one that signed the checkpoint."""
    listed = [each for each in await log.keys() if each.after is not None]
    try:
        signed = [number for number, each in enumerate(listed, 1) if each.verifier.signed(log.note)]
    except BadNote as error:
        raise Damaged(f"the log of partition {log.partition}", str(error)) from error
    return tuple(each.note.whole for each in listed[: max(signed, default=0)])


def _leaves_in(key: bytes, segment: Segment, places: Sequence[Place]) -> Sequence[int]:
    own = [place for place in places if place.key == key]
    return unpack_record(own[0].record, segment.covered[0])[1] if own else ()


async def _event(log: SealedLog, index: int) -> ProvedEvent:
    number, at = divmod(index, TILE_WIDTH)
    entries, stored = await log.entries(number), await log.stored(number)
    data = await log.data(index, stored[at])
    salt = b"" if stored[at].erased else stored[at].salt
    return ProvedEvent.of(index, entries[at].decode(), salt, data, stored[at].erased)


def _segment(segment: Segment, places: Sequence[Place]) -> ProvedSegment:
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
