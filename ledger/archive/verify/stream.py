"""Whether the ledger still says what was sealed, and goes on from there."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ledger.archive.index import key_of
from ledger.archive.leaf import NoLeaf, pack_leaf
from ledger.archive.merkle import HASH_BYTES
from ledger.archive.verify.erasures import Erasures
from ledger.archive.verify.faults import Faults, Kind
from ledger.archive.verify.leaves import Checked
from ledger.archive.verify.tasks import ERASED, Chains
from ledger.script_format import read_events
from ledger.store import Entry, Extent, Position, Recorded

READ_COUNT: Final = 1_000
MISSING_KEPT: Final = 10_000
"""Events that the ledger has not got: then it is asked whether they were trimmed. When they were
not, no more are looked for."""

Order = tuple[int, int]
ReadEntries = Callable[[Position, int], Awaitable[list[Entry]]]
ReadExtent = Callable[[], Awaitable[Extent]]


class StreamCheck:
    """A partition's stream beside its log, in the log's order. What is trimmed is no fault."""

    def __init__(
        self, partition: int, read: ReadEntries, extent: ReadExtent, faults: Faults
    ) -> None:
        self._partition = partition
        self._read = read
        self._extent = extent
        self._faults = faults
        self._ahead: list[Recorded] = []
        self._at = 0
        self._read_up_to = Position(partition, "0-0")
        self._end: Order = (0, 0)
        self._first: Order | None = None
        self._missing: list[tuple[Position, str, str]] = []
        self.same = 0
        """Events that are the same in both."""
        self.beyond = 0
        """Events behind the last that was sealed."""

    async def begin(self) -> None:
        """See how far the stream goes now."""
        await self.extend()
        await self._fill()
        self._first = self._ahead[0].position.order if self._ahead else None

    async def extend(self) -> None:
        """The log has grown: see how far the stream goes by now. What is added to that later is
        none of our business."""
        self._end = (await self._extent()).last.order

    async def compare(self, leaves: Sequence[Checked], chains: Chains) -> None:
        """The next sealed events. `chains` knows where events are missing that were sealed."""
        for leaf in leaves:
            event = leaf.event
            order = event.position.order
            while (there := await self._next()) is not None and there.position.order < order:
                self._take()
                self._tell_not_sealed(there, chains)
            if there is None or there.position.order > order:
                if self._first is not None and order >= self._first:
                    self._missing.append((event.position, event.task_id, event.type))
                continue
            self._take()
            self._check_same(event, there, is_whole=leaf.is_whole)
        if len(self._missing) >= MISSING_KEPT:
            await self._leave_out_trimmed()

    async def finish(self, sealed: Position, chains: Chains, erasures: Erasures) -> None:
        """The events behind the last one that was sealed. Those of erased tasks may be gone from
        the ledger."""
        if self._end < sealed.order:
            last = f"{self._partition}:{self._end[0]}-{self._end[1]}"
            reason = f"the ledger ends at {last}, before what was sealed: it lost its newest events"
            self._faults.add(Kind.DROPPED, sealed, reason)
        while (event := await self._next()) is not None:
            self._take()
            if chains.is_in_hole(event.position.order):
                continue
            self.beyond += 1
            chains.add(key_of(event.task_id), event, b"", None, is_whole=True)
            if event.type == ERASED:
                erasures.erased(event, is_sealed=False)
        await self._tell_missing(erasures.tasks)

    async def _tell_missing(self, erased: set[bytes]) -> None:
        await self._leave_out_trimmed()
        for position, task_id, kind in self._missing:
            if position.order <= self._end and key_of(task_id) not in erased:
                reason = f"{kind} of {task_id} was sealed, and stands in the ledger no more"
                self._faults.add(Kind.DROPPED, position, reason)

    async def _leave_out_trimmed(self) -> None:
        """What is missing because it was trimmed meanwhile is no fault."""
        trimmed = (await self._extent()).first.order
        self._missing = [each for each in self._missing if each[0].order > trimmed]
        if len(self._missing) >= MISSING_KEPT:
            self._first = None  # it is bad enough: no more are looked for
        elif self._first is not None:
            self._first = max(self._first, trimmed)

    def _tell_not_sealed(self, there: Recorded, chains: Chains) -> None:
        try:
            pack_leaf(there, bytes(HASH_BYTES) if there.prev else b"", bytes(HASH_BYTES))
        except NoLeaf as error:
            self._faults.notice(
                f"an event of the ledger cannot be sealed, and was left out: {error}"
            )
            return
        if not chains.is_in_hole(there.position.order):
            reason = f"{there.type} of {there.task_id} stands in the ledger, and was not sealed"
            self._faults.add(Kind.DROPPED, there.position, reason)

    def _check_same(self, sealed: Recorded, there: Recorded, *, is_whole: bool) -> None:
        names = ("type", "task_id", "version", "at", "meta", "prev", *(["data"] * is_whole))
        differing = [name for name in names if getattr(sealed, name) != getattr(there, name)]
        if differing:
            reason = f"its {', '.join(differing)} in the ledger is not what was sealed"
            self._faults.add(Kind.ALTERED, sealed.position, reason)
        else:
            self.same += 1

    def _take(self) -> None:
        self._at += 1

    async def _next(self) -> Recorded | None:
        """The stream's next event."""
        if self._at == len(self._ahead):
            await self._fill()
        return self._ahead[self._at] if self._at < len(self._ahead) else None

    async def _fill(self) -> None:
        self._ahead, self._at = [], 0
        while not self._ahead and self._read_up_to.order < self._end:
            entries = await self._read(self._read_up_to, READ_COUNT)
            if not entries:
                return
            self._read_up_to = Position(self._partition, entries[-1][0].decode())
            events, _ = read_events(self._partition, entries)
            self._ahead = events
