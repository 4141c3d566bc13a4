"""Whether data that is gone was erased by an event that says so.

What has to be remembered are the events whose data is gone: some 300 bytes each.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from ledger.archive.index import key_of
from ledger.archive.verify.faults import Faults, Kind
from ledger.store import Position, Recorded


class _Erased(msgspec.Struct, frozen=True):
    redacted: Mapping[str, str] = {}


_decode = msgspec.json.Decoder(_Erased).decode


class Erasures:
    """Of one log."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._gone: dict[tuple[bytes, int], tuple[Position, str]] = {}
        self._told: dict[tuple[bytes, int], set[str]] = {}
        self._not_sealed: set[tuple[bytes, int]] = set()
        self.tasks: set[bytes] = set()
        """Keys of those that were erased."""

    @property
    def events(self) -> int:
        """How many have lost data."""
        return len(self._gone)

    def gone(self, event: Recorded, left: bytes) -> None:
        """Of an event's data, this is left."""
        key = (key_of(event.task_id), event.version)
        self._gone[key] = event.position, hashlib.sha256(left).hexdigest()

    @property
    def has_unexplained(self) -> bool:
        """Whether data is gone of which no sealed event says so yet."""
        return not self._gone.keys() <= self._told.keys()

    def erased(self, event: Recorded, *, is_sealed: bool = True) -> None:
        """A TaskErased. Until it is sealed, the archive's data is to stay: anybody who can write to
        the ledger can put one there."""
        key = key_of(event.task_id)
        try:
            redacted = _decode(event.data).redacted
            versions = {int(version): digest for version, digest in redacted.items()}
        except (ValueError, RecursionError) as error:
            self._faults.add(Kind.FORGED, event.position, f"{event.type}: {error}")
            return
        self.tasks.add(key)
        if not is_sealed:
            self._not_sealed.update((key, version) for version in versions)
            return
        for version, digest in versions.items():
            self._told.setdefault((key, version), set()).add(digest)

    def finish(self) -> list[str]:
        """Compare, and say what is not done yet."""
        for key, (position, digest) in self._gone.items():
            if key not in self._told and key in self._not_sealed:
                reason = "its data was removed, and the event that erases it is not sealed"
                self._faults.add(Kind.ALTERED, position, reason)
            elif key not in self._told:
                reason = "its data was removed, and no event of its task says that it was erased"
                self._faults.add(Kind.ALTERED, position, reason)
            elif digest not in self._told[key]:
                reason = "what is left of its data is not what the erasure left"
                self._faults.add(Kind.ALTERED, position, reason)
        left = len((self._told.keys() | self._not_sealed) - self._gone.keys())
        return [f"the data of {left} events that were erased is still there"] if left else []
