"""Checkpoints: what a log was at a size, in the format of C2SP tlog-checkpoint.

    <origin>
    <size>
    <root, base64>
    index <root of the index, base64>

The last line is ours: it commits to which leaves every task has (see `index`), which is what makes
it provable that there are no more.
"""

import base64
import binascii
from typing import Final, Self

import msgspec

from ledger.archive.merkle import HASH_BYTES

_INDEX: Final = "index "
SIZE_DIGITS_MAX: Final = 16


class NoCheckpoint(ValueError):
    """Text that is no checkpoint of ours; says why."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A log at one size."""

    origin: str
    size: int
    root: bytes
    index_root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return (
            f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"
            f"{_INDEX}{base64.b64encode(self.index_root).decode()}\n"
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises NoCheckpoint for anything but what `text` is."""
        lines = text.split("\n")
        if len(lines) != 5 or lines[4] or not lines[0] or not lines[3].startswith(_INDEX):
            raise NoCheckpoint("expected the lines origin, size, root and index")
        origin, size, root, index, _ = lines
        if not (size.isascii() and size.isdigit() and len(size) <= SIZE_DIGITS_MAX):
            raise NoCheckpoint(f"expected a size, got {size[:40]!r}")
        found = cls(origin, int(size), _hash_of(root), _hash_of(index.removeprefix(_INDEX)))
        if found.text != text:
            raise NoCheckpoint("its lines are not written as they must be")
        return found


def _hash_of(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise NoCheckpoint(f"expected a hash in base64, got {text[:60]!r}") from error
    if len(found) != HASH_BYTES:
        raise NoCheckpoint(f"expected a hash of {HASH_BYTES} bytes, got {len(found)}")
    return found


def origin_of(epoch: str, partition: int) -> str:
    """The name of a partition's log: there is no other one of that name."""
    return f"ledgerq/{epoch}/{partition}"
