"""What a witness cosigns, and why it does not: each answer that tlog-witness has."""

import pytest

from ledger.archive import merkle
from ledger.archive.merkle import EMPTY_ROOT, leaf_hash
from ledger.archive.notes import Note, NoteSigner
from ledger.archive.witness import AddCheckpoint, BadRequest, TreeHead, keys_of, refusal_of

ORIGIN = "example.com/log"
SIGNER = NoteSigner(ORIGIN, b"1" * 32)
KNOWN = [SIGNER.verifier]
LEAVES = [leaf_hash(b"%d" % number) for number in range(10)]


def head(size: int, leaves: list[bytes] = LEAVES) -> TreeHead:
    return TreeHead(ORIGIN, size, merkle.root(leaves[:size]))


def note(tree: TreeHead, signer: NoteSigner = SIGNER) -> Note:
    text = f"{tree.origin}\n{tree.size}\n{merkle_text(tree.root)}\nan extension\n"
    return Note(text, (signer.sign(text),))


def merkle_text(root: bytes) -> str:
    return AddCheckpoint(0, (root,), Note("x\n", ())).body.split(b"\n")[1].decode()


def proof(old: int, new: int) -> tuple[bytes, ...]:
    return tuple(merkle.root(LEAVES[a:b]) for a, b in merkle.consistency_ranges(old, new))


def asked(old: int, new: int) -> AddCheckpoint:
    return AddCheckpoint(old, proof(old, new), note(head(new)))


def status(request: AddCheckpoint, latest: TreeHead | None) -> int:
    refusal = refusal_of(request, KNOWN, latest)
    return 200 if refusal is None else refusal.status


def test_what_goes_on_is_cosigned() -> None:
    assert status(asked(0, 4), None) == 200
    for old in range(1, 10):
        for new in range(old, 11):
            assert status(asked(old, new), head(old)) == 200


def test_requests_come_back_as_they_were_sent() -> None:
    request = asked(3, 10)

    assert AddCheckpoint.parse(request.body) == request


def test_an_unknown_log_is_not_found() -> None:
    other = TreeHead("example.com/other", 4, bytes(32))

    assert status(AddCheckpoint(0, (), note(other)), None) == 404


def test_a_checkpoint_by_another_key_is_forbidden() -> None:
    stranger = NoteSigner(ORIGIN, b"2" * 32)

    assert status(AddCheckpoint(0, (), note(head(4), stranger)), None) == 403


def test_a_signature_of_another_text_is_forbidden() -> None:
    signed = Note(note(head(4)).text, note(head(5)).signatures)

    assert status(AddCheckpoint(0, (), signed), None) == 403


def test_an_old_size_beyond_the_checkpoint_is_a_bad_request() -> None:
    assert status(AddCheckpoint(5, (), note(head(4))), head(5)) == 400


@pytest.mark.parametrize("old", [0, 2, 4])
def test_another_size_than_the_last_one_is_a_conflict_that_tells_it(old: int) -> None:
    refusal = refusal_of(asked(old, 8), KNOWN, head(3))

    assert refusal is not None
    assert (refusal.status, refusal.latest, refusal.is_alarming) == (409, 3, False)


def test_another_root_of_the_same_size_is_a_conflict() -> None:
    other = head(4, [*LEAVES[:3], leaf_hash(b"other")])

    refusal = refusal_of(AddCheckpoint(4, (), note(other)), KNOWN, head(4))

    assert refusal is not None
    assert (refusal.status, refusal.is_alarming) == (409, True)


def test_a_rewritten_history_has_no_proof() -> None:
    rewritten = head(8, [leaf_hash(b"other"), *LEAVES[1:]])

    refusal = refusal_of(AddCheckpoint(4, proof(4, 8), note(rewritten)), KNOWN, head(4))

    assert refusal is not None
    assert (refusal.status, refusal.is_alarming) == (422, True)


def test_a_proof_from_nothing_is_empty() -> None:
    assert status(AddCheckpoint(0, (bytes(32),), note(head(4))), None) == 422
    assert status(AddCheckpoint(0, (), note(TreeHead(ORIGIN, 0, EMPTY_ROOT))), None) == 200
    assert status(AddCheckpoint(0, (), note(TreeHead(ORIGIN, 0, bytes(32)))), None) == 409


def test_the_key_of_one_partition_stands_for_all_of_the_ledger() -> None:
    key = NoteSigner("ledgerq/aa/0", b"3" * 32).verifier

    assert [each.name for each in keys_of("ledgerq/aa/5", [key])] == ["ledgerq/aa/5"]
    assert keys_of("ledgerq/bb/0", [key]) == []
    assert keys_of("ledgerq/aa", [key]) == []
    assert keys_of("example.com/log", [key]) == []


SENT = asked(3, 10).body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 1\n",
        SENT[:-1],
        SENT.replace(b"old 3", b"old 03"),
        SENT.replace(b"old 3", b"old -3"),
        SENT.replace(b"old 3", b"new 3"),
        SENT.replace(b"\n10\n", b"\n010\n"),
        SENT.replace(b"=\n", b"\n", 1),
        SENT.replace(b"old 3\n", b"old 3\n" + b"A" * 43 + b"=\n" * 64),
        SENT.replace(b"old 3\n", b"old 3\n" + (b"A" * 43 + b"=\n") * 64),
        SENT.replace(ORIGIN.encode() + b"\n10", b"\n10"),
        SENT + b"\xff",
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        AddCheckpoint.parse(body)
