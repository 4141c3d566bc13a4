"""A proof of one task's history: that these are its events up to a checkpoint, all of them.

It is a JSON file which needs nothing but a public key to be checked. It has the events, each as a
leaf with its data; the hashes that lead from the leaves to the root of the checkpoint; of every
segment of the index (see `index`) the task's record, or the neighbours between which it would
stand, with the hashes that lead to the root of the index; and the signed checkpoint.

There is one way only to write a proof, so that no byte of it can be changed unnoticed.
"""

from typing import Final, Self

import msgspec

FORMAT: Final = "ledgerq.proof/v1"
PROOF_BYTES_MAX: Final = 256 * 1024 * 1024
"""Nothing larger is read: a task's payload, result and messages are all in its proof."""


class BadProof(ValueError):
    """A proof that does not hold; says where and why."""


class IncompleteProof(BadProof):
    """A proof that holds, of a history whose beginning the archive never had."""


class ProvedEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An event: its leaf, which is text, and its data, as text unless it is none. Of erased data,
    what is left of it."""

    index: int
    leaf: str
    salt: bytes = b""
    data: str = ""
    data_base64: bytes = b""
    erased: bool = False

    @classmethod
    def of(cls, index: int, leaf: str, salt: bytes, data: bytes, erased: bool) -> Self:
        """The only way in which this event is written."""
        try:
            return cls(index, leaf, salt, data.decode(), b"", erased)
        except UnicodeDecodeError:
            return cls(index, leaf, salt, "", data, erased)

    @property
    def content(self) -> bytes:
        """The data's bytes."""
        return self.data_base64 or self.data.encode()


class ProvedRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record of the index, and which one of its segment it is."""

    number: int
    record: bytes


class ProvedSegment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a segment of the index has of the task. The segments' ranges follow from the size."""

    records: int
    places: tuple[ProvedRecord, ...]
    hashes: tuple[bytes, ...]


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in the file."""

    format: str
    task: str
    checkpoint: str
    keys: tuple[str, ...]
    """Notes, by each of which a key introduces the next one, up to the one that signed the
    checkpoint (none where that is the log's first one), or a witness that cosigned it."""
    events: tuple[ProvedEvent, ...]
    hashes: tuple[bytes, ...]
    segments: tuple[ProvedSegment, ...]


_decode = msgspec.json.Decoder(Proof).decode


def write_proof(proof: Proof) -> bytes:
    """The bytes of the file: JSON with each item on a line, indented by one space a level."""
    return msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n"


def read_proof(written: bytes) -> Proof:
    """What is in a file. Raises BadProof for anything that `write_proof` would not write."""
    if len(written) > PROOF_BYTES_MAX:
        raise BadProof(f"a file of {len(written)} bytes: expected at most {PROOF_BYTES_MAX}")
    try:
        proof = _decode(written)
    except (ValueError, RecursionError) as error:
        raise BadProof(f"not a proof, or cut off: {error}") from error
    if proof.format != FORMAT:
        raise BadProof(f"the format is {proof.format[:40]!r}, expected {FORMAT}")
    again = write_proof(proof)
    if again != written:
        line = 1 + _common(again, written).count(b"\n")
        raise BadProof(f"line {line} is not written as it must be")
    return proof


def _common(one: bytes, other: bytes) -> bytes:
    """What two begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return one[:low]
