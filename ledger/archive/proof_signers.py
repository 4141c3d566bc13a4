"""Who signed the checkpoint of a proof, and whether that is somebody who is trusted."""

from collections.abc import Sequence

import msgspec

from ledger.archive.checkpoint import Checkpoint, NoCheckpoint
from ledger.archive.key_list import unpack_keys
from ledger.archive.notes import COSIGNATURE, ED25519, BadNote, Note, Verifier, signers_of
from ledger.archive.proof import BadProof, Proof


class Cosigned(msgspec.Struct, frozen=True):
    """A witness that saw the checkpoint, and when (s since 1970)."""

    name: str
    at_s: int


def checkpoint_of(proof: Proof) -> tuple[Note, Checkpoint]:
    try:
        note = Note.parse(proof.checkpoint)
        return note, Checkpoint.parse(note.text)
    except (BadNote, NoCheckpoint) as error:
        raise BadProof(f"the checkpoint: {error}") from error


def signers(proof: Proof, note: Note, origin: str, keys: Sequence[Verifier]) -> list[Verifier]:
    """Which keys signed the checkpoint, if one of these did, or led to the one that did. Raises
    BadProof."""
    named = [named_for(origin, key) for key in keys]
    trusted = [key for key in named if (key.name, key.kind) == (origin, ED25519)]
    if not trusted:
        names = ", ".join(sorted({key.name for key in keys}))
        raise BadProof(f"it is of the log {origin}, and the keys are for {names or 'no log'}")
    try:
        led_to = _led_to(proof, origin)
        known = dict.fromkeys([*trusted, *led_to])
        signed = [key for key in known if key.signed(note)]
    except BadNote as error:
        raise BadProof(f"the checkpoint: {error}") from error
    if led_to and led_to[-1] not in signed:
        raise BadProof("the keys lead to one that did not sign the checkpoint")
    is_led_from_trusted = bool({*trusted} & {*led_to})
    found = [key for key in signed if is_led_from_trusted or key in trusted]
    names = ", ".join(f"{each.name}+{each.key_id.hex()}" for each in note.signatures)
    if not found:
        raise BadProof(
            f"the checkpoint is signed by none of the keys that are trusted, but by {names}"
        )
    ids = {key.key_id for key in known}
    if any(each.name == origin and each.key_id not in ids for each in note.signatures):
        raise BadProof(f"the checkpoint is signed by a key that is unknown too: {names}")
    return found


def _led_to(proof: Proof, origin: str) -> list[Verifier]:
    """The keys of a log that followed upon one another, the first one first: each vouched for the
    next one. Whether any of them is to be trusted is not looked at."""
    found: list[Verifier] = []
    for number, text in enumerate(proof.keys, 1):
        introduced = _introduced(text, origin)
        if introduced is None or (found and found[-1] != introduced[0]):
            raise BadProof(f"key {number} is not introduced by the one before it")
        found += introduced[1:] if found else introduced
    return found


def _introduced(text: str, origin: str) -> list[Verifier] | None:
    """A key, and the one that took its place, if both say so. Raises BadNote."""
    each, *others = unpack_keys(text.encode())
    if others or each.after is None or each.origin != origin or len(each.note.signatures) != 2:
        return None
    both = [each.after, each.verifier]
    return both if signers_of(each.note, both) == both else None


def named_for(origin: str, key: Verifier) -> Verifier:
    """A key as it signs for a log: one key signs for all logs of a ledger, each time under the
    log's name."""
    same_ledger = key.name.rpartition("/")[0] == origin.rpartition("/")[0] != ""
    return Verifier(origin, key.public) if same_ledger and key.kind == ED25519 else key


def cosigned(note: Note, witness: Verifier) -> Cosigned:
    try:
        if witness.kind == COSIGNATURE and witness.signed(note):
            own = (witness.name, witness.key_id)
            signed = next(s.signed for s in note.signatures if (s.name, s.key_id) == own)
            return Cosigned(witness.name, int.from_bytes(signed[:8], "big"))
    except BadNote as error:
        raise BadProof(f"the checkpoint: {error}") from error
    raise BadProof(f"the checkpoint: the witness {witness.name} did not cosign it")


def partition_of(origin: str) -> int:
    parts = origin.split("/")
    if len(parts) != 3 or not (parts[2].isascii() and parts[2].isdigit()):
        raise BadProof(f"the checkpoint: {origin[:80]!r} is no log of a ledger")
    return int(parts[2][:9])
