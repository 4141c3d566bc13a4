"""What leaves the ledger's server once it is sealed, and what is known there of that."""

from typing import Final, Protocol

import msgspec

from ledger.codec import Undecodable
from ledger.store import Position

BEGINNING: Final = "0-0"

FORGOTTEN: Final = "0-1"
"""Up to where finished tasks were let go of, of a ledger that goes on without the archive that had
them: before all events, and behind BEGINNING, so that others are asked whether they have them."""

TRIMMED_AGE_MS: Final = 60_000
"""Nothing younger is ever trimmed: who has read up to what is younger misses nothing."""


class ArchiveState(msgspec.Struct, frozen=True):
    """What a partition knows of its archive. Entries are BEGINNING where nothing was done yet."""

    generation: int = 0
    """Of the archiver's lease."""
    sealed: str = BEGINNING
    """The last event that was sealed and read back."""
    size: int = 0
    """How many events that are."""
    trimmed: str = BEGINNING
    """What stood before it may be gone."""
    evicted: str = BEGINNING
    """Finished tasks whose last event is not behind it may be gone."""
    looked: int = 0
    """How many sealed events that are."""
    halted: str = ""
    """Why nothing is sealed any more."""
    erased: str = BEGINNING
    """Erasures of which the events are not behind it were carried out."""


class Projection(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a node's read model is in a partition."""

    entry: str
    at: int
    """When it said so, in ms by the ledger's clock."""
    host: str = ""
    """Where it is, for people."""


_decode_projection = msgspec.json.Decoder(Projection).decode


def read_projection(node: str, stored: bytes) -> Projection:
    """What a node said. Raises Undecodable."""
    try:
        found = _decode_projection(stored)
        Position.parse(f"0:{found.entry}")
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"what the read model {node!r} said cannot be read: {error}") from error
    return found


class Ended(msgspec.Struct, frozen=True, gc=False):
    """A task as one of its events left it."""

    task_id: str
    version: int
    entry: str


class Retention(Protocol):
    """The part of a ledger that lets go of what is kept elsewhere. Every method may raise
    Rejection(SERVICE_UNAVAILABLE)."""

    @property
    def partitions(self) -> int: ...

    async def archive_state(self, partition: int) -> ArchiveState:
        """What the partition knows of its archive."""
        ...

    async def trim(self, partition: int, generation: int, up_to: str, count: int) -> int | None:
        """Take away about `count` of the entries that stand before `up_to`; how many went: 0 when
        none is left. None when the lease is another's, or the archive does not reach so far."""
        ...

    async def evict(
        self, partition: int, generation: int, reached: str, looked: int, ended: list[Ended]
    ) -> int | None:
        """Let go of the snapshots of those of these tasks that are still as they ended; how many
        went. All others up to `reached`, which is the `looked`th sealed event, were looked at
        before. None as `trim`."""
        ...

    async def restored(self, partition: int, before_ms: int, count: int) -> list[Ended]:
        """Tasks that were put back before that time, and are not known to have moved on."""
        ...

    async def forget_restored(self, partition: int, ended: list[Ended]) -> None:
        """They were looked at."""
        ...

    async def tell_projection(self, partition: int, node: str, projection: Projection) -> None:
        """Say how far a node's read model is."""
        ...

    async def projections(self, partition: int) -> dict[str, Projection]:
        """Those that said so, by node."""
        ...

    async def forget_projection(self, node: str) -> bool:
        """Wait for a node no more, unless it says something again; whether it was known."""
        ...
