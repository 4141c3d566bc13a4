"""Checkpoints: what a log was at a size, in the format of C2SP tlog-checkpoint.

    <origin>
    <size>
    <root, base64>
    index <root of the index, base64>
    last <entry id of the last leaf's event>

The last two lines are ours. `index` commits to which leaves every task has (see `index`), which is
what makes it provable that there are no more. `last` says up to where, and when, without showing
that event; an empty log has none.
"""

import base64
from typing import Final, Self

import msgspec

from ledger.archive.merkle import HASH_BYTES
from ledger.store import Position

_INDEX: Final = "index "
_LAST: Final = "last "
SIZE_DIGITS_MAX: Final = 16


class NoCheckpoint(ValueError):
    """Text that is no checkpoint of ours; says why."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A log at one size."""

    origin: str
    size: int
    root: bytes
    index_root: bytes
    last: str = ""
    """The entry id of the last event; empty where none is told."""

    @property
    def text(self) -> str:
        """What is signed."""
        return (
            f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"
            f"{_INDEX}{base64.b64encode(self.index_root).decode()}\n"
        ) + (f"{_LAST}{self.last}\n" if self.last else "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises NoCheckpoint for anything but what `text` is."""
        lines = text.split("\n")
        if len(lines) not in (5, 6) or lines[-1] or not lines[0]:
            raise NoCheckpoint("expected the lines origin, size, root, index and last")
        origin, size, root, index, *last = lines[:-1]
        if not (size.isascii() and size.isdigit() and len(size) <= SIZE_DIGITS_MAX):
            raise NoCheckpoint(f"expected a size, got {size[:40]!r}")
        found = cls(
            origin,
            int(size),
            _hash_of(root),
            _hash_of(index.removeprefix(_INDEX)),
            _entry_of(last[0].removeprefix(_LAST)) if last else "",
        )
        if found.text != text:
            raise NoCheckpoint("its lines are not written as they must be")
        return found


def _entry_of(text: str) -> str:
    try:
        return Position.parse(f"0:{text}").entry
    except ValueError as error:
        raise NoCheckpoint(f"expected an entry id, got {text[:60]!r}") from error


def _hash_of(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise NoCheckpoint(f"expected a hash in base64, got {text[:60]!r}") from error
    if len(found) != HASH_BYTES:
        raise NoCheckpoint(f"expected a hash of {HASH_BYTES} bytes, got {len(found)}")
    return found


def origin_of(epoch: str, partition: int) -> str:
    """The name of a partition's log: there is no other one of that name."""
    return f"ledgerq/{epoch}/{partition}"
