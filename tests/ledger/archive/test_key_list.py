"""Who introduces a key of a log."""

import pytest

from ledger.archive.key_list import introduce, introduce_witness, pack_keys, unpack_keys
from ledger.archive.notes import COSIGNATURE, BadNote, NoteSigner

ORIGIN = "ledgerq/e/0"
FIRST, SECOND = NoteSigner(ORIGIN, b"1" * 32), NoteSigner(ORIGIN, b"2" * 32)
WITNESS = NoteSigner("witness.example/w", b"3" * 32, COSIGNATURE).verifier


def test_keys_come_back_with_those_that_they_replaced() -> None:
    notes = [
        introduce(FIRST, None),
        introduce_witness(WITNESS, FIRST),
        introduce(SECOND, before=FIRST),
    ]

    found = unpack_keys(pack_keys(notes))

    assert [(each.verifier, each.after, each.is_witness) for each in found] == [
        (FIRST.verifier, None, False),
        (WITNESS, None, True),
        (SECOND.verifier, FIRST.verifier, False),
    ]


def test_a_replacement_is_signed_by_both() -> None:
    note = introduce(SECOND, before=FIRST)

    assert FIRST.verifier.signed(note)
    assert SECOND.verifier.signed(note)


@pytest.mark.parametrize("text", ["a\nb\n", "ledgerq.key/v1\nledgerq/e/0\nx\n-\n"])
def test_other_notes_introduce_nobody(text: str) -> None:
    note = introduce(FIRST, None)

    with pytest.raises(BadNote):
        unpack_keys(pack_keys([type(note)(text, note.signatures)]))


def test_a_key_of_another_log_is_refused() -> None:
    other = NoteSigner("ledgerq/e/1", b"4" * 32)

    with pytest.raises(BadNote):
        unpack_keys(pack_keys([introduce(SECOND, before=other)]))
