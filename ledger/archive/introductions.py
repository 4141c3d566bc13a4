"""Who may sign a log stands in its list of keys, before any signature of theirs does."""

from collections.abc import Sequence

from ledger.archive import tiles
from ledger.archive.growth import Made
from ledger.archive.key_list import (
    Introduced,
    introduce,
    introduce_witness,
    pack_keys,
    unpack_keys,
)
from ledger.archive.log_objects import LogObjects
from ledger.archive.notes import BadNote, Note, NoteSigner, Verifier
from ledger.archive.reader import Damaged


class Introductions:
    """The list of one log. Every method may raise ObjectStoreError and Damaged."""

    def __init__(self, objects: LogObjects, prefix: str) -> None:
        self._objects = objects
        self._prefix = prefix
        self._newest: Verifier | None = None
        """The newest of our keys, once it stands there."""
        self._witnesses: set[Verifier] = set()
        """Those that stand there."""

    async def of_signers(self, signers: Sequence[NoteSigner]) -> None:
        """Each key of ours, by the one before."""
        if self._newest == signers[-1].verifier:
            return
        listed = await self._listed()
        known = {each.verifier for each in listed}
        fresh = [
            introduce(signer, before)
            for before, signer in zip([None, *signers], signers, strict=False)
            if signer.verifier not in known
        ]
        await self._add(listed, fresh)
        self._newest = signers[-1].verifier

    async def of_witnesses(self, verifiers: Sequence[Verifier], signer: NoteSigner) -> None:
        """Each witness, by our newest key."""
        if self._witnesses.issuperset(verifiers):
            return
        listed = await self._listed()
        known = {each.verifier for each in listed}
        fresh = [introduce_witness(each, signer) for each in verifiers if each not in known]
        await self._add(listed, fresh)
        self._witnesses.update(verifiers)

    async def _listed(self) -> list[Introduced]:
        packed = await self._objects.find(tiles.KEYS)
        try:
            return [] if packed is None else unpack_keys(packed)
        except BadNote as error:
            raise Damaged(self._prefix + tiles.KEYS, str(error)) from error

    async def _add(self, listed: Sequence[Introduced], fresh: Sequence[Note]) -> None:
        if fresh:
            notes = [*(each.note for each in listed), *fresh]
            await self._objects.store([Made(tiles.KEYS, pack_keys(notes))])
