"""Signed notes (https://c2sp.org/signed-note) and cosignatures (https://c2sp.org/tlog-cosignature):
text, an empty line, and signatures, each by an Ed25519 key with a name."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final, Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519: Final = 1
COSIGNATURE: Final = 4
KEY_BYTES: Final = 32
SIGNATURES_MAX: Final = 64
NOTES_AN_OBJECT: Final = 256
"""Where many are kept."""

NOTE_BYTES_MAX: Final = 64 * 1024
_SEPARATOR: Final = "\n\n"
_DASH: Final = "\u2014 "


class BadNote(ValueError):
    """A note that is malformed, or that none of the keys signed; says which."""


class Signature(msgspec.Struct, frozen=True):
    """A line below a note."""

    name: str
    key_id: bytes
    signed: bytes

    @property
    def line(self) -> str:
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signed).decode()}\n"


class Note(msgspec.Struct, frozen=True):
    """Text, which ends with a line break, and who signed it."""

    text: str
    signatures: tuple[Signature, ...]

    @property
    def whole(self) -> str:
        """As it is written."""
        return self.text + "\n" + "".join(each.line for each in self.signatures)

    @classmethod
    def parse(cls, whole: str) -> Self:
        """Raises BadNote."""
        if len(whole) > NOTE_BYTES_MAX:
            raise BadNote(f"a note of {len(whole)} characters: expected at most {NOTE_BYTES_MAX}")
        if any(ord(each) < 0x20 and each != "\n" for each in whole):
            raise BadNote("a note must not have control characters")
        text, separator, below = whole.rpartition(_SEPARATOR)
        if not separator or not below.endswith("\n"):
            raise BadNote("expected text, an empty line and signatures")
        lines = below[:-1].split("\n")
        if len(lines) > SIGNATURES_MAX:
            raise BadNote(f"expected at most {SIGNATURES_MAX} signatures, got {len(lines)}")
        return cls(text + "\n", tuple(map(_signature_of, lines)))


def _signature_of(line: str) -> Signature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    signature = Signature(name, raw[:4], raw[4:])
    if not (line.startswith(_DASH) and space and len(raw) > 4 and signature.line == line + "\n"):
        raise BadNote(f"expected a signature line, got {line[:60]!r}")
    return signature


class Verifier(msgspec.Struct, frozen=True):
    """A public key with its name; `kind` is ED25519 or COSIGNATURE."""

    name: str
    public: bytes
    kind: int = ED25519

    @property
    def key_id(self) -> bytes:
        material = bytes([self.kind]) + self.public
        return hashlib.sha256(self.name.encode() + b"\n" + material).digest()[:4]

    @property
    def vkey(self) -> str:
        """As keys are handed around: name, id and key."""
        material = base64.b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{material}"

    def lines_in(self, note: Note) -> list[Signature]:
        """The signatures of a note that are said to be of this key."""
        own = (self.name, self.key_id)
        return [each for each in note.signatures if (each.name, each.key_id) == own]

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Raises BadNote for what is no key."""
        name, _, rest = vkey.strip().partition("+")
        _, _, encoded = rest.partition("+")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if raw[:1] in (b"\x01", b"\x04") and len(raw) == 1 + KEY_BYTES:
            found = cls(name, raw[1:], raw[0])
            if found.vkey == vkey.strip() and is_key_name(name):
                return found
        raise BadNote(f"expected a key such as NAME+1234abcd+BASE64, got {vkey[:80]!r}")

    def signed(self, note: Note) -> bool:
        """Whether a note has this key's signature. Raises BadNote where it has a wrong one."""
        lines = self.lines_in(note)
        for each in lines:
            message, signature = self._message(note.text, each.signed)
            try:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
            except InvalidSignature as error:
                raise BadNote(f"the signature by {self.name} is not of this text") from error
        return bool(lines)

    def _message(self, text: str, signed: bytes) -> tuple[bytes, bytes]:
        if self.kind == ED25519:
            return text.encode(), signed
        at_s = int.from_bytes(signed[:8], "big")
        return _cosigned(text, at_s), signed[8:]


class NoteSigner:
    """A private key with its name."""

    def __init__(self, name: str, seed: bytes, kind: int = ED25519) -> None:
        """`seed`: the private key's 32 bytes (RFC 8032)."""
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._private.public_key().public_bytes_raw(), kind)

    def sign(self, text: str) -> Signature:
        """A signature of the text of a note."""
        signed = self._private.sign(text.encode())
        return Signature(self.verifier.name, self.verifier.key_id, signed)

    def cosign(self, text: str, at_s: int) -> Signature:
        """A witness's statement that, at a time (s since 1970), this was the latest checkpoint."""
        signed = at_s.to_bytes(8, "big") + self._private.sign(_cosigned(text, at_s))
        return Signature(self.verifier.name, self.verifier.key_id, signed)


def _cosigned(text: str, at_s: int) -> bytes:
    return f"cosignature/v1\ntime {at_s}\n{text}".encode()


def is_key_name(name: str) -> bool:
    """Whether a key may be called so."""
    return bool(name) and "+" not in name and not any(map(str.isspace, name))


def pack_notes(notes: Sequence[Note]) -> bytes:
    """Several notes in one object, an empty line between them. Their texts have no empty lines."""
    return "\n".join(each.whole for each in notes).encode()


def unpack_notes(packed: bytes) -> list[Note]:
    """The notes of an object. Raises BadNote."""
    try:
        parts = packed.decode().split(_SEPARATOR)
    except UnicodeDecodeError as error:
        raise BadNote("expected notes, got what is no text") from error
    *firsts, last = parts
    if len(parts) % 2 or not last.endswith("\n"):
        raise BadNote("expected notes, each of text, an empty line and signatures")
    lines = [*firsts, last[:-1]]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return [Note.parse(f"{text}{_SEPARATOR}{signatures}\n") for text, signatures in pairs]


def signers_of(note: Note, verifiers: Sequence[Verifier]) -> list[Verifier]:
    """Which of these keys signed a note. Raises BadNote where none did, or one's is wrong."""
    found = [each for each in verifiers if each.signed(note)]
    if not found:
        names = ", ".join(sorted({each.name for each in note.signatures}))
        raise BadNote(f"signed by none of the keys that are trusted, but by {names}")
    return found
