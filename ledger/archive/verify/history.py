"""The checkpoints that were ever signed for a log, and what must be true at each of them.

Each is kept as some 300 bytes for as long as the log is being verified.
"""

from collections.abc import Sequence

import msgspec

from ledger.archive.checkpoint import Checkpoint, NoCheckpoint
from ledger.archive.notes import NOTES_AN_OBJECT, BadNote, Note, Verifier, unpack_notes
from ledger.archive.tiles import CHECKPOINT, checkpoints_name
from ledger.archive.verify.faults import Faults, Kind
from ledger.archive.verify.trust import Trust


class Point(msgspec.Struct, frozen=True, gc=False):
    """What a log was at a size, as somebody says."""

    where: str
    size: int
    root: bytes
    index_root: bytes | None
    last: str
    """The entry of the last event; empty where that is not said."""


class History:
    """The checkpoints of a log, from first to last."""

    def __init__(self, origin: str, trust: Trust, faults: Faults) -> None:
        self._origin = origin
        self._trust = trust
        self._faults = faults
        self._size = -1
        self._ahead: Point | None = None
        """One that the list lacked when it was read."""
        self.signed = 0
        self.points: list[Point] = []
        """Those that are signed as they must be, in order."""
        self.witnessed: dict[Verifier, int] = {}
        """The size of the newest one that each witness cosigned."""

    def add_list(self, number: int, packed: bytes, *, is_last: bool) -> None:
        """An object of the list; the last one may come again, when it has grown."""
        where = checkpoints_name(number)
        try:
            notes = unpack_notes(packed)
        except BadNote as error:
            self._faults.add(Kind.ALTERED, where, str(error))
            return
        if len(notes) > NOTES_AN_OBJECT or (len(notes) < NOTES_AN_OBJECT and not is_last):
            reason = f"it has {len(notes)} checkpoints, expected {NOTES_AN_OBJECT}"
            self._faults.add(Kind.TRUNCATED, where, reason)
        for at, note in enumerate(notes):
            place = number * NOTES_AN_OBJECT + at
            if place >= self.signed:
                self.signed = place + 1
                self._add(where, note)

    def add_published(self, packed: bytes) -> None:
        """The one that is published: the last one of the list, or one that is about to be there, or
        to be published in its place."""
        try:
            note = Note.parse(packed.decode())
        except (UnicodeDecodeError, BadNote) as error:
            self._faults.add(Kind.ALTERED, CHECKPOINT, str(error))
            return
        checkpoint = self._parsed(CHECKPOINT, note)
        if checkpoint is None:
            return
        if checkpoint.size > self._size:
            # A writer that came too late wrote the list without it. It will be there again.
            self._add(CHECKPOINT, note)
            self._ahead = self.points[-1] if self.points else None
            return
        signers = self._trust.signers(CHECKPOINT, note, self._faults)
        self._note_witnesses(signers, checkpoint.size)
        newest = reversed(self.points)
        known = next((each for each in newest if each.size == checkpoint.size), None)
        if known is None or _point(CHECKPOINT, checkpoint) != _point(CHECKPOINT, known):
            reason = f"it is not among the checkpoints that were signed, at size {checkpoint.size}"
            self._faults.add(Kind.FORGED, CHECKPOINT, reason)

    def _add(self, where: str, note: Note) -> None:
        checkpoint = self._parsed(where, note)
        if checkpoint is None:
            return
        said = f"{where} (size {checkpoint.size})"
        if self._ahead is not None and _point(self._ahead.where, checkpoint) == self._ahead:
            return
        if checkpoint.size <= self._size:
            reason = f"it comes after one of size {self._size}"
            self._faults.add(Kind.REORDERED, said, reason)
            return
        signers = self._trust.signers(said, note, self._faults)
        self._note_witnesses(signers, checkpoint.size)
        if self._trust.judge(said, signers, self._faults):
            self._size = checkpoint.size
            self.points.append(_point(said, checkpoint))

    def _note_witnesses(self, signers: Sequence[Verifier], size: int) -> None:
        for each in signers:
            if each.name != self._origin:
                self.witnessed[each] = max(size, self.witnessed.get(each, 0))

    def _parsed(self, where: str, note: Note) -> Checkpoint | None:
        try:
            found = Checkpoint.parse(note.text)
        except NoCheckpoint as error:
            self._faults.add(Kind.ALTERED, where, str(error))
            return None
        if found.origin != self._origin:
            reason = f"it is of the log {found.origin}, expected {self._origin}"
            self._faults.add(Kind.FORGED, where, reason)
            return None
        return found


def _point(where: str, found: Checkpoint | Point) -> Point:
    return Point(where, found.size, found.root, found.index_root, found.last)
