"""What a witness is asked, and what it answers (https://c2sp.org/tlog-witness).

A witness remembers the last checkpoint of each log that it knows, and cosigns another one only when
a proof shows that the log went on from there. So whoever finds its cosignature knows that nobody
else was shown another history.

Nothing here reads or writes, and any log's checkpoint will do: what stands in it beside origin,
size and root is cosigned unseen.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final, Self

import msgspec

from ledger.archive.checkpoint import SIZE_DIGITS_MAX
from ledger.archive.merkle import EMPTY_ROOT, HASH_BYTES, is_consistent
from ledger.archive.notes import NOTE_BYTES_MAX, BadNote, Note, Verifier

PROOF_LINES_MAX: Final = 63
REQUEST_BYTES_MAX: Final = NOTE_BYTES_MAX + 64 * 1024
SIZE_TYPE: Final = "text/x.tlog.size"

_OLD: Final = "old "
_LEDGER: Final = "ledgerq"


class BadRequest(ValueError):
    """A request that is none; says why."""


class TreeHead(msgspec.Struct, frozen=True):
    """What every checkpoint says (https://c2sp.org/tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadRequest."""
        origin, _, rest = text.partition("\n")
        size, _, rest = rest.partition("\n")
        root, _, _ = rest.partition("\n")
        if not origin:
            raise BadRequest("expected a checkpoint that begins with its origin")
        return cls(origin, _size_of(size), _hash_of(root))


class AddCheckpoint(msgspec.Struct, frozen=True):
    """A request that a checkpoint be cosigned, and a proof that its tree begins with that of the
    `old` size, which is the last one that the witness cosigned."""

    old: int
    proof: tuple[bytes, ...]
    note: Note

    @property
    def head(self) -> TreeHead:
        """Raises BadRequest."""
        return TreeHead.parse(self.note.text)

    @property
    def body(self) -> bytes:
        """As it is sent."""
        lines = [f"{_OLD}{self.old}", *(base64.b64encode(each).decode() for each in self.proof)]
        return ("\n".join(lines) + "\n\n" + self.note.whole).encode()

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises BadRequest."""
        try:
            text = body.decode()
            before, separator, note = text.partition("\n\n")
            first, *proof = before.split("\n")
            if not separator or not first.startswith(_OLD):
                raise BadRequest(
                    "expected a line with the old size, a proof, an empty line, a note"
                )
            if len(proof) > PROOF_LINES_MAX:
                raise BadRequest(f"expected at most {PROOF_LINES_MAX} lines of proof")
            old = _size_of(first.removeprefix(_OLD))
            found = cls(old, tuple(map(_hash_of, proof)), Note.parse(note))
            _ = found.head
        except (UnicodeDecodeError, BadNote) as error:
            raise BadRequest(str(error)) from error
        return found


class Refusal(msgspec.Struct, frozen=True):
    """Why a checkpoint is not cosigned."""

    status: int
    """Of HTTP, as the protocol has them."""
    reason: str
    latest: int | None = None
    """The size that was cosigned last, where that is not the one that was said."""
    is_alarming: bool = False
    """Most likely the log signed two histories."""


def refusal_of(
    request: AddCheckpoint, known: Sequence[Verifier], latest: TreeHead | None
) -> Refusal | None:
    """Why a witness that cosigned `latest` last must not cosign; None where it may. `known` are the
    keys that it knows, of whatever logs."""
    head = request.head
    keys = keys_of(head.origin, known)
    if not keys:
        return Refusal(404, f"the log {head.origin} is not known here")
    try:
        if not any(key.signed(request.note) for key in keys):
            return Refusal(403, "the checkpoint is signed by no key that is known here")
    except BadNote as error:
        return Refusal(403, str(error))
    if request.old > head.size:
        return Refusal(
            400, f"the old size {request.old} is larger than the checkpoint's {head.size}"
        )
    before = latest or TreeHead(head.origin, 0, EMPTY_ROOT)
    if request.old != before.size:
        return Refusal(409, f"the last one cosigned has the size {before.size}", before.size)
    if request.old == head.size and head.root != before.root:
        return Refusal(409, f"another root of the size {head.size} was cosigned", before.size, True)
    if not is_consistent(before.size, head.size, before.root, head.root, request.proof):
        return Refusal(
            422, f"the proof does not lead from the size {before.size} to {head.size}", None, True
        )
    return None


def origin_hash(origin: str) -> str:
    """How a log is named in a path, as https://c2sp.org/tlog-mirror has it."""
    return hashlib.sha256(origin.encode()).hexdigest()


def keys_of(origin: str, known: Sequence[Verifier]) -> list[Verifier]:
    """The keys that may sign a log. A key of a ledger's log signs for all of its partitions."""
    ledger = _ledger_of(origin)
    return [
        Verifier(origin, each.public, each.kind)
        for each in known
        if each.name == origin or (ledger and _ledger_of(each.name) == ledger)
    ]


def _ledger_of(origin: str) -> str | None:
    match origin.split("/"):
        case [word, epoch, partition] if word == _LEDGER and epoch and partition.isdecimal():
            return epoch
        case _:
            return None


def _size_of(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= SIZE_DIGITS_MAX):
        raise BadRequest(f"expected a size, got {text[:40]!r}")
    if text != str(int(text)):
        raise BadRequest(f"expected a size without zeroes in front, got {text[:40]!r}")
    return int(text)


def _hash_of(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != HASH_BYTES or base64.b64encode(found).decode() != text:
        raise BadRequest(f"expected a hash in base64, got {text[:60]!r}")
    return found
