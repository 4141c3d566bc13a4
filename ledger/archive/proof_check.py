"""Checks a proof of a task's history: nothing but public keys is needed."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, cast

import msgspec

from ledger.archive import merkle
from ledger.archive.checkpoint import Checkpoint
from ledger.archive.index import (
    ID_BYTES,
    NoSegment,
    Summary,
    index_root,
    key_of,
    segment_ranges,
    unpack_record,
)
from ledger.archive.leaf import Leaf, NoLeaf, data_hash, unpack_leaf
from ledger.archive.merkle import HASH_BYTES, Range
from ledger.archive.multiproof import subtrees
from ledger.archive.notes import Verifier
from ledger.archive.proof import BadProof, IncompleteProof, Proof, ProvedEvent, ProvedSegment
from ledger.archive.proof_signers import Cosigned, checkpoint_of, cosigned, partition_of, signers
from ledger.identity import SYSTEM, is_task_id
from ledger.store import Position

ERASURE: Final = "TaskErased"


class Shown(msgspec.Struct, frozen=True):
    """What a proof that holds shows: these are the task's events up to a position, all of them."""

    task_id: str
    origin: str
    events: tuple[Leaf, ...]
    erased: tuple[int, ...]
    """Versions of those whose data was erased."""
    size: int
    """How many events the log had at the checkpoint, of all tasks."""
    last: Position | None
    """Where the last one of them stood; None where the checkpoint does not tell."""
    signed_by: tuple[Verifier, ...]
    cosigned_by: tuple[Cosigned, ...]


def check_proof(
    proof: Proof, keys: Sequence[Verifier], witnesses: Sequence[Verifier] = ()
) -> Shown:
    """What a proof shows, if one of these keys signed its checkpoint, or led to the one that did,
    and all of these witnesses cosigned it. Raises BadProof."""
    note, checkpoint = checkpoint_of(proof)
    signed_by = signers(proof, note, checkpoint.origin, keys, witnesses)
    cosigned_by = tuple(cosigned(note, witness) for witness in witnesses)
    history = check_history(proof, checkpoint)
    last = f"{partition_of(checkpoint.origin)}:{checkpoint.last}"
    return Shown(
        proof.task,
        checkpoint.origin,
        tuple(history),
        tuple(
            leaf.version for leaf, event in zip(history, proof.events, strict=True) if event.erased
        ),
        checkpoint.size,
        Position.parse(last) if checkpoint.last else None,
        tuple(signed_by),
        cosigned_by,
    )


def check_history(proof: Proof, checkpoint: Checkpoint) -> list[Leaf]:
    """The task's events, if they are all that it has at a checkpoint. Raises BadProof."""
    if not (is_task_id(proof.task) or proof.task == SYSTEM):
        raise BadProof(f"expected a task's id, got {proof.task[:80]!r}")
    history = _leaves(proof, checkpoint)
    _check_chain(proof, history)
    _check_data(proof, history)
    _check_index(proof, checkpoint)
    _check_tree(proof, checkpoint)
    if history[0].version != 1:
        raise IncompleteProof(
            f"the history begins with version {history[0].version}: the log never had what was"
            " before it"
        )
    return history


# -- the events -----------------------------------------------------------------------------------


def _leaves(proof: Proof, checkpoint: Checkpoint) -> list[Leaf]:
    partition = partition_of(checkpoint.origin)
    leaves: list[Leaf] = []
    for number, event in enumerate(proof.events, 1):
        try:
            leaf = unpack_leaf(partition, event.leaf.encode())
        except NoLeaf as error:
            raise BadProof(f"event {number}: {error}") from error
        if leaf.task_id != proof.task:
            raise BadProof(f"event {number} is of another task, {leaf.task_id[:80]}")
        leaves.append(leaf)
    if not leaves:
        raise BadProof("it has no events")
    return leaves


def _check_chain(proof: Proof, history: Sequence[Leaf]) -> None:
    first = history[0]
    if first.prev or (first.prev_entry and first.version == 1):
        raise BadProof(f"the events before version {first.version} are missing")
    for (event, leaf), (_, following) in pairwise(zip(proof.events, history, strict=True)):
        where = f"event {following.version}, which follows {leaf.version},"
        if following.version != leaf.version + 1:
            raise BadProof(f"{where} is not the next one: events are missing, or out of order")
        if following.prev != merkle.leaf_hash(event.leaf.encode()):
            raise BadProof(f"{where} does not follow from it: one of the two was altered")
        if following.prev_entry != leaf.position.entry:
            raise BadProof(f"{where} names another event as the one before")
        if following.position.order <= leaf.position.order:
            raise BadProof(f"{where} stands before it in the log")


def _check_data(proof: Proof, history: Sequence[Leaf]) -> None:
    redacted = _redacted(proof, history)
    for event, leaf in zip(proof.events, history, strict=True):
        where = f"event {leaf.version} ({leaf.type[:40]})"
        plain = ProvedEvent.of(event.index, event.leaf, event.salt, event.content, event.erased)
        if plain != event:
            raise BadProof(f"{where}: its data is not written as it must be")
        if event.erased:
            left = hashlib.sha256(event.content).hexdigest()
            if event.salt or redacted.get(str(leaf.version)) != left:
                raise BadProof(f"{where}: no {ERASURE} event tells that this was left of its data")
        elif data_hash(event.salt, event.content) != leaf.data_hash:
            raise BadProof(f"{where}: its data is not what its leaf says")


def _redacted(proof: Proof, history: Sequence[Leaf]) -> Mapping[str, Any]:
    """What is left of erased data, by version, as hashes: as the last erasure has it."""
    found: dict[str, Any] = {}
    for event, leaf in zip(proof.events, history, strict=True):
        if leaf.type == ERASURE and not event.erased:
            found |= redacted_by(event.content)
    return found


def redacted_by(data: bytes) -> Mapping[str, Any]:
    """Versions of a task, and hashes of what an erasure left of their data. Raises BadProof."""
    try:
        return cast("Mapping[str, Any]", dict(msgspec.json.decode(data)["redacted"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadProof(f"the data of a {ERASURE} event cannot be read: {error}") from error


# -- the trees ------------------------------------------------------------------------------------


def _check_tree(proof: Proof, checkpoint: Checkpoint) -> None:
    tree = tree_of(proof, checkpoint.size)
    if tree[0, checkpoint.size] != checkpoint.root:
        raise BadProof(
            "the events and the hashes do not lead to the root of the checkpoint: one of them was"
            " altered, added, or left out"
        )


def tree_of(proof: Proof, size: int) -> Mapping[Range, bytes]:
    """The subtrees of the log that the proof has or leads to. Raises BadProof."""
    leaves = {event.index: merkle.leaf_hash(event.leaf.encode()) for event in proof.events}
    return _subtrees("the log", size, leaves, proof.hashes)


def _check_index(proof: Proof, checkpoint: Checkpoint) -> None:
    ranges = segment_ranges(checkpoint.size)
    if len(proof.segments) != len(ranges):
        raise BadProof(
            f"expected {len(ranges)} segments of the index, as a log of {checkpoint.size} events"
            f" has, got {len(proof.segments)}"
        )
    found: list[int] = []
    summaries: list[Summary] = []
    for covered, segment in zip(ranges, proof.segments, strict=True):
        where = f"the index of the events {covered[0]} to {covered[1]}"
        found += _leaves_within(where, covered, segment, key_of(proof.task))
        hashes = {each.number: merkle.leaf_hash(each.record) for each in segment.places}
        root = _subtrees(where, segment.records, hashes, segment.hashes)[0, segment.records]
        summaries.append(Summary(*covered, segment.records, root))
    if index_root(summaries) != checkpoint.index_root:
        raise BadProof(
            "the records of the index and their hashes do not lead to the root of the index in the"
            " checkpoint: one of them was altered, added, or left out"
        )
    shown = [event.index for event in proof.events]
    if shown != found:
        raise BadProof(f"the task's events are the leaves {_listed(found)}; got {_listed(shown)}")


def _leaves_within(where: str, covered: Range, segment: ProvedSegment, key: bytes) -> Sequence[int]:
    """Which leaves a task has within a range, if its place in the index is as it must be."""
    places = segment.places
    numbers = [each.number for each in places]
    keys = [each.record[:ID_BYTES] for each in places]
    if not all(0 <= number < segment.records <= covered[1] - covered[0] for number in numbers):
        raise BadProof(f"{where}: expected records below {segment.records}, got {numbers}")
    if keys == [key]:
        return _unpacked(where, covered, places[0].record)
    last = segment.records - 1
    if not places:
        proved = segment.records == 0
    elif len(places) == 1:  # it would be the first or the last one
        proved = (numbers[0] == 0 and key < keys[0]) or (numbers[0] == last and keys[0] < key)
    else:
        neighbours = len(places) == 2 and numbers[1] == numbers[0] + 1
        proved = neighbours and keys[0] < key < keys[1]
    if not proved:
        raise BadProof(f"{where}: its records do not tell whether the task has events there")
    return ()


def _unpacked(where: str, covered: Range, record: bytes) -> Sequence[int]:
    try:
        _, leaves = unpack_record(record, covered[0])
    except NoSegment as error:
        raise BadProof(f"{where}: {error}") from error
    ascending = all(one < other for one, other in pairwise(leaves))
    if not (leaves and ascending and leaves[-1] < covered[1]):
        raise BadProof(f"{where}: the task's record names leaves that cannot be")
    return leaves


def _subtrees(
    where: str, size: int, leaves: Mapping[int, bytes], hashes: Sequence[bytes]
) -> Mapping[Range, bytes]:
    if not all(0 <= number < size for number in leaves):
        raise BadProof(f"{where} has {size} leaves, and not {_listed(sorted(leaves))}")
    if any(len(each) != HASH_BYTES for each in hashes):
        raise BadProof(f"{where}: expected hashes of {HASH_BYTES} bytes")
    try:
        return subtrees(size, leaves, hashes)
    except ValueError as error:
        raise BadProof(f"{where}: {error}") from error


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return shown + (", …" if len(numbers) > 10 else "") or "none"
