"""What is hashed in front of each event's data: whoever has a leaf, and not the data, cannot try
out what it was."""

import hashlib

from ledger.archive.tiles import SALT_BYTES, TILE_WIDTH


class Salts:
    """Those of a partition: the same whenever its log is written anew, and known to nobody who does
    not have the secret, or the data beside the leaves."""

    def __init__(self, secret: bytes, partition: int) -> None:
        self._before = secret + b"%d:" % partition

    def of_bundle(self, first: str) -> list[bytes]:
        """The salts of a bundle's leaves. `first`: the entry id of the first leaf's event, so that
        another log that the secret is used for has other ones.

        SHAKE-256 (FIPS 202) with the secret in front gives all of them in the time that SHA-256
        takes for twenty.
        """
        made = hashlib.shake_256(self._before + first.encode()).digest(TILE_WIDTH * SALT_BYTES)
        return [made[at : at + SALT_BYTES] for at in range(0, len(made), SALT_BYTES)]
