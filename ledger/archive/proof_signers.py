"""Who signed the checkpoint of a proof, and whether that is somebody who is trusted."""

from collections.abc import Sequence

import msgspec

from ledger.archive.checkpoint import Checkpoint, NoCheckpoint
from ledger.archive.key_list import Introduced, unpack_keys
from ledger.archive.notes import COSIGNATURE, ED25519, BadNote, Note, Verifier
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


def signers(
    proof: Proof,
    note: Note,
    origin: str,
    keys: Sequence[Verifier],
    witnesses: Sequence[Verifier] = (),
) -> list[Verifier]:
    """Which keys of the log signed the checkpoint, if one of these did, or led to the one that did.
    Nobody else may have, but for witnesses that are named. Raises BadProof."""
    named = [named_for(origin, key) for key in keys]
    trusted = [key for key in named if (key.name, key.kind) == (origin, ED25519)]
    if not trusted:
        names = ", ".join(sorted({key.name for key in keys}))
        raise BadProof(f"it is of the log {origin}, and the keys are for {names or 'no log'}")
    try:
        led_to, introduced = _keys_of(proof, origin, trusted)
        signed = _all_signers(note, [*trusted, *led_to, *introduced, *witnesses])
    except BadNote as error:
        raise BadProof(f"the checkpoint: {error}") from error
    if led_to and led_to[-1] not in signed:
        raise BadProof("the keys lead to one that did not sign the checkpoint")
    is_led_from_trusted = bool({*trusted} & {*led_to})
    believed = {*trusted, *led_to} if is_led_from_trusted else {*trusted}
    found = [key for key in signed if key in believed]
    if not found:
        names = ", ".join(key.vkey for key in signed)
        raise BadProof(
            f"the checkpoint is signed by none of the keys that are trusted, but by {names}"
        )
    return found


def _all_signers(note: Note, known: Sequence[Verifier]) -> list[Verifier]:
    """Whose signatures a note has, each once. Raises BadNote where one is wrong, or anybody's."""
    by_id = {(key.name, key.key_id): key for key in known}
    found: list[Verifier] = []
    for each in note.signatures:
        key, who = by_id.get((each.name, each.key_id)), f"{each.name}+{each.key_id.hex()}"
        if key is None:
            raise BadNote(f"it is signed by {who}, which is no key that is trusted or introduced")
        if key in found:
            raise BadNote(f"it is signed by {who} twice")
        key.signed(Note(note.text, (each,)))
        found.append(key)
    return found


def _keys_of(
    proof: Proof, origin: str, trusted: Sequence[Verifier]
) -> tuple[list[Verifier], list[Verifier]]:
    """The keys of a log that followed upon one another, the first one first: each vouched for the
    next one. And the witnesses that they named. Whether any of the former is to be trusted is not
    looked at. Raises BadProof, BadNote."""
    led_to: list[Verifier] = []
    witnesses: list[Introduced] = []
    for number, text in enumerate(proof.keys, 1):
        each, *others = unpack_keys(text.encode())
        if others or each.origin != origin:
            raise BadProof(f"key {number} is of another log")
        if each.is_witness:
            witnesses.append(each)
            continue
        both = [key for key in (each.after, each.verifier) if key is not None]
        follows = not led_to or led_to[-1] == both[0]
        if len(both) != 2 or not follows or _all_signers(each.note, both) != both:
            raise BadProof(f"key {number} is not introduced by the one before it")
        led_to += both[1:] if led_to else both
    for each in witnesses:
        if len(_all_signers(each.note, [*trusted, *led_to])) != 1:
            raise BadProof(f"the witness {each.verifier.name} is not named by one key of the log")
    return led_to, [each.verifier for each in witnesses]


def named_for(origin: str, key: Verifier) -> Verifier:
    """A key as it signs for a log: one key signs for all logs of a ledger, each time under the
    log's name."""
    same_ledger = key.name.rpartition("/")[0] == origin.rpartition("/")[0] != ""
    return Verifier(origin, key.public) if same_ledger and key.kind == ED25519 else key


def cosigned(note: Note, witness: Verifier) -> Cosigned:
    try:
        if witness.kind == COSIGNATURE and witness.signed(note):
            signed = witness.lines_in(note)[0].signed
            return Cosigned(witness.name, int.from_bytes(signed[:8], "big"))
    except BadNote as error:
        raise BadProof(f"the checkpoint: {error}") from error
    raise BadProof(f"the checkpoint: the witness {witness.name} did not cosign it")


def partition_of(origin: str) -> int:
    parts = origin.split("/")
    if len(parts) != 3 or not (parts[2].isascii() and parts[2].isdigit()):
        raise BadProof(f"the checkpoint: {origin[:80]!r} is no log of a ledger")
    return int(parts[2][:9])
