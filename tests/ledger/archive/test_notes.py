"""Notes as others sign and check them, and several notes in one object."""

import base64

import pytest

from ledger.archive.notes import (
    COSIGNATURE,
    BadNote,
    Note,
    NoteSigner,
    Verifier,
    pack_notes,
    signers_of,
    unpack_notes,
)

SIGNER = NoteSigner("ledgerq/some/0", b"1" * 32)


def a_note(text: str, signatures: int = 1) -> Note:
    return Note(text, (SIGNER.sign(text),) * signatures)


NOTES = [a_note("one\n1\n"), a_note("two\n2\n", signatures=2), a_note("three\n3\n")]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_notes_come_back_as_they_were(count: int) -> None:
    assert unpack_notes(pack_notes(NOTES[:count])) == NOTES[:count]


def test_no_changed_bit_reads_as_what_was_written() -> None:
    packed = pack_notes(NOTES)
    for at in range(len(packed)):
        for bit in range(8):
            changed = bytearray(packed)
            changed[at] ^= 1 << bit
            try:
                found = unpack_notes(bytes(changed))
            except BadNote:
                continue
            assert pack_notes(found) == bytes(changed)


@pytest.mark.parametrize("packed", [b"", b"\n", b"text\n", pack_notes(NOTES)[:-1], b"\xff"])
def test_what_are_no_notes_is_refused(packed: bytes) -> None:
    with pytest.raises(BadNote):
        unpack_notes(packed)


# -- as others sign them: the example of golang.org/x/mod/sumdb/note -------------------------------

VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
SIGNED = (
    f"{TEXT}\n\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXg"
    "KvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_that_others_signed_holds() -> None:
    verifier = Verifier.parse(VKEY)
    assert verifier.vkey == VKEY
    assert signers_of(Note.parse(SIGNED), [verifier]) == [verifier]


def test_a_note_is_signed_as_others_sign_it() -> None:
    signer = NoteSigner("PeterNeumann", SEED)
    assert signer.verifier.vkey == VKEY
    assert Note(TEXT, (signer.sign(TEXT),)).whole == SIGNED


def test_a_signature_of_another_text_does_not_hold() -> None:
    changed = Note.parse(SIGNED.replace("answer", "question"))
    with pytest.raises(BadNote, match="not of this text"):
        signers_of(changed, [Verifier.parse(VKEY)])


def test_a_note_that_nobody_signed_who_is_trusted_is_refused() -> None:
    with pytest.raises(BadNote, match="none of the keys that are trusted, but by PeterNeumann"):
        signers_of(Note.parse(SIGNED), [SIGNER.verifier])


def test_signatures_of_others_are_passed_over() -> None:
    note = Note(TEXT, (SIGNER.sign(TEXT), *Note.parse(SIGNED).signatures))
    assert signers_of(note, [Verifier.parse(VKEY)]) == [Verifier.parse(VKEY)]


def test_a_witness_says_when() -> None:
    witness = NoteSigner("witness.example.org", b"2" * 32, COSIGNATURE)
    note = Note(TEXT, (witness.cosign(TEXT, 1_763_811_000),))
    assert signers_of(note, [witness.verifier]) == [witness.verifier]
    [signature] = note.signatures
    assert int.from_bytes(signature.signed[:8], "big") == 1_763_811_000


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        VKEY[:-1],
        VKEY.replace("c74f20a3", "c74f20a4"),
        VKEY.replace("PeterNeumann", "Peter Neumann"),
        VKEY.replace("+AR", "+CR"),
    ],
)
def test_what_is_no_key_is_refused(vkey: str) -> None:
    with pytest.raises(BadNote, match="expected a key"):
        Verifier.parse(vkey)


@pytest.mark.parametrize(
    "whole",
    [
        "",
        TEXT,
        SIGNED[:-1],
        SIGNED.replace("\u2014", "-"),
        SIGNED.replace("x08g", "!08g"),
        SIGNED + "\u2014 name\n",
        TEXT.replace("you", "\x00") + SIGNED[len(TEXT) :],
    ],
)
def test_what_is_no_note_is_refused(whole: str) -> None:
    with pytest.raises(BadNote):
        Note.parse(whole)
