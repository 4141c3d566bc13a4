"""Members that claim, read, acknowledge, fall silent and come back too late, in any order.

Whatever they do, a checkpoint passes no event that was not acknowledged by whoever held the
partition then; and two never hold it at once.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.acks import Acks
from ledger.memory_store import MemoryStore
from ledger.memory_subscriptions import MemorySubscriptions
from ledger.subscriptions import Checkpoint, Halted, Held, Taken, share
from tests.contracts.subscriptions import TAG
from tests.contracts.test_memory_store import no_wait

Value = TypeVar("Value")
MEMBERS = ("m1", "m2", "m3")
LEASE_MS = 1_000


def at_once(work: Coroutine[Any, Any, Value]) -> Value:
    """What never waits, in memory."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")


def at(number: int) -> Checkpoint:
    return Checkpoint(f"{number}-0", "", number)


class Holding(msgspec.Struct, eq=False):
    """What a member knows of a partition that it holds, or held."""

    member: str
    generation: int
    acks: Acks
    read: int
    given: list[int]


class LeaseMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.now_ms = 1_000_000
        self.keeper = MemorySubscriptions(
            MemoryStore(lambda: self.now_ms, no_wait), lambda: self.now_ms
        )
        self.last = 0
        self.holdings: list[Holding] = []
        self.acknowledged: set[int] = set()

    @property
    def current(self) -> int:
        """The generation that counts."""
        reading = at_once(self.keeper.view(0)).readings.get(TAG)
        return 0 if reading is None else reading.generation

    @property
    def checkpoint(self) -> Checkpoint:
        reading = at_once(self.keeper.view(0)).readings.get(TAG)
        return at(0) if reading is None else reading.checkpoint

    @rule(count=st.integers(1, 5))
    def events_come(self, count: int) -> None:
        self.last += count

    @rule(passed_ms=st.sampled_from((100, LEASE_MS - 1, LEASE_MS + 1)))
    def time_passes(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @rule(member=st.sampled_from(MEMBERS))
    def somebody_claims(self, member: str) -> None:
        owner = self._owner()
        outcome = at_once(self.keeper.claim(0, TAG, member, LEASE_MS, at(0)))
        match outcome:
            case Taken(holder):
                assert holder == owner != member
            case Held(generation, checkpoint):
                assert owner in ("", member)
                assert checkpoint == self.checkpoint
                holding = Holding(member, generation, Acks(checkpoint), checkpoint.passed, [])
                self.holdings.append(holding)
            case Halted():
                raise AssertionError("nobody halted it")

    def _owner(self) -> str:
        reading = at_once(self.keeper.view(0)).readings.get(TAG)
        return "" if reading is None else reading.owner

    @precondition(lambda self: self.holdings)
    @rule(data=st.data(), count=st.integers(1, 4))
    def somebody_reads(self, data: st.DataObject, count: int) -> None:
        holding = data.draw(st.sampled_from(self.holdings))
        for number in range(holding.read + 1, min(holding.read + count, self.last) + 1):
            if number % 4:
                holding.acks.read(at(number))
                holding.acks.gave(f"{number}-0")
                holding.given.append(number)
            else:  # nobody wants it
                holding.acks.passed_over(at(number))
                self.acknowledged.add(number)
            holding.read = number

    @precondition(lambda self: any(holding.given for holding in self.holdings))
    @rule(data=st.data())
    def somebody_acknowledges(self, data: st.DataObject) -> None:
        holding = data.draw(st.sampled_from([h for h in self.holdings if h.given]))
        number = data.draw(st.sampled_from(holding.given))
        before, is_current = self.checkpoint, holding.generation == self.current
        holding.given.remove(number)
        holding.acks.ack(f"{number}-0")
        if is_current:
            self.acknowledged.add(number)

        kept = at_once(
            self.keeper.keep(0, TAG, holding.generation, LEASE_MS, holding.acks.checkpoint)
        )

        assert kept == is_current
        if not kept:
            assert self.checkpoint == before

    @precondition(lambda self: self.holdings)
    @rule(data=st.data())
    def somebody_gives_back(self, data: st.DataObject) -> None:
        holding = data.draw(st.sampled_from(self.holdings))
        is_current = holding.generation == self.current

        kept = at_once(self.keeper.keep(0, TAG, holding.generation, 0, holding.acks.checkpoint))

        assert kept == is_current
        self.holdings.remove(holding)

    @precondition(lambda self: self.holdings)
    @rule(number=st.integers(0, 20))
    def somebody_seeks(self, number: int) -> None:
        target = min(number, self.checkpoint.passed)

        at_once(self.keeper.seek(0, TAG, at(target)))

        assert self.checkpoint == at(target)
        assert all(holding.generation != self.current for holding in self.holdings)

    @invariant()
    def a_checkpoint_passes_nothing_that_is_open(self) -> None:
        if hasattr(self, "keeper"):
            assert set(range(1, self.checkpoint.passed + 1)) <= self.acknowledged

    @invariant()
    def generations_tell_holdings_apart(self) -> None:
        if hasattr(self, "holdings"):
            generations = [holding.generation for holding in self.holdings]
            assert len(set(generations)) == len(generations)
            assert max(generations, default=0) <= self.current


TestLeases = LeaseMachine.TestCase


def test_shares_are_even_and_leave_nothing():
    for partitions in range(1, 20):
        for members in range(1, 25):
            shares = [share(members, rank, partitions) for rank in range(members)]
            assert sum(shares) == partitions
            assert max(shares) - min(shares) <= 1
