"""Who signed the checkpoints of a log, and whether they may.

A key is trusted because whoever verifies says so, or because of a note in which a key that is
trusted names it (`ledger.archive.key_list`): the key after it, and the key before it too. Without
any that he was told, the first key of the archive's own list is believed. When a key has signed,
the one that it replaced must not sign alone any more; and the newest key of the list must have
signed the newest checkpoint: else whoever stole an older one could rewrite all that it signed.
"""

from collections.abc import Sequence
from typing import Final

from ledger.archive.key_list import Introduced
from ledger.archive.notes import BadNote, Note, Verifier
from ledger.archive.verify.faults import Faults, Kind

_NAMED_CHARACTERS: Final = 100


class Trust:
    """The keys of a log, and what they signed so far."""

    def __init__(self, told: Sequence[Verifier], witnesses: Sequence[Verifier] = ()) -> None:
        """`told`: those that whoever verifies trusts, under the name of this log."""
        self._told = told
        self._outside = [*told, *witnesses]
        self._trusted = set(told)
        self._order: list[Verifier] = []
        self._checked = 0
        self._is_blind = True
        self._learn(())
        self._in_force = -1
        self.signed: dict[Verifier, None] = {}
        """Those that are trusted and signed, the oldest first."""

    def introduce(
        self, where: str, origin: str, listed: Sequence[Introduced], faults: Faults
    ) -> None:
        """Check the list of the log's keys, and follow it from key to key. It may come again, when
        it has grown. As long as it has not come, nothing is said of signatures by keys that nobody
        knows."""
        self._is_blind = False
        self._learn(listed)
        links: list[tuple[Verifier, Verifier]] = []
        before: Verifier | None = None
        for number, each in enumerate(listed):
            told = faults if number >= self._checked else Faults()
            is_vouched_for = self._check(where, origin, each, before, told)
            if not each.is_witness:
                if each.after is not None and is_vouched_for:
                    links.append((each.after, each.verifier))
                before = each.verifier
        self._checked = len(listed)
        for old, new in links:
            if old in self._trusted:
                self._trusted.add(new)
        for old, new in reversed(links):
            if new in self._trusted:
                self._trusted.add(old)

    def _learn(self, listed: Sequence[Introduced]) -> None:
        self._order = [each.verifier for each in listed if not each.is_witness]
        known = [*self._outside, *(each.verifier for each in listed)]
        self._known = {(each.name, each.key_id): each for each in reversed(known)}
        if not self._told:
            self._trusted.update(self._order[:1])

    def _check(
        self, where: str, origin: str, each: Introduced, before: Verifier | None, faults: Faults
    ) -> bool:
        """A note of the list; `before`: the key that was in force. Whether it is signed by whom it
        must be."""
        if not each.is_witness and each.after != before:
            reason = f"it does not say that {each.verifier.vkey} comes next"
            faults.add(Kind.FORGED, where, reason)
        if each.origin != origin:
            faults.add(Kind.FORGED, where, f"it is of the log {each.origin}, expected {origin}")
        names = [before] if each.is_witness else [each.verifier, each.after]
        lacking = {key for key in names if key is not None}
        lacking -= set(self.signers(where, each.note, faults))
        if lacking:
            by = ", ".join(sorted(key.vkey for key in lacking))
            faults.add(Kind.FORGED, where, f"{each.verifier.vkey} is not vouched for by {by}")
        return not lacking

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

    @property
    def unused(self) -> Verifier | None:
        """The newest key of the list, where the newest checkpoint that was judged is not signed by
        it."""
        trusted = (at for at, key in enumerate(self._order) if key in self._trusted)
        newest = max(trusted, default=-1)
        return self._order[newest] if self._in_force < newest else None

    def judge(self, where: str, signers: Sequence[Verifier], faults: Faults) -> bool:
        """Whether the next checkpoint is signed by whom it must be."""
        ours = [key for key in signers if key in self._trusted]
        if not ours and self._is_blind:
            return True
        if not ours:
            if signers:  # else what is wrong with its signatures was told
                names = ", ".join(key.vkey for key in signers)
                reason = f"it is signed by no key that is trusted, but by {names}"
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
