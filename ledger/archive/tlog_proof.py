"""Proofs of single events, as tools for transparency logs read them (https://c2sp.org/tlog-proof).

    c2sp.org/tlog-proof@v1
    extra <the leaf, base64>
    index <number of the leaf>
    <hashes of the inclusion proof, base64, one a line>

    <the signed checkpoint>

The leaf's bytes are the log's entry: SHA-256 over a zero byte and them is the leaf's hash.
"""

import base64
from collections.abc import Iterator
from typing import Final

from ledger.archive.checkpoint import Checkpoint
from ledger.archive.multiproof import inclusion_among
from ledger.archive.notes import Note
from ledger.archive.proof import Proof
from ledger.archive.proof_check import tree_of

HEADER: Final = "c2sp.org/tlog-proof@v1"
SUFFIX: Final = ".tlog-proof"


def tlog_proofs(proof: Proof) -> Iterator[str]:
    """One of each event of a proof that was checked."""
    size = Checkpoint.parse(Note.parse(proof.checkpoint).text).size
    tree = tree_of(proof, size)
    for event in proof.events:
        hashes = inclusion_among(tree, size, event.index)
        lines = [HEADER, f"extra {_base64(event.leaf.encode())}", f"index {event.index}"]
        yield "\n".join([*lines, *map(_base64, hashes), "", proof.checkpoint])


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
