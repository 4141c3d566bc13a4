"""Who signed the checkpoints of a log, and whether they may.

A key is trusted because whoever verifies says so, or because of a note in which a key that is
trusted names it (`ledger.archive.key_list`): the key after it, and the key before it too. Without
any that he was told, the first key of the archive's own list is believed. When a key has signed,
the one that it replaced must not sign alone any more.
"""

from collections.abc import Sequence
from typing import Final

from ledger.archive.key_list import Introduced
from ledger.archive.notes import BadNote, Note, Verifier
from ledger.archive.verify.faults import Faults, Kind

_NAMED_CHARACTERS: Final = 100


class Trust:
    """The keys of a log, and what they signed so far."""

    def __init__(
        self,
        listed: Sequence[Introduced] | None,
        told: Sequence[Verifier],
        witnesses: Sequence[Verifier] = (),
    ) -> None:
        """`listed`: None where the list cannot be read, so that nothing is to be said of signatures
        by keys that are not known. `told`: those that whoever verifies trusts, under the name of
        this log."""
        self._is_blind = listed is None
        self._listed = listed or ()
        self._order = [each.verifier for each in self._listed if not each.is_witness]
        known = [*told, *witnesses, *(each.verifier for each in self._listed)]
        self._known = {(each.name, each.key_id): each for each in reversed(known)}
        self._trusted = set(told) if told else set(self._order[:1])
        self._in_force = -1
        self.signed: dict[Verifier, None] = {}
        """Those that are trusted and signed, the oldest first."""

    def introduce(self, where: str, origin: str, faults: Faults) -> None:
        """Check the list, and follow it from key to key."""
        links: list[tuple[Verifier, Verifier]] = []
        before: Verifier | None = None
        for each in self._listed:
            names = [before] if each.is_witness else [each.verifier, each.after]
            expected = {key for key in names if key is not None}
            if not each.is_witness and each.after != before:
                reason = f"it does not say that {each.verifier.vkey} comes next"
                faults.add(Kind.FORGED, where, reason)
            if each.origin != origin:
                faults.add(Kind.FORGED, where, f"it is of the log {each.origin}, expected {origin}")
            lacking = expected - set(self.signers(where, each.note, faults))
            if lacking:
                by = ", ".join(sorted(key.vkey for key in lacking))
                faults.add(Kind.FORGED, where, f"{each.verifier.vkey} is not vouched for by {by}")
                continue
            if not each.is_witness:
                if each.after is not None:
                    links.append((each.after, each.verifier))
                before = each.verifier
        for old, new in links:
            if old in self._trusted:
                self._trusted.add(new)
        for old, new in reversed(links):
            if new in self._trusted:
                self._trusted.add(old)

    def signers(self, where: str, note: Note, faults: Faults) -> list[Verifier]:
        """Whose signatures a note has. One that is wrong, or by a key that nobody knows, is a
        fault: nobody puts such a line there."""
        found: list[Verifier] = []
        for line in note.signatures:
            key = self._known.get((line.name, line.key_id))
            if key is None and self._is_blind:
                continue
            if key is None:
                name = f"{line.name[:_NAMED_CHARACTERS]}+{line.key_id.hex()}"
                faults.add(Kind.FORGED, where, f"it is signed by {name}, which is no known key")
                continue
            try:
                key.signed(Note(note.text, (line,)))
            except BadNote as error:
                faults.add(Kind.ALTERED, where, f"{error}: either was altered")
            else:
                found.append(key)
        return found

    def judge(self, where: str, signers: Sequence[Verifier], faults: Faults) -> bool:
        """Whether the next checkpoint is signed by whom it must be."""
        ours = [key for key in signers if key in self._trusted]
        if not ours and self._is_blind:
            return True
        if not ours:
            names = ", ".join(key.vkey for key in signers if key in self._order)
            reason = f"it is signed by no key that is trusted{', but by ' * bool(names)}{names}"
            faults.add(Kind.FORGED, where, reason)
            return False
        newest = max(self._order.index(key) if key in self._order else -1 for key in ours)
        if newest < self._in_force:
            replaced = self._order[self._in_force].vkey
            faults.add(Kind.FORGED, where, f"it is signed by a key that {replaced} had replaced")
            return False
        self._in_force = newest
        self.signed.update(dict.fromkeys(ours))
        return True


def renamed(verifier: Verifier, origin: str) -> Verifier:
    """The same key for another log: a ledger has one for all of its partitions, whose name in each
    is that of the log."""
    return Verifier(origin, verifier.public, verifier.kind)
