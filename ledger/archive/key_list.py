"""The list `keys` of a log: who signs it, each vouched for in text that the key before signed.

    ledgerq.key/v1                          ledgerq.witness/v1
    <origin>                                <origin>
    <key>                                   <key of the witness>
    <key before, or ->

A line below a note proves nothing of the other lines there, since anybody can add his own; so that
the next key is trusted because of this one, this one has to sign its name. The new key signs too:
it says which one it replaces. A witness is introduced by the key that is in force.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ledger.archive.notes import (
    COSIGNATURE,
    ED25519,
    BadNote,
    Note,
    NoteSigner,
    Verifier,
    pack_notes,
    unpack_notes,
)

_KEY: Final = "ledgerq.key/v1"
_WITNESS: Final = "ledgerq.witness/v1"
_NONE: Final = "-"


class Introduced(msgspec.Struct, frozen=True):
    """A key of a log, and the note that says so."""

    origin: str
    verifier: Verifier
    after: Verifier | None
    """The key that it replaced; for a witness, and for the first key, None."""
    note: Note

    @property
    def is_witness(self) -> bool:
        return self.verifier.kind == COSIGNATURE


def introduce(signer: NoteSigner, before: NoteSigner | None) -> Note:
    """That a key signs a log, whose origin is its name, from now on. `before` is the one that it
    replaces."""
    after = _NONE if before is None else before.verifier.vkey
    text = f"{_KEY}\n{signer.verifier.name}\n{signer.verifier.vkey}\n{after}\n"
    signers = [signer] if before is None else [before, signer]
    return Note(text, tuple(each.sign(text) for each in signers))


def introduce_witness(witness: Verifier, signer: NoteSigner) -> Note:
    """That a witness cosigns a log whose key in force is the signer's."""
    text = f"{_WITNESS}\n{signer.verifier.name}\n{witness.vkey}\n"
    return Note(text, (signer.sign(text),))


def pack_keys(notes: Sequence[Note]) -> bytes:
    """The list, in the order in which they were introduced."""
    return pack_notes(notes)


def unpack_keys(packed: bytes) -> list[Introduced]:
    """The list, without a look at the signatures. Raises BadNote."""
    return [_introduced(note) for note in unpack_notes(packed)]


def _introduced(note: Note) -> Introduced:
    match note.text.split("\n"):
        case [kind, origin, vkey, after, ""] if kind == _KEY:
            replaced = None if after == _NONE else Verifier.parse(after)
            found = Introduced(origin, Verifier.parse(vkey), replaced, note)
            keys = [found.verifier] if replaced is None else [found.verifier, replaced]
            if all((each.kind, each.name) == (ED25519, origin) for each in keys):
                return found
        case [kind, origin, vkey, ""] if kind == _WITNESS:
            found = Introduced(origin, Verifier.parse(vkey), None, note)
            if found.is_witness:
                return found
        case _:
            pass
    raise BadNote(f"expected a note that introduces a key, got {note.text[:80]!r}")
