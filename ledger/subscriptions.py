"""Subscriptions: named groups of readers that share the ledger, and where each of them is.

A group has a checkpoint in every partition: everything up to it was acknowledged. One member at a
time reads a partition for the group, under a lease; whoever takes a partition over gets the next
`generation`, and what is said under an older one is refused. The seam to the disk stands below; two
of it exist, `memory_subscriptions` (the readable reference) and `redis_subscriptions`.
"""

import re
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from ledger.codec import Undecodable

GROUPS_MAX: Final = 256
"""Subscriptions of one ledger: each holds back trimming, and is looked at with every scrape."""

HALT_CHARACTERS_MAX: Final = 1_000
"""Of the reason why a group does not go on."""

BEGINNING: Final = "0-0"

_GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

GROUP_EXPECTED: Final = "1 to 100 letters, digits, '.', '_' or '-', a letter or digit first"


def is_group_name(text: str) -> bool:
    """Whether a subscription may be called so."""
    return _GROUP_NAME.fullmatch(text) is not None


def order_of(entry: str) -> tuple[int, int]:
    """Compares as the entries of one stream do."""
    ms, _, seq = entry.partition("-")
    return int(ms), int(seq)


class Filters(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event is wanted that has one of each of these; an empty one asks for nothing."""

    types: tuple[str, ...] = ()
    """Names of events."""
    kb_ids: tuple[str, ...] = ()
    task_types: tuple[str, ...] = ()
    task_ids: tuple[str, ...] = ()


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a group is in a partition: everything up to and with `entry` is acknowledged."""

    entry: str = BEGINNING
    digest: str = ""
    """SHA-256 of the event at `entry`, in hex; empty where none is known to stand there."""
    passed: int = 0
    """Entries of the partition that there ever were, up to and with `entry`."""

    @property
    def order(self) -> tuple[int, int]:
        return order_of(self.entry)


class Group(msgspec.Struct, frozen=True):
    """What is kept of a subscription for as long as it is registered."""

    id: str
    """Tells it from one of the same name that was removed."""
    epoch: str
    """Of the ledger that it was made on."""
    created_at: int
    """In ms, by the ledger's clock."""
    filters: Filters
    starts: tuple[Checkpoint, ...]
    """For each partition, where it began."""

    def tag(self, name: str) -> str:
        """What its fields in a partition begin with."""
        return f"{name}/{self.id}"


class Held(msgspec.Struct, frozen=True):
    """The partition is the member's, from `checkpoint` on, for as long as it keeps the lease."""

    generation: int
    checkpoint: Checkpoint


class Taken(msgspec.Struct, frozen=True):
    """Another member reads the partition."""

    owner: str


class Halted(msgspec.Struct, frozen=True):
    """The group does not go on in the partition until somebody seeks."""

    reason: str


class Reading(msgspec.Struct, frozen=True):
    """One group in one partition, as others see it. `owner` is empty where nobody reads now."""

    checkpoint: Checkpoint
    generation: int = 0
    owner: str = ""
    halted: str = ""


class ForeignGroup(msgspec.Struct, frozen=True):
    """A consumer group that somebody made on the stream itself, with XGROUP."""

    name: str
    delivered: str
    """The last entry that was delivered to it."""
    pending: int
    oldest_pending: str
    """The oldest entry that was delivered and not acknowledged; empty when there is none."""
    lag: int | None
    """Entries that were not delivered yet; None when the server does not know."""

    @property
    def passed(self) -> str:
        """The entry up to which everything was acknowledged."""
        return entry_before(self.oldest_pending) if self.oldest_pending else self.delivered


class Ends(msgspec.Struct, frozen=True):
    """From where to where a partition goes. `added` entries there ever were, `length` there are;
    `first` and `last` are BEGINNING where there are none."""

    first: str
    last: str
    added: int
    length: int

    @property
    def removed(self) -> int:
        """Entries that were taken away."""
        return self.added - self.length

    def lost_after(self, checkpoint: Checkpoint) -> bool:
        """Whether entries behind `checkpoint` were taken away."""
        if checkpoint.order >= order_of(self.last) or self.removed <= checkpoint.passed:
            return False
        return self.length == 0 or order_of(self.first) > checkpoint.order

    def lag(self, checkpoint: Checkpoint) -> int:
        """Entries behind `checkpoint`."""
        if checkpoint.order >= order_of(self.last):
            return 0
        return max(1, self.added - checkpoint.passed)


class PartitionView(msgspec.Struct, frozen=True):
    """Everything about the groups of a partition, at one moment. `readings` by their tags."""

    now_ms: int
    ends: Ends
    readings: Mapping[str, Reading]
    foreign: tuple[ForeignGroup, ...]


def entry_before(entry: str) -> str:
    """The greatest entry id that is less."""
    ms, seq = order_of(entry)
    if seq:
        return f"{ms}-{seq - 1}"
    return f"{ms - 1}-{(1 << 64) - 1}" if ms else BEGINNING


def entry_after(entry: str) -> str:
    """The least entry id that is greater."""
    ms, seq = order_of(entry)
    return f"{ms}-{seq + 1}" if seq < (1 << 64) - 1 else f"{ms + 1}-0"


def share(members: int, rank: int, partitions: int) -> int:
    """How many partitions are the `rank`-th of so many members' to read; the first is 0."""
    even, rest = divmod(partitions, members)
    return even + (rank < rest)


# -- the storage format ----------------------------------------------------------------------------

_decode_group = msgspec.json.Decoder(Group).decode


def decode_group(name: str, stored: bytes) -> Group:
    """What is kept of a group. Raises Undecodable."""
    try:
        return _decode_group(stored)
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"the subscription {name!r} cannot be read: {error}") from error


def checkpoint_text(checkpoint: Checkpoint) -> str:
    """As it is kept in a partition."""
    return f"{checkpoint.entry} {checkpoint.passed} {checkpoint.digest}"


def read_checkpoint(stored: str) -> Checkpoint:
    """The same again. Raises Undecodable."""
    try:
        entry, passed, digest = stored.split(" ")
        order_of(entry)
        return Checkpoint(entry, digest, int(passed))
    except ValueError as error:
        raise Undecodable(f"the checkpoint {stored[:100]!r} cannot be read: {error}") from error


def read_lease(stored: str, now_ms: int) -> tuple[int, str]:
    """Generation and owner; the owner is empty when the lease is over. Raises Undecodable."""
    try:
        generation, until, owner = stored.split(" ", 2)
        return int(generation), owner if int(until) > now_ms else ""
    except ValueError as error:
        raise Undecodable(f"the lease {stored[:100]!r} cannot be read: {error}") from error


class Subscriptions(Protocol):
    """Keeps groups, their checkpoints and leases. Every method may raise Rejection with the code
    SERVICE_UNAVAILABLE when the ledger cannot be reached in time, and may be sent again then.

    A `tag` is that of a group (`Group.tag`). Leases and their ends are counted by the ledger's
    clock. Where that is set back, a lease ends as long after the next one who claims as it lasts,
    not when the clock is there again.
    """

    @property
    def partitions(self) -> int: ...

    async def register(self, name: str, group: Group) -> Group:
        """The group of this name: `group`, unless there is one already. Raises TooManyGroups,
        Undecodable."""
        ...

    async def groups(self) -> dict[str, Group]:
        """All that are registered, by name."""
        ...

    async def group(self, name: str) -> Group | None:
        """The group of this name. Raises Undecodable."""
        ...

    async def remove(self, name: str) -> bool:
        """Forget a group with all that it has, also one that cannot be read; whether there was
        one."""
        ...

    async def beat(self, name: str, member: str, lease_ms: int) -> list[str]:
        """The member is there, for `lease_ms` from now (0: not any more); all who are, sorted."""
        ...

    async def members(self, name: str) -> list[str]:
        """All who are there, sorted."""
        ...

    async def claim(
        self, partition: int, tag: str, member: str, lease_ms: int, start: Checkpoint
    ) -> Held | Taken | Halted:
        """Take a partition that nobody holds, or that is the member's own already. A group that was
        never there begins at `start`."""
        ...

    async def keep(
        self,
        partition: int,
        tag: str,
        generation: int,
        lease_ms: int,
        checkpoint: Checkpoint | None = None,
    ) -> bool:
        """Extend a lease (0: give it back), and move the group's checkpoint on; never back. False
        when the partition is another one's by now, or the group is gone: nothing is changed."""
        ...

    async def halt(self, partition: int, tag: str, generation: int, reason: str) -> bool:
        """Stop the group in the partition, until somebody seeks. False as `keep`."""
        ...

    async def seek(self, partition: int, tag: str, checkpoint: Checkpoint) -> None:
        """Set the group's checkpoint, forwards or back, and let it go on; whoever held the
        partition does not any more."""
        ...

    async def view(self, partition: int) -> PartitionView:
        """Everything about the groups of a partition."""
        ...

    async def ends(self, partition: int) -> Ends:
        """From where to where a partition goes."""
        ...

    async def first_after(self, partition: int, entry: str) -> str | None:
        """The entry that stands next behind `entry`."""
        ...

    async def count_after(self, partition: int, entry: str, up_to: str | None = None) -> int:
        """How many entries stand behind `entry`, up to and with `up_to` or the end: takes time
        where those are many."""
        ...


class TooManyGroups(Exception):
    """There are GROUPS_MAX already."""

    def __init__(self) -> None:
        super().__init__(
            f"there are {GROUPS_MAX} subscriptions already: remove one that nobody needs, with"
            " `ledgerq subscriptions remove GROUP`"
        )
