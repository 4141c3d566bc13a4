"""Several notes in one object."""

import pytest

from ledger.archive.notes import BadNote, Note, NoteSigner, pack_notes, unpack_notes

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
